"""The THINGS ventral stream spiking dataset: ``THINGS_normMUA.mat`` of either monkey.

Time-averaged, normalised multi-unit activity of 1,024 channels in physical order. As h5py shows
it: ``train_MUA`` (images, channels), one presentation each; ``test_MUA_reps`` (repeats, images,
channels); ``test_MUA`` (images, channels), their mean; ``reliab`` (pairs of repeats, channels);
``oracle`` and ``SNR_max`` (channels, 1); ``SNR`` and ``lats`` (days, channels). Nothing in the file
says which axis is which: the axis of 1,024 does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.matlab import oriented
from tuner.recordings.recording import Recording
from tuner.recordings.sources import FileImages
from tuner.recordings.tvsd.layout import (
    N_CHANNELS,
    Stimuli,
    check_monkey,
    columns,
    find_stimuli,
    live_channels,
)

_PER_CHANNEL = {
    "reliability": "reliab",
    "oracle": "oracle",
    "snr": "SNR",
    "snr_max": "SNR_max",
    "latency_ms": "lats",
}


def load(
    path: Path,
    images: Path | None = None,
    *,
    monkey: str | None = None,
    stimuli: Path | None = None,
) -> Recording:
    """Read ``THINGS_normMUA.mat``.

    Parameters
    ----------
    path
        The file.
    images
        The folder of the THINGS images, in which ``aardvark/aardvark_01b.jpg`` lies.
    monkey
        ``"N"`` or ``"F"``: the file does not say.
    stimuli
        ``things_imgs.mat``; by default it is looked for beside the recording and in ``_logs/``.

    Returns
    -------
    Recording
        Groups are the THINGS concepts. Columns: area, array and electrode (from 1), channel
        (physical, from 0), name, monkey, and means over days or pairs of repeats of reliability,
        oracle, snr, snr_max and latency_ms, as far as the file has them.

    Raises
    ------
    InputError
        If a file is missing or damaged, or its axes fit neither way.
    """
    animal = check_monkey(monkey)
    with h5.open_hdf5(path) as file:
        if h5.has(file, "ALLMUA"):
            raise InputError(
                f"{path}: holds raw trials; convert them once with tuner data convert, and use "
                'the result with format = "hdf5"'
            )
        shown = Stimuli(find_stimuli(path, stimuli))
        n_train, n_test = len(shown.train), len(shown.test)
        train = h5.numbers(path, file, "train_MUA", 2)
        train = oriented(path, "train_MUA", train, (n_train, N_CHANNELS), "images x channels")
        test, notes = _test(path, file, n_test)
        known, missing = _known(path, file)
    live, dropped = live_channels(animal, path, train)
    train_groups, test_groups = shown.groups()
    return Recording(
        label=f"TVSD monkey {animal}",
        source=str(path),
        simulated=False,
        units={name: values[live] for name, values in (columns(animal) | known).items()},
        train_images=FileImages(images, shown.train, str(shown.path)),
        train_responses=h5.float32(path, "train_MUA", train[:, live]),
        train_groups=train_groups,
        test_images=FileImages(images, shown.test, str(shown.path)),
        test_responses=h5.float32(path, "test_MUA_reps", test[:, :, live]),
        test_groups=test_groups,
        notes=(*dropped, *notes, *missing),
    )


def _test(path: Path, file: h5py.File, n_test: int) -> tuple[NDArray[Any], list[str]]:
    """Read the repeats of the test images, (repeats, images, channels), or their mean alone."""
    mean = None
    if h5.has(file, "test_MUA"):
        mean = h5.numbers(path, file, "test_MUA", 2)
        mean = oriented(path, "test_MUA", mean, (n_test, N_CHANNELS), "images x channels")
    if h5.has(file, "test_MUA_reps"):
        repeats = h5.numbers(path, file, "test_MUA_reps", 3)
        lengths = (-1, n_test, N_CHANNELS)
        repeats = oriented(path, "test_MUA_reps", repeats, lengths, "repeats x images x channels")
        return repeats, _compared(repeats, mean)
    if mean is None:
        raise InputError(f"{path}: has neither test_MUA_reps nor test_MUA; get the file again")
    return mean[None], ["no test_MUA_reps: without repeats there are no ceilings"]


def _compared(repeats: NDArray[Any], mean: NDArray[Any] | None) -> list[str]:
    """Compare the repeats with the mean that the file holds of them."""
    if mean is None:
        return []
    there = np.isfinite(repeats)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(there, repeats, 0).sum(axis=0) / there.sum(axis=0)
        wrong = np.abs(own - mean) > 1e-3 * (1 + np.abs(mean))
    channels = int(wrong.any(axis=0).sum())
    if not channels:
        return []
    return [f"test_MUA is not the mean of test_MUA_reps in {channels} channels; the latter is used"]


def _known(path: Path, file: h5py.File) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Read what the file says of each channel, averaged over days or pairs of repeats."""
    known: dict[str, NDArray[Any]] = {}
    missing = []
    for column, name in _PER_CHANNEL.items():
        if not h5.has(file, name):
            missing.append(f"no {name} in the file: units have no {column}")
            continue
        values = h5.numbers(path, file, name, 2)
        values = oriented(path, name, values, (-1, N_CHANNELS), "values x channels")
        there = np.isfinite(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            known[column] = np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)
    return known, missing
