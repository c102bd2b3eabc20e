"""The raw trials of TVSD, ``THINGS_MUA_trials.mat``: some 60 GB, read in bounded memory.

As h5py shows it, ``ALLMUA`` is (time, presentation, raw channel) at 1 kHz, ``ALLMAT`` (column,
presentation) and ``tb`` the time of each sample in ms. What is done to it is what the authors'
``norm_MUA.m`` does: channels are put into physical order, ``physical = raw[mapping - 1]``; each
presentation is averaged over its area's window; and each channel and day is normalised by the
mean and standard deviation over that day's test presentations and all samples of the window,
``z = (mean over window - mu) / sd``.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.progress import Progress
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.matlab import oriented
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import FileImages, NamedImages
from tuner.recordings.tvsd.layout import (
    N_CHANNELS,
    Stimuli,
    check_monkey,
    columns,
    find_beside,
    find_stimuli,
    live_channels,
)
from tuner.recordings.tvsd.table import TrialTable
from tuner.recordings.tvsd.windows import Trials, Windowed, windowed
from tuner.scores import pairwise_reliability


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
        responses = windowed(path, trials, table, times, animal, raw_of, progress)
    gaps = responses.notes()
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
        test_times=_times(table, len(shown.test)),
        notes=(*dropped, *gaps, *notes),
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


def _open(
    path: Path, file: h5py.File, n_train: int, n_test: int
) -> tuple[Trials, TrialTable, NDArray[np.float64]]:
    times = h5.numbers(path, file, "tb", 2).ravel().astype(np.float64)
    data = h5.dataset(path, file, "ALLMUA")
    with h5.guarded(path, "ALLMUA"):
        shape, kind = data.shape, data.dtype.kind
    if kind != "f" or len(shape) != 3:
        raise InputError(f"{path}: ALLMUA must hold floats on 3 axes, not {data.dtype} {shape}")
    ends = (times.size, N_CHANNELS)
    if (shape[0], shape[2]) == ends:
        trials = Trials(data, reversed=False)
    elif (shape[2], shape[0]) == ends:
        trials = Trials(data, reversed=True)
    else:
        raise InputError(
            f"{path}: ALLMUA has shape {shape}, which fits {times.size} samples x presentations x "
            f"{N_CHANNELS} channels neither as it is nor transposed"
        )
    h5.check_stored(path, data, "ALLMUA")
    rows = h5.numbers(path, file, "ALLMAT", 2)
    rows = oriented(path, "ALLMAT", rows, (-1, shape[1]), "columns x presentations")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: tb must hold increasing times in ms; get the file again")
    return trials, TrialTable.parse(path, rows, n_train, n_test), times


def _normalised(found: Windowed, table: TrialTable) -> tuple[NDArray[np.float64], list[str]]:
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


def _times(table: TrialTable, count: int) -> dict[str, NDArray[np.int64]]:
    """Day and place in the sequence of every test response, as `_by_repeat` sorts them; 0 where there is none."""
    shown = np.flatnonzero(table.test >= 0)
    repeat = table.repeat_of()[shown]
    out = {}
    for name, codes in (("day", table.day), ("position", table.position)):
        out[name] = np.zeros((int(repeat.max(initial=0)) + 1, count), dtype=np.int64)
        out[name][repeat, table.test[shown]] = codes[shown]
    return out


def _images(folder: Path | None, names: list[str], stimuli: Path) -> ImageSource:
    if folder is None:
        return NamedImages(names)
    return FileImages(folder, names, str(stimuli))
