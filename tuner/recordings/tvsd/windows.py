"""Windowed means of raw TVSD trials, and the pools that normalise them, in one bounded pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.progress import Progress
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.integrity import check_reached
from tuner.recordings.tvsd.layout import N_CHANNELS, Monkey, columns
from tuner.recordings.tvsd.table import TrialTable

WINDOWS = {"V1": (25, 125), "V4": (50, 150), "IT": (75, 175)}
"""Per area: samples later than the first and not later than the second time count, ms."""

BLOCK_BYTES = 96 * 2**20
"""Samples that are held in memory at once, about, as float64."""


@dataclass(frozen=True)
class Trials:
    """``ALLMUA`` with its axes named, whichever way round they are stored."""

    data: h5py.Dataset
    reversed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, presentations, channels."""
        time, presentation, channel = self.data.shape[::-1] if self.reversed else self.data.shape
        return time, presentation, channel

    @property
    def chunks(self) -> tuple[int, int, int]:
        """What is stored together, in the same terms."""
        stored = self.data.chunks or (1, 1, 1)
        time, presentation, channel = stored[::-1] if self.reversed else stored
        return time, presentation, channel

    def read(self, time: slice, presentation: slice, channel: slice) -> NDArray[Any]:
        """Read a block as (time, presentation, channel)."""
        where = (time, presentation, channel)
        if self.reversed:
            where = where[::-1]
        block = np.asarray(self.data[where])
        check_reached(self.data, block, [axis.start for axis in where])
        return block.transpose() if self.reversed else block


@dataclass
class Windowed:
    """Per physical channel: the window's mean of each presentation, and each day's pool.

    Parameters
    ----------
    mean
        (presentations, 1024).
    count
        Pooled samples per day, (days, 1024).
    pool_mean, pool_square
        Their mean and their summed squared distance from it, (days, 1024).
    """

    mean: NDArray[np.float64]
    count: NDArray[np.float64]
    pool_mean: NDArray[np.float64]
    pool_square: NDArray[np.float64]

    def pool(self, day: int, channels: NDArray[np.int64], samples: NDArray[np.float64]) -> None:
        """Add samples (time, presentations, channels) of test presentations to a day's pool.

        Partial sums as of Chan, Golub and LeVeque (1979). A presentation with a missing sample has no
        part in the pool of that channel, as it has no response of it.
        """
        whole = np.asarray(~np.isnan(samples).any(axis=0))
        if whole.all():
            self._add(day, channels, samples.reshape(-1, channels.size))
            return
        for place, channel in enumerate(channels):
            mine = samples[:, whole[:, place], place]
            if mine.size:
                self._add(day, np.array([channel]), mine.reshape(-1, 1))

    def _add(self, day: int, channels: NDArray[np.int64], samples: NDArray[np.float64]) -> None:
        count = float(len(samples))
        mean = samples.mean(axis=0)
        square = ((samples - mean) ** 2).sum(axis=0)
        before = self.count[day, channels]
        total = before + count
        step = mean - self.pool_mean[day, channels]
        self.pool_mean[day, channels] += step * count / total
        self.pool_square[day, channels] += square + step**2 * before * count / total
        self.count[day, channels] = total

    def notes(self) -> list[str]:
        """Say how many responses are missing because a sample of their window is; dead channels aside."""
        missing = np.isnan(self.mean)
        missing[:, missing.all(axis=0)] = False
        lost = int(missing.sum())
        if not lost:
            return []
        return [
            f"{lost} responses are left out, in {int(missing.any(axis=1).sum())} presentations and "
            f"{int(missing.any(axis=0).sum())} channels: a sample in their window is missing"
        ]


def _window(path: Path, times: NDArray[np.float64], area: str) -> slice:
    after, until = WINDOWS[area]
    samples = np.flatnonzero((times > after) & (times <= until))
    if samples.size == 0:
        raise InputError(
            f"{path}: tb has no sample from {after} to {until} ms, the window of {area}"
        )
    return slice(int(samples[0]), int(samples[-1]) + 1)


def _blocks(trials: Trials, samples: int) -> Iterator[tuple[slice, slice]]:
    """Cut presentations and channels into blocks that fit the memory and follow the chunks."""
    _, n_presentations, n_channels = trials.shape
    _, of_presentations, of_channels = trials.chunks
    room = max(1, BLOCK_BYTES // (8 * samples))
    channels = n_channels
    if of_presentations * n_channels > room:
        channels = max(of_channels, room // of_presentations // of_channels * of_channels)
    presentations = max(of_presentations, room // channels // of_presentations * of_presentations)
    for start in range(0, n_presentations, presentations):
        rows = slice(start, min(start + presentations, n_presentations))
        for first in range(0, n_channels, channels):
            yield rows, slice(first, min(first + channels, n_channels))


def windowed(
    path: Path,
    trials: Trials,
    table: TrialTable,
    times: NDArray[np.float64],
    monkey: Monkey,
    raw_of: NDArray[np.int64],
    progress: Progress | None,
) -> Windowed:
    """Average every presentation over its channel's window, and pool the test presentations.

    Parameters
    ----------
    path
        The file, for error messages.
    trials
        Samples of the presentations.
    table
        What each presentation showed.
    times
        Time of each sample, ms.
    monkey
        Whose layout tells the area, and so the window, of each channel.
    raw_of
        The raw channel at each physical place, (1024,).
    progress
        Called after each block.

    Returns
    -------
    Windowed

    Raises
    ------
    InputError
        If a window has no sample, or the file is damaged.
    """
    windows = {area: _window(path, times, area) for area in WINDOWS}
    first = min(window.start for window in windows.values())
    last = max(window.stop for window in windows.values())
    area_of = columns(monkey)["area"]
    _, n_presentations, _ = trials.shape
    days = (table.n_days, N_CHANNELS)
    mean = np.full((n_presentations, N_CHANNELS), np.nan)
    out = Windowed(mean, np.zeros(days), np.zeros(days), np.zeros(days))
    blocks = list(_blocks(trials, last - first))
    for done, (rows, raw) in enumerate(blocks):
        with h5.guarded(path, "ALLMUA"):
            block = trials.read(slice(first, last), rows, raw)
        _check_size(path, block)
        for area, window in windows.items():
            in_block = (area_of == area) & (raw_of >= raw.start) & (raw_of < raw.stop)
            physical = np.flatnonzero(in_block)
            if not physical.size:
                continue
            within = slice(window.start - first, window.stop - first)
            of_area = block[within][:, :, raw_of[physical] - raw.start].astype(np.float64)
            mean[rows, physical] = of_area.mean(axis=0)
            _pool(out, table, rows, physical, of_area)
        if progress is not None:
            progress("reading trials", done + 1, len(blocks))
    return out


def _check_size(path: Path, block: NDArray[Any]) -> None:
    """Refuse samples that are infinite, or too large to be squared: one spoils its channel's day."""
    highest, lowest = np.fmax.reduce(block, axis=None), np.fmin.reduce(block, axis=None)
    limit = np.finfo(np.float32).max
    if highest > limit or lowest < -limit:
        raise InputError(
            f"{path}: ALLMUA holds infinite numbers, or some beyond 3.4e38; the file is damaged, get "
            "it again"
        )


def _pool(
    out: Windowed,
    table: TrialTable,
    rows: slice,
    physical: NDArray[np.int64],
    samples: NDArray[np.float64],
) -> None:
    is_test, day = table.test[rows] >= 0, table.day[rows]
    for which in np.unique(day[is_test]):
        out.pool(int(which), physical, samples[:, is_test & (day == which)])
