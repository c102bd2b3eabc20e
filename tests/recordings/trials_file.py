"""Raw TVSD trials as the authors' files have them, and what becomes of them, computed plainly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from tests.recordings import matlab_files as matlab
from tests.recordings.cases import AREAS, Case, things_names
from tests.recordings.pictures import write_pictures
from tuner.recordings import Recording
from tuner.recordings.tvsd.trials import read_trials

WINDOWS = {"V1": (25, 125), "V4": (50, 150), "IT": (75, 175)}


def mapping() -> NDArray[np.int64]:
    """Build the channel map from its rule: banks of 32 within groups of 128; from 1."""
    banks = [(1, 2, 3, 0)] * 4 + [(2, 1, 0, 3)] * 4
    raw = [128 * g + 32 * bank + i for g in range(8) for bank in banks[g] for i in range(32)]
    return np.array(raw) + 1


@dataclass
class RawTrials:
    """A small recording of raw trials.

    Parameters
    ----------
    path
        ``THINGS_MUA_trials.mat``; the stimuli and the map lie in ``_logs`` beside it.
    mua
        (time, presentation, raw channel).
    table
        (6, presentation): trial, train, test, repetition, position, day.
    times
        ms.
    """

    path: Path
    mua: NDArray[np.float64]
    table: NDArray[np.float64]
    times: NDArray[np.float64]
    n_train: int
    n_test: int

    def expected(
        self, monkey: str, raw_of: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute train (images, 1024) and test (repeats, images, 1024), channel by channel."""
        _, is_train, is_test, _, _, day = self.table
        train = np.full((self.n_train, 1024), np.nan)
        repeats = int((is_test == 1).sum())
        test = np.full((repeats, self.n_test, 1024), np.nan)
        for channel in range(1024):
            raw = self.mua[:, :, raw_of[channel]]
            after, until = WINDOWS[AREAS[monkey][channel]]
            inside = raw[(self.times > after) & (self.times <= until)]
            z = np.empty(raw.shape[1])
            for which in np.unique(day):
                pool = inside[:, (day == which) & (is_test > 0)]
                with np.errstate(invalid="ignore", divide="ignore"):
                    z[day == which] = (
                        inside[:, day == which].mean(axis=0) - pool.mean()
                    ) / pool.std(ddof=1)
            for image in range(self.n_train):
                train[image, channel] = z[is_train == image + 1].mean()
            for image in range(self.n_test):
                test[:, image, channel] = z[is_test == image + 1]
        return train, test


def write_trials(
    folder: Path,
    *,
    n_train: int = 12,
    n_test: int = 3,
    repeats: int = 4,
    raw_dead: NDArray[np.int64] | None = None,
    transposed: bool = False,
    spacing_ms: float = 5.0,
    seed: int = 0,
) -> RawTrials:
    """Write a small recording of raw trials over two days.

    Parameters
    ----------
    folder
        Where to.
    n_train, n_test, repeats
        Its size.
    raw_dead
        Raw channels that record nothing but zeros.
    transposed
        Store ``ALLMUA`` with its axes in reverse.
    spacing_ms
        Between samples.
    seed
        Of all that is random.
    """
    rng = np.random.default_rng(seed)
    (folder / "_logs").mkdir(parents=True, exist_ok=True)
    matlab.stimuli(folder / "_logs" / "things_imgs.mat", *things_names(n_train, n_test))
    scipy.io.savemat(
        folder / "_logs" / "1024chns_mapping_20220105.mat", {"mapping": mapping()[:, None]}
    )
    shown = [(i + 1, 0) for i in range(n_train)]
    shown += [(0, i + 1) for i in range(n_test)] * repeats
    order = rng.permutation(len(shown))
    n = len(shown)
    table = np.zeros((6, n))
    table[0] = np.arange(n) // 4 + 1
    table[1:3] = np.array([shown[i] for i in order]).T
    table[3] = rng.integers(1, 31, n)
    table[4] = np.arange(n) % 4 + 1
    table[5] = np.where(np.arange(n) < n // 2, 20220105, 20220107)
    times = np.arange(-100.0, 200.0, spacing_ms)
    scale, level = rng.uniform(1, 9, 1024), rng.uniform(-50, 50, 1024)
    mua = level + scale * rng.standard_normal((times.size, n, 1024))
    mua += (table[5] == 20220107)[None, :, None] * 30 * rng.standard_normal(1024)
    if raw_dead is not None:
        mua[:, :, raw_dead] = 0
    path = folder / "THINGS_MUA_trials.mat"
    with matlab.matlab_file(path) as file:
        stored = mua.transpose() if transposed else mua
        file.create_dataset(
            "ALLMUA",
            data=stored,
            chunks=tuple(min(n, c) for n, c in zip(stored.shape, (7, 11, 60), strict=True)),
        )
        matlab.array(file, "ALLMAT", table.T if not transposed else table)
        matlab.array(file, "tb", times[None])
    return RawTrials(path, mua, table, times, n_train, n_test)


class TrialsCase(Case):
    """Raw trials as a case of the soak; what is right is how they are read undamaged."""

    def load(self, **changes: Any) -> Recording:
        """Read the trials."""
        return read_trials(self.path, images=self.images, **self.options)


def trials_case(folder: Path) -> TrialsCase:
    """Raw trials of both kinds of images over two days, with the images."""
    n_train, n_test = 12, 3
    raw = write_trials(folder, n_train=n_train, n_test=n_test, repeats=2, spacing_ms=25)
    train_names, test_names = things_names(n_train, n_test)
    train_pixels = write_pictures(folder / "images", train_names)
    test_pixels = write_pictures(folder / "images", test_names, first=500)
    sound = read_trials(raw.path, monkey="F")
    return TrialsCase(
        "tvsd-trials",
        raw.path,
        folder / "images",
        sound.units,
        sound.train_responses,
        sound.test_responses,
        train_pixels,
        test_pixels,
        options={"monkey": "F"},
    )


def write_sparse(folder: Path, gigabytes: float) -> Path:
    """Write a file of raw trials that is large and mostly a hole; one sample is not zero.

    Its size on disk is a few megabytes. Storage is allocated early and never filled, so that the
    file is as large as it says and HDF5 has to read all of it.
    """
    times = np.arange(-100.0, 200.0)
    n = int(gigabytes * 1e9 / (times.size * 1024 * 8))
    n_test, repeats = 10, 4
    n_train = n - n_test * repeats
    (folder / "_logs").mkdir(parents=True)
    matlab.stimuli(folder / "_logs" / "things_imgs.mat", *things_names(n_train, n_test))
    scipy.io.savemat(folder / "_logs" / "1024chns_mapping_20220105.mat", {"mapping": mapping()})
    table = np.zeros((6, n))
    table[1, :n_train] = np.arange(n_train) + 1
    table[2, n_train:] = np.tile(np.arange(n_test) + 1, repeats)
    path = folder / "THINGS_MUA_trials.mat"
    with matlab.matlab_file(path) as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((times.size, n, 1024))
        made = h5py.h5d.create(file.id, b"ALLMUA", h5py.h5t.IEEE_F64LE, space, how)
        data: Any = h5py.Dataset(made)
        data[210] = np.random.default_rng(0).standard_normal((n, 1024))
        matlab.array(file, "ALLMAT", table.T)
        matlab.array(file, "tb", times[None])
    return path
