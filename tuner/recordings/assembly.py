"""Brain-Score style assemblies: netCDF files of presentations x neuroids (x time bins).

One variable has the dimensions ``presentation`` and ``neuroid``, in any order, and maybe
``time_bin``. The others describe them: along ``presentation`` ``stimulus_id`` (or ``image_id``) and
maybe file names and what the image shows (an object or a scene: images of one are a group and stay on
one side of every cut); along ``neuroid`` ``region``, ``neuroid_id`` and anything else, which become unit
columns; along ``time_bin`` ``time_bin_start`` and ``time_bin_end`` in ms. The stimulus set is a csv
file that gives each stimulus its image file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import netcdf
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.presentations import averaged, repeated_are_test, repeats, sort_presentations
from tuner.recordings.recording import Recording
from tuner.recordings.sources import FileImages

_IDS = ("stimulus_id", "image_id", "hash_id")
GROUPS = ("object_name", "object_id", "object", "scene_name", "scene_id", "scene")
"""Columns of presentations, or of the stimulus set, whose equal values make a group of images."""

_FILES = (
    "filename",
    "image_file_name",
    "stimulus_path_within_store",
    "image_path_within_store",
    "image_path",
)


def load(
    path: Path,
    images: Path | None = None,
    *,
    test: Path | None = None,
    stimuli: Path | None = None,
    test_stimuli: Path | None = None,
    window_ms: tuple[float, float] | None = None,
) -> Recording:
    """Read an assembly, or two: one of training and one of test images.

    Parameters
    ----------
    path
        The assembly of the training images, or of all.
    images
        The images folder.
    test
        The assembly of the test images; its neuroids are matched by ``neuroid_id``. Without it, the
        images that were shown more than once are the test images, if others were shown once.
    stimuli, test_stimuli
        The csv files of the stimulus sets; by default the one of the training images serves both,
        and without any the assembly itself must have the file names.
    window_ms
        Which time bins are averaged: those within these times. Needed where there are several.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If a file is damaged or has another layout, or a stimulus has no image.
    """
    main = _read(path, stimuli, window_ms)
    if test is None:
        return _from_one(path, images, main)
    other = _read(test, test_stimuli or stimuli, window_ms)
    order = _matched(path, main, test, other)
    train_images, train = averaged(main.responses, main.image)
    test_images, tested = repeats(other.responses[:, order], other.image)
    groups = _numbered(main, train_images, other, test_images)
    return Recording(
        label=path.stem,
        source=str(path),
        simulated=False,
        units=main.units,
        train_images=FileImages(images, [main.files[int(i)] for i in train_images], str(path)),
        train_responses=h5.float32(path, "responses", train),
        train_groups=groups[0],
        test_images=FileImages(images, [other.files[int(i)] for i in test_images], str(test)),
        test_responses=h5.float32(test, "responses", tested),
        test_groups=groups[1],
    )


@dataclass(frozen=True)
class _Assembly:
    """What one file holds.

    Parameters
    ----------
    responses
        (presentations, neuroids).
    image
        Code of the image of each presentation.
    files
        Image file by code.
    units
        Columns of the neuroids.
    shows
        What each image shows, by code; empty where nothing says so.
    """

    responses: NDArray[np.float64]
    image: NDArray[np.int64]
    files: dict[int, str]
    units: dict[str, NDArray[Any]]
    shows: dict[int, str]


def _from_one(path: Path, images: Path | None, main: _Assembly) -> Recording:
    repeated = repeated_are_test(main.image)
    notes: tuple[str, ...] = ()
    if repeated.all() or not repeated.any():
        repeated = np.zeros_like(repeated)
        notes = ("there is no test set: give the assembly of the test images as well",)
    found = sort_presentations(str(path), main.responses, main.image, repeated)
    names = [main.files[int(i)] for i in found.train_images]
    test_names = [main.files[int(i)] for i in found.test_images]
    groups = _numbered(main, found.train_images, main, found.test_images)
    return Recording(
        label=path.stem,
        source=str(path),
        simulated=False,
        units=main.units,
        train_images=FileImages(images, names, str(path)),
        train_responses=h5.float32(path, "responses", found.train),
        train_groups=groups[0],
        test_images=None if found.test is None else FileImages(images, test_names, str(path)),
        test_responses=None if found.test is None else h5.float32(path, "responses", found.test),
        test_groups=None if found.test is None else groups[1],
        notes=notes,
    )


def _read(path: Path, stimuli: Path | None, window: tuple[float, float] | None) -> _Assembly:
    with h5.open_hdf5(path) as file:
        along = netcdf.variables(path, file)
        main = [v for v, dims in along.items() if {"presentation", "neuroid"} <= set(dims)]
        if len(main) != 1:
            raise InputError(
                f"{path}: has {len(main)} variables of presentation x neuroid where one is needed"
            )
        responses = _responses(path, file, main[0], along, window)
        about = {
            dim: {
                name: netcdf.column(path, file, name)
                for name, dims in along.items()
                if dims[:1] == (dim,) and name != dim and name not in main
            }
            for dim in ("presentation", "neuroid")
        }
    for dim, length in zip(("presentation", "neuroid"), responses.shape, strict=True):
        for name, values in about[dim].items():
            if len(values) != length:
                raise InputError(
                    f"{path}: {name} has {len(values)} entries but there are {length} {dim}s"
                )
    image, files, shows = _images(path, about["presentation"], stimuli)
    return _Assembly(responses, image, files, _units(path, about["neuroid"]), shows)


def _numbered(
    main: _Assembly, train: NDArray[np.int64], other: _Assembly, test: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Give each training and each test image the code of what it shows, in the same codes.

    None for both where the images are not known to show two things at least: nothing could be cut.
    """
    if len({main.shows.get(int(i)) for i in train} - {None}) < 2:
        return None, None
    named = [main.shows[int(i)] for i in train] + [other.shows.get(int(i), "") for i in test]
    codes = np.unique(np.array(named), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes[: len(train)], codes[len(train) :] if other.shows else None


def _responses(
    path: Path,
    file: h5py.File,
    name: str,
    along: dict[str, tuple[str, ...]],
    window: tuple[float, float] | None,
) -> NDArray[np.float64]:
    """Read responses as (presentations, neuroids), averaged over time bins."""
    dims = along[name]
    values = h5.numbers(path, file, name, len(dims)).astype(np.float64)
    surplus = [i for i, dim in enumerate(dims) if dim not in ("presentation", "neuroid")]
    axes = [dims.index("presentation"), dims.index("neuroid"), *surplus]
    values = values.transpose(axes)
    if not surplus:
        return values
    if len(surplus) > 1 or dims[surplus[0]] not in ("time_bin", ""):
        raise InputError(f"{path}: {name} has dimensions {dims}; only time_bin may come on top")
    if values.shape[2] == 1:
        return values[:, :, 0]
    if window is None:
        raise InputError(
            f"{path}: has {values.shape[2]} time bins; say with window_ms which are averaged"
        )
    edges = [h5.numbers(path, file, f"time_bin_{edge}", 1) for edge in ("start", "end")]
    inside = (edges[0] >= window[0]) & (edges[1] <= window[1])
    if inside.shape != values.shape[2:] or not inside.any():
        raise InputError(f"{path}: no time bin lies within {window[0]:g} to {window[1]:g} ms")
    return np.asarray(values[:, :, inside].mean(axis=2))


def _images(
    path: Path, about: dict[str, NDArray[Any]], stimuli: Path | None
) -> tuple[NDArray[np.int64], dict[int, str], dict[int, str]]:
    """Give each presentation the code of its image, and each code its file and what it shows."""
    name = next((name for name in _IDS if name in about), None)
    if name is None:
        raise InputError(f"{path}: presentations have no {' or '.join(_IDS)}")
    ids = about[name].astype(np.str_)
    codes = {stimulus: code for code, stimulus in enumerate(dict.fromkeys(ids.tolist()))}
    image = np.array([codes[stimulus] for stimulus in ids.tolist()], dtype=np.int64)
    group_of: dict[str, str] = {}
    kind = next((name for name in GROUPS if name in about), None)
    if kind is not None:
        shown = about[kind].astype(np.str_).tolist()
        group_of = dict(zip(reversed(ids.tolist()), reversed(shown), strict=True))
    if stimuli is not None:
        file_of, told = _stimulus_set(stimuli)
        group_of = group_of or told
        missing = [stimulus for stimulus in codes if stimulus not in file_of]
        if missing:
            raise InputError(
                f"{stimuli}: lacks {len(missing)} stimuli of {path.name}, such as {missing[0]}"
            )
    else:
        column = next((name for name in _FILES if name in about), None)
        if column is None:
            raise InputError(f"{path}: does not name its image files; give the stimulus set's csv")
        file_of = dict(zip(ids.tolist(), about[column].astype(np.str_).tolist(), strict=True))
    shows = {code: group_of[s] for s, code in codes.items() if s in group_of}
    return image, {code: file_of[s] for s, code in codes.items()}, shows


def _stimulus_set(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read a stimulus set: the image file of each stimulus, and what it shows where that is said."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            header = list(reader.fieldnames or ())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv file in UTF-8; save it anew") from error
    key = next((name for name in _IDS if name in header), None)
    value = next((name for name in _FILES if name in header), None)
    if key is None or value is None:
        raise InputError(
            f"{path}: needs a column {' or '.join(_IDS)} and a column {' or '.join(_FILES)}"
        )
    kind = next((name for name in GROUPS if name in header), None)
    shows = {} if kind is None else {row[key] or "": row[kind] or "" for row in rows}
    return {row[key] or "": row[value] or "" for row in rows}, shows


def _units(path: Path, about: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    if "region" not in about:
        raise InputError(f"{path}: neuroids have no region")
    return {"area": about["region"].astype(np.str_)} | {
        name: values for name, values in about.items() if name != "region"
    }


def _matched(path: Path, main: _Assembly, test: Path, other: _Assembly) -> NDArray[np.int64]:
    """Find each neuroid of the training assembly in the test assembly."""
    if "neuroid_id" not in main.units or "neuroid_id" not in other.units:
        raise InputError(f"{path}: neuroids of both assemblies need a neuroid_id")
    ours, theirs = (a.units["neuroid_id"].astype(np.str_).tolist() for a in (main, other))
    place = {neuroid: index for index, neuroid in enumerate(theirs)}
    if len(place) != len(theirs) or len(set(ours)) != len(ours):
        raise InputError(f"{path}: a neuroid_id occurs twice; they must tell neuroids apart")
    missing = [neuroid for neuroid in ours if neuroid not in place]
    if missing or len(theirs) != len(ours):
        raise InputError(
            f"{test}: its neuroids are not those of {path.name}"
            + (f" (it lacks {missing[0]})" if missing else "")
        )
    return np.array([place[neuroid] for neuroid in ours], dtype=np.int64)
