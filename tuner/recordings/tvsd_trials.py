"""The raw trials of TVSD, ``THINGS_MUA_trials.mat``: some 60 GB, read in bounded memory.

As h5py shows it, ``ALLMUA`` is (time, presentation, raw channel) at 1 kHz, ``ALLMAT`` (column,
presentation) and ``tb`` the time of each sample in ms. What is done to it is what the authors'
``norm_MUA.m`` does: channels are put into physical order, ``physical = raw[mapping - 1]``; each
presentation is averaged over its area's window; and each channel and day is normalised by the
mean and standard deviation over that day's test presentations and all samples of the window,
``z = (mean over window - mu) / sd``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings import h5access as h5
from tuner.recordings.hdf5_writer import Progress
from tuner.recordings.matlab import oriented
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import FileImages, NamedImages
from tuner.recordings.trial_table import TrialTable
from tuner.recordings.tvsd_layout import (
    N_CHANNELS,
    Monkey,
    Stimuli,
    check_monkey,
    columns,
    find_beside,
    find_stimuli,
    live_channels,
)
from tuner.scores import pairwise_reliability

WINDOWS = {"V1": (25, 125), "V4": (50, 150), "IT": (75, 175)}
"""Per area: samples later than the first and not later than the second time count, ms."""

BLOCK_BYTES = 96 * 2**20
"""Samples that are held in memory at once, about, as float64."""


def read_trials(
    path: Path,
    *,
    monkey: str | None,
    images: Path | None = None,
    stimuli: Path | None = None,
    mapping: Path | None = None,
    progress: Progress | None = None,
) -> Recording:
    """Read raw trials, reduced to one number per presentation and channel.

    Parameters
    ----------
    path
        ``THINGS_MUA_trials.mat``.
    monkey
        ``"N"`` or ``"F"``: the file does not say.
    images
        The folder of the THINGS images; without it the recording names them unchecked.
    stimuli, mapping
        ``things_imgs.mat`` and ``1024chns_mapping_*.mat``; by default they are looked for beside
        the recording and in ``_logs/`` there.
    progress
        Called now and then with what is being done and how far it is.

    Returns
    -------
    Recording
        As of the normalised file; reliability is computed from the repeats.

    Raises
    ------
    InputError
        If a file is missing or damaged, or does not belong to the others.
    """
    animal = check_monkey(monkey)
    shown = Stimuli(find_stimuli(path, stimuli))
    raw_of = read_mapping(find_beside(path, mapping, "1024chns_mapping*.mat", "--mapping"))
    with h5.open_hdf5(path) as file:
        trials, table, times = _open(path, file, len(shown.train), len(shown.test))
        responses = _windowed(path, trials, table, times, animal, raw_of, progress)
    normalised, notes = _normalised(responses, table)
    train = _by_image(normalised, table.train, len(shown.train))
    test = _by_repeat(normalised, table, len(shown.test))
    live, dropped = live_channels(animal, path, train)
    units = {name: values[live] for name, values in columns(animal).items()}
    test = test[:, :, live]
    units["reliability"] = pairwise_reliability(test)
    groups = shown.groups()
    never = int(np.isnan(train[:, live]).all(axis=1).sum())
    if never:
        notes.append(f"{never} of {len(train)} training images have no response")
    return Recording(
        label=f"TVSD monkey {animal}",
        source=str(path),
        simulated=False,
        units=units,
        train_images=_images(images, shown.train, shown.path),
        train_responses=h5.float32(path, "ALLMUA", train[:, live]),
        train_groups=groups[0],
        test_images=_images(images, shown.test, shown.path),
        test_responses=h5.float32(path, "ALLMUA", test),
        test_groups=groups[1],
        notes=(*dropped, *notes),
    )


def read_mapping(path: Path) -> NDArray[np.int64]:
    """Read which raw channel is at each physical place.

    Parameters
    ----------
    path
        ``1024chns_mapping_20220105.mat`` (MATLAB v7), whose ``mapping`` is a permutation of 1 to
        1024: ``normMUA = normMUA(mapping, :)`` in ``norm_MUA.m``.

    Returns
    -------
    ndarray
        (1024,), from 0: ``physical = raw[..., read_mapping(path)]``.

    Raises
    ------
    InputError
        If the file is missing or damaged, or holds anything else.
    """
    import scipy.io

    if not path.is_file():
        raise InputError(f"{path}: no such file; it holds the order of the channels")
    try:
        found = scipy.io.loadmat(path, variable_names=["mapping"])
    except Exception as error:  # scipy raises almost anything on damaged files.
        raise InputError(f"{path}: not a readable MATLAB v7 file; get it again") from error
    mapping = np.asarray(found.get("mapping", ())).ravel()
    if mapping.dtype.kind not in "fiu" or not np.array_equal(
        np.sort(mapping), np.arange(1, N_CHANNELS + 1)
    ):
        raise InputError(f"{path}: mapping must hold each of 1 to {N_CHANNELS} once; get it again")
    return mapping.astype(np.int64) - 1


@dataclass(frozen=True)
class _Trials:
    """``ALLMUA`` with its axes named, whichever way round they are stored."""

    data: h5py.Dataset
    reversed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        time, presentation, channel = self.data.shape[::-1] if self.reversed else self.data.shape
        return time, presentation, channel

    @property
    def chunks(self) -> tuple[int, int, int]:
        stored = self.data.chunks or (1, 1, 1)
        time, presentation, channel = stored[::-1] if self.reversed else stored
        return time, presentation, channel

    def read(self, time: slice, presentation: slice, channel: slice) -> NDArray[Any]:
        """Read a block as (time, presentation, channel)."""
        where = (time, presentation, channel)
        if self.reversed:
            return np.asarray(self.data[where[::-1]]).transpose()
        return np.asarray(self.data[where])


@dataclass
class _Windowed:
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
        """Add samples (n, channels) of test presentations to a day's pool (Chan et al. 1979)."""
        count = float(len(samples))
        mean = samples.mean(axis=0)
        square = ((samples - mean) ** 2).sum(axis=0)
        before = self.count[day, channels]
        total = before + count
        step = mean - self.pool_mean[day, channels]
        self.pool_mean[day, channels] += step * count / total
        self.pool_square[day, channels] += square + step**2 * before * count / total
        self.count[day, channels] = total


def _open(
    path: Path, file: h5py.File, n_train: int, n_test: int
) -> tuple[_Trials, TrialTable, NDArray[np.float64]]:
    times = h5.numbers(path, file, "tb", 2).ravel().astype(np.float64)
    data = h5.dataset(path, file, "ALLMUA")
    with h5.guarded(path, "ALLMUA"):
        shape, kind = data.shape, data.dtype.kind
    if kind != "f" or len(shape) != 3:
        raise InputError(f"{path}: ALLMUA must hold floats on 3 axes, not {data.dtype} {shape}")
    ends = (times.size, N_CHANNELS)
    if (shape[0], shape[2]) == ends:
        trials = _Trials(data, reversed=False)
    elif (shape[2], shape[0]) == ends:
        trials = _Trials(data, reversed=True)
    else:
        raise InputError(
            f"{path}: ALLMUA has shape {shape}, which fits {times.size} samples x presentations x "
            f"{N_CHANNELS} channels neither as it is nor transposed"
        )
    rows = h5.numbers(path, file, "ALLMAT", 2)
    rows = oriented(path, "ALLMAT", rows, (-1, shape[1]), "columns x presentations")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: tb must hold increasing times in ms; get the file again")
    return trials, TrialTable.parse(path, rows, n_train, n_test), times


def _window(path: Path, times: NDArray[np.float64], area: str) -> slice:
    after, until = WINDOWS[area]
    samples = np.flatnonzero((times > after) & (times <= until))
    if samples.size == 0:
        raise InputError(
            f"{path}: tb has no sample from {after} to {until} ms, the window of {area}"
        )
    return slice(int(samples[0]), int(samples[-1]) + 1)


def _blocks(trials: _Trials, samples: int) -> Iterator[tuple[slice, slice]]:
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


def _windowed(
    path: Path,
    trials: _Trials,
    table: TrialTable,
    times: NDArray[np.float64],
    monkey: Monkey,
    raw_of: NDArray[np.int64],
    progress: Progress | None,
) -> _Windowed:
    """Average every presentation over its channel's window, and pool the test presentations."""
    windows = {area: _window(path, times, area) for area in WINDOWS}
    first = min(window.start for window in windows.values())
    last = max(window.stop for window in windows.values())
    area_of = columns(monkey)["area"]
    _, n_presentations, _ = trials.shape
    days = (table.n_days, N_CHANNELS)
    mean = np.full((n_presentations, N_CHANNELS), np.nan)
    out = _Windowed(mean, np.zeros(days), np.zeros(days), np.zeros(days))
    blocks = list(_blocks(trials, last - first))
    for done, (rows, raw) in enumerate(blocks):
        with h5.guarded(path, "ALLMUA"):
            block = trials.read(slice(first, last), rows, raw)
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


def _pool(
    out: _Windowed,
    table: TrialTable,
    rows: slice,
    physical: NDArray[np.int64],
    samples: NDArray[np.float64],
) -> None:
    is_test, day = table.test[rows] >= 0, table.day[rows]
    for which in np.unique(day[is_test]):
        chosen = samples[:, is_test & (day == which)]
        out.pool(int(which), physical, chosen.reshape(-1, physical.size))


def _normalised(found: _Windowed, table: TrialTable) -> tuple[NDArray[np.float64], list[str]]:
    """Normalise each channel and day by its pool; NaN where the pool does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(found.pool_square / (found.count - 1))
    usable = (found.count > 1) & (sd > 0)
    sd[~usable] = np.nan
    notes = []
    without = np.flatnonzero(~(found.count > 0).any(axis=1))
    if without.size:
        lost = int(np.isin(table.day, without).sum())
        notes.append(f"{without.size} days have no test images: {lost} presentations are left out")
    for day in range(table.n_days):  # Day by day and in place: the array is large.
        rows = table.day == day
        found.mean[rows] = (found.mean[rows] - found.pool_mean[day]) / sd[day]
    return found.mean, notes


def _by_image(
    responses: NDArray[np.float64], image: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Average responses (presentations, channels) over the presentations of each image."""
    out = np.empty((count, responses.shape[1]))
    shown = np.flatnonzero(image >= 0)
    for start in range(0, responses.shape[1], 128):  # Some channels at a time: memory.
        some = slice(start, start + 128)
        values = responses[shown, some]
        valid = np.isfinite(values)
        total = np.zeros((count, values.shape[1]))
        number = np.zeros((count, values.shape[1]))
        np.add.at(total, image[shown], np.where(valid, values, 0))
        np.add.at(number, image[shown], valid)
        with np.errstate(invalid="ignore"):
            out[:, some] = total / number
    return out


def _by_repeat(
    responses: NDArray[np.float64], table: TrialTable, count: int
) -> NDArray[np.float64]:
    """Sort responses to test images into (repeats, images, channels), repeats in order of time."""
    shown = np.flatnonzero(table.test >= 0)
    repeat = table.repeat_of()[shown]
    n_repeats = int(repeat.max(initial=0)) + 1
    out = np.full((n_repeats, count, responses.shape[1]), np.nan)
    out[repeat, table.test[shown]] = responses[shown]
    return out


def _images(folder: Path | None, names: list[str], stimuli: Path) -> ImageSource:
    if folder is None:
        return NamedImages(names)
    return FileImages(folder, names, str(stimuli))
