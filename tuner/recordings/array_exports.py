"""Per-array exports: ``THINGS_exportMUA_array1.mat`` to ``..._array16.mat`` in one folder.

Each file (MATLAB v7.3) holds the channels of one array that passed a selection: ``good_chns``
(n, 1), ``train_MUA`` (training images, n, 1) and ``test_MUA`` (test images, n), the mean over the
repeats. An array without such channels is written by MATLAB as an empty one.

The images are numbered from 1: ``train/THINGS_train/00001.bmp`` and ``val/test/00001.bmp`` in the
images folder (or ``train/00001.bmp``, ``test/00001.bmp``; of any type that can be decoded).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5 import probe
from tuner.recordings.hdf5.matlab import is_empty
from tuner.recordings.recording import Recording
from tuner.recordings.sources import FileImages
from tuner.recordings.tvsd.layout import Monkey, Stimuli, area_of, check_monkey

_FILE = re.compile(r"THINGS_exportMUA_array(\d+)\.mat")
_TRAIN_FOLDERS = ("train/THINGS_train", "train")
_TEST_FOLDERS = ("val/test", "test", "val")
_ARRAYS = 16
_DATASETS = ("good_chns", "train_MUA", "test_MUA")


def load(
    path: Path,
    images: Path | None = None,
    *,
    monkey: str | None = "N",
    stimuli: Path | None = None,
) -> Recording:
    """Read a folder of per-array exports.

    Parameters
    ----------
    path
        The folder, or one of the files in it.
    images
        The images folder, with the training and the test images in folders of their own.
    monkey
        Whose layout names the areas.
    stimuli
        ``things_imgs.mat``, where it is at hand: its concepts become the groups.

    Returns
    -------
    Recording
        Columns: area, array (from 1), good_channel (as the file has it) and name. There is one
        repeat, the mean, so that nothing that needs repeats can be computed.

    Raises
    ------
    InputError
        If no file is there, one is damaged, or two disagree on the number of images.
    """
    animal = check_monkey(monkey)
    folder, files = _files(path)
    probe.check(*files.values())
    arrays = {number: _read(file) for number, file in files.items()}
    full = {number: found for number, found in arrays.items() if found is not None}
    if not full:
        raise InputError(f"{folder}: every array in it is empty")
    _check_same_images(files, full)
    train = np.concatenate([found.train for found in full.values()], axis=1)
    test = np.concatenate([found.test for found in full.values()], axis=1)
    groups = _groups(stimuli, len(train), len(test))
    return Recording(
        label=f"per-array exports of {folder.name}",
        source=str(folder),
        simulated=False,
        units=_columns(animal, full),
        train_images=_numbered(images, _TRAIN_FOLDERS, len(train), folder),
        train_responses=train,
        train_groups=groups[0],
        test_images=_numbered(images, _TEST_FOLDERS, len(test), folder),
        test_responses=test[None],
        test_groups=groups[1],
        notes=_notes(arrays),
    )


class _Array:
    """What one file holds: (images, units) responses and the channels' numbers."""

    def __init__(
        self,
        channels: NDArray[np.int64],
        train: NDArray[np.float32],
        test: NDArray[np.float32],
    ) -> None:
        self.channels = channels
        self.train = train
        self.test = test


def _files(path: Path) -> tuple[Path, dict[int, Path]]:
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; check data.path")
    found = {}
    for file in sorted(folder.iterdir()):
        match = _FILE.fullmatch(file.name)
        if match and 1 <= int(match[1]) <= _ARRAYS:
            found[int(match[1])] = file
    if not found:
        raise InputError(f"{folder}: has no THINGS_exportMUA_array1.mat to _array16.mat")
    return folder, dict(sorted(found.items()))


def _read(path: Path) -> _Array | None:
    """Read one array; None where it is empty."""
    with h5.open_hdf5(path) as file:
        empty = [is_empty(path, h5.dataset(path, file, name), name) for name in _DATASETS]
        if all(empty):
            return None
        if any(empty):
            name = _DATASETS[empty.index(True)]
            raise InputError(f"{path}: {name} is empty and the others are not; export it anew")
        channels = _channels(path, file)
        train = _responses(path, file, "train_MUA", channels.size)
        test = _responses(path, file, "test_MUA", channels.size)
    silent = np.flatnonzero(np.isnan(train).all(axis=0))
    if silent.size:
        raise InputError(
            f"{path}: channel {channels[silent[0]]} has no response at all; export it anew"
        )
    return _Array(channels, train, test)


def _channels(path: Path, file: h5py.File) -> NDArray[np.int64]:
    values = h5.numbers(path, file, "good_chns", 2)
    if 1 not in values.shape:
        raise InputError(f"{path}: good_chns must be one list of channels, not {values.shape}")
    flat = values.ravel()
    if not (np.isfinite(flat).all() and (flat == np.floor(flat)).all() and (flat >= 1).all()):
        raise InputError(f"{path}: good_chns must hold channel numbers from 1 on; export it anew")
    if np.unique(flat).size != flat.size or flat.max() > 2**31:
        raise InputError(f"{path}: good_chns lists a channel twice or out of range; export it anew")
    return flat.astype(np.int64)


def _responses(path: Path, file: h5py.File, name: str, n_units: int) -> NDArray[np.float32]:
    """Read responses as (images, units), whichever way round and with whatever axes of one."""
    with h5.guarded(path, name):
        axes = len(h5.dataset(path, file, name).shape)
    values = h5.float32(path, name, h5.numbers(path, file, name, axes))
    long = [length for length in values.shape if length > 1]
    if values.size % n_units or len(long) > 2 or (n_units > 1 and n_units not in long):
        raise InputError(
            f"{path}: {name} has shape {values.shape}, which does not fit {n_units} channels "
            "either way round"
        )
    if len(long) < 2:
        return values.reshape(-1, n_units)
    squeezed = values.reshape(long)
    # As h5py shows MATLAB's (1, units, images); the other way round only where that cannot be.
    return squeezed if long[1] == n_units else np.ascontiguousarray(squeezed.T)


def _check_same_images(files: dict[int, Path], arrays: dict[int, _Array]) -> None:
    first = next(iter(arrays))
    expected = len(arrays[first].train), len(arrays[first].test)
    for number, found in arrays.items():
        there = len(found.train), len(found.test)
        if there != expected:
            raise InputError(
                f"{files[number]}: has {there[0]} training and {there[1]} test images, but "
                f"{files[first].name} has {expected[0]} and {expected[1]}"
            )


def _columns(monkey: Monkey, arrays: dict[int, _Array]) -> dict[str, NDArray[Any]]:
    number = np.concatenate([np.full(len(found.channels), n) for n, found in arrays.items()])
    channel = np.concatenate([found.channels for found in arrays.values()])
    return {
        "area": np.array([area_of(monkey, int(n)) for n in number]),
        "array": number,
        "good_channel": channel,
        "name": np.array([f"{n:02d}-{c:02d}" for n, c in zip(number, channel, strict=True)]),
    }


def _notes(arrays: dict[int, _Array | None]) -> tuple[str, ...]:
    notes = ["the files hold only the mean over repeats: there are no ceilings"]
    empty = [str(number) for number, found in arrays.items() if found is None]
    absent = [str(number) for number in range(1, _ARRAYS + 1) if number not in arrays]
    if empty:
        notes.append(f"array {', '.join(empty)} is empty")
    if absent:
        notes.append(f"array {', '.join(absent)} has no file")
    return tuple(notes)


def _numbered(
    images: Path | None, folders: tuple[str, ...], count: int, recording: Path
) -> FileImages:
    """Find images 00001, 00002, ... in the first of some folders that has the first of them."""
    for folder in folders:
        there = sorted((images / folder).glob("00001.*")) if images is not None else []
        if there:
            suffix = there[0].suffix
            names = [f"{folder}/{number:05d}{suffix}" for number in range(1, count + 1)]
            return FileImages(images, names, str(recording))
    if images is None or not images.is_dir():
        return FileImages(images, [], str(recording))  # Says what is wrong with the folder.
    raise InputError(f"{images}: has no image 00001 in {' or '.join(folders)}; check data.images")


def _groups(
    stimuli: Path | None, n_train: int, n_test: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    if stimuli is None:
        return None, None
    shown = Stimuli(stimuli)
    if (len(shown.train), len(shown.test)) != (n_train, n_test):
        raise InputError(
            f"{stimuli}: lists {len(shown.train)} training and {len(shown.test)} test images, "
            f"but the arrays have {n_train} and {n_test}"
        )
    return shown.groups()
