"""Where the electrodes of the THINGS ventral stream spiking dataset (TVSD) are.

Each monkey has 1,024 channels on 16 arrays of 64. Channels are counted here from 0 in physical
order: array a (from 1) has channels 64 (a - 1) to 64 a - 1. Sources: the data set's README and
Papale et al. (2025), Neuron, doi:10.1016/j.neuron.2024.12.003.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError, unknown
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.matlab import cell_strings
from tuner.recordings.paths import clean

Monkey = Literal["N", "F"]

N_CHANNELS = 1024
PER_ARRAY = 64

# In monkey F the arrays of IT come before those of V4.
AREA_OF_ARRAY: dict[Monkey, dict[str, range]] = {
    "N": {"V1": range(1, 9), "V4": range(9, 13), "IT": range(13, 17)},
    "F": {"V1": range(1, 9), "IT": range(9, 14), "V4": range(14, 17)},
}

DEAD_ARRAYS: dict[Monkey, tuple[int, ...]] = {"N": (6,), "F": ()}
"""Arrays that recorded nothing."""


def check_monkey(monkey: str | None) -> Monkey:
    """Check the name of a monkey.

    Raises
    ------
    InputError
        If it is neither ``"N"`` nor ``"F"``.
    """
    if monkey not in get_args(Monkey):
        raise unknown("monkey", monkey, get_args(Monkey), "the data set; set data.monkey")
    return "N" if monkey == "N" else "F"


def area_of(monkey: Monkey, array: int) -> str:
    """Name the area in which an array (counted from 1) lies."""
    return next(area for area, arrays in AREA_OF_ARRAY[monkey].items() if array in arrays)


def array_of_channels() -> NDArray[np.int64]:
    """Give the array of each channel in physical order, (1024,), counted from 1."""
    return np.arange(N_CHANNELS) // PER_ARRAY + 1


def live_channels(
    monkey: Monkey, path: Path, train: NDArray[Any]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Choose the channels that recorded something.

    Parameters
    ----------
    monkey
        Whose dead array is left out, whatever it holds.
    path
        The recording, for error messages.
    train
        Responses to the training images, (images, 1024), in physical order.

    Returns
    -------
    channels, notes
        In physical order, and what was left out.

    Raises
    ------
    InputError
        If there are none.
    """
    dead = np.isin(array_of_channels(), DEAD_ARRAYS[monkey])
    silent = np.isnan(train).all(axis=0) & ~dead
    notes = []
    if dead.any():
        arrays = ", ".join(map(str, DEAD_ARRAYS[monkey]))
        notes.append(
            f"dropped {dead.sum()} channels of array {arrays}, which is dead in monkey {monkey}"
        )
    if silent.any():
        first = int(np.flatnonzero(silent)[0])
        notes.append(f"dropped {silent.sum()} channels without any response (first: {first})")
    if not (~dead & ~silent).any():
        raise InputError(f"{path}: no channel has any response; get the file again")
    return np.flatnonzero(~dead & ~silent), tuple(notes)


def columns(monkey: Monkey) -> dict[str, NDArray[Any]]:
    """Describe all 1,024 channels: area, array, electrode on it, channel, name, monkey."""
    channel = np.arange(N_CHANNELS)
    array = array_of_channels()
    return {
        "area": np.array([area_of(monkey, int(number)) for number in array]),
        "array": array,
        "electrode": channel % PER_ARRAY + 1,
        "channel": channel,
        "name": np.array([f"{monkey}{number:04d}" for number in channel]),
        "monkey": np.full(N_CHANNELS, monkey),
    }


class Stimuli:
    """The images that ``things_imgs.mat`` lists.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If it is missing, damaged, empty, or names an image outside the images folder.
    """

    def __init__(self, path: Path) -> None:
        with h5.open_hdf5(path) as file:
            self.train = _paths(path, cell_strings(path, file, "train_imgs/things_path"))
            self.test = _paths(path, cell_strings(path, file, "test_imgs/things_path"))
        for part, names in (("train", self.train), ("test", self.test)):
            if not names:
                raise InputError(f"{path}: lists no {part} images")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise InputError(f"{path}: lists {part} image {twice} twice; get the file again")
        self.path = path

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each image the code of its THINGS concept (its folder), for train and test."""
        concepts = [name.rpartition("/")[0] for name in self.train + self.test]
        codes = np.unique(np.array(concepts), return_inverse=True)[1].reshape(-1).astype(np.int64)
        return codes[: len(self.train)], codes[len(self.train) :]


def find_stimuli(recording: Path, given: Path | None) -> Path:
    """Find ``things_imgs.mat``: as given, beside the recording, or in ``_logs/`` there."""
    return find_beside(recording, given, "things_imgs.mat", "data.stimuli")


def find_beside(recording: Path, given: Path | None, pattern: str, key: str) -> Path:
    """Find a file that belongs to a recording.

    Parameters
    ----------
    recording
        The recording, beside which or beside whose ``_logs/`` the file lies.
    given
        The file where a person has named it.
    pattern
        What its name looks like.
    key
        What to set where it is not found.

    Raises
    ------
    InputError
        If it is not there.
    """
    if given is not None:
        return given
    for folder in (recording.parent, recording.parent / "_logs"):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise InputError(
        f"{recording.parent}: has no {pattern}, nor has _logs/ in it; set {key} to that file"
    )


def _paths(path: Path, names: list[str]) -> list[str]:
    return [clean(name, str(path)) for name in names]
