"""The generic recording: one HDF5 file, read and written.

Layout (everything but ``train/`` and ``units/area`` is optional)::

    train/images      (n_train, H, W, 3) uint8, or train/image_paths (n_train,) UTF-8
    train/responses   (n_train, n_units) float, NaN = missing
    train/groups      (n_train,) integers or strings
    test/images       or test/image_paths
    test/responses    (n_repeats, n_test, n_units) float, NaN = missing repeat
    test/groups       (n_test,), in the same terms as train/groups
    test/times/<name> (n_repeats, n_test) whole numbers: the day of each response, its place in the order
    units/<column>    (n_units,) strings, numbers or booleans
    truth/...         the known answers of a simulation

Attributes of the file: ``label`` (text), ``simulated`` (boolean), ``notes`` (lines of text); of ``train/responses``:
``unit``, what responses are measured in (text).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.hdf5.images import Hdf5Images
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import FileImages

LONGEST = 60
"""Characters of what responses are measured in: it stands in captions."""


def load(path: Path, images: Path | None = None) -> Recording:
    """Read a generic recording; images stay in the file until they are wanted.

    Parameters
    ----------
    path
        The HDF5 file.
    images
        The folder that image paths are relative to.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If the file is not as described above, naming the dataset at fault.
    """
    with h5.open_hdf5(path) as file:
        train = h5.float32(path, "train/responses", h5.numbers(path, file, "train/responses", 2))
        test_images, test = None, None
        if h5.has(file, "test"):
            found = h5.numbers(path, file, "test/responses", 3)
            test = h5.float32(path, "test/responses", found)
            test_images = _images(path, file, "test", images)
        groups = _groups(path, file)
        truth = _truth(path, file)
        return Recording(
            label=_label(path, file),
            source=str(path),
            simulated=truth is not None or _flag(path, file, "simulated"),
            units=_units(path, file),
            train_images=_images(path, file, "train", images),
            train_responses=train,
            train_groups=groups[0],
            test_images=test_images,
            test_responses=test,
            notes=_notes(path, file),
            truth=truth,
            test_groups=groups[1],
            test_times=_times(path, file),
            measured_in=_measured_in(path, file),
        )


def _times(path: Path, file: h5py.File) -> dict[str, NDArray[np.int64]] | None:
    """Read the codes of when each test response was."""
    if not h5.has(file, "test/times"):
        return None
    with h5.guarded(path, "test/times"):
        names = sorted(file["test/times"])
    found = {}
    for name in names:
        values = h5.numbers(path, file, f"test/times/{name}", 2)
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            raise InputError(f"{path}: test/times/{name} must hold whole numbers")
        found[name] = values.astype(np.int64)
    return found


def _images(path: Path, file: h5py.File, part: str, folder: Path | None) -> ImageSource:
    stored, named = f"{part}/images", f"{part}/image_paths"
    if h5.has(file, stored) and h5.has(file, named):
        raise InputError(f"{path}: has both {stored} and {named}; keep one of them")
    if h5.has(file, named):
        return FileImages(folder, h5.strings(path, file, named).tolist(), str(path))
    if not h5.has(file, stored):
        raise InputError(f"{path}: has neither {stored} nor {named}; add one of them")
    return Hdf5Images(path, stored)


def _units(path: Path, file: h5py.File) -> dict[str, NDArray[Any]]:
    with h5.guarded(path, "units"):
        names = h5.names(file["units"]) if h5.has(file, "units") else []
    if "area" not in names:
        raise InputError(f"{path}: has no units/area; write the area of each unit there")
    # The area first, then as stored: alphabetical order is HDF5's, not a person's.
    ordered = ["area", *(name for name in names if name != "area")]
    return {name: _column(path, file, f"units/{name}") for name in ordered}


def _column(path: Path, file: h5py.File, name: str) -> NDArray[Any]:
    data = h5.dataset(path, file, name)
    values = h5.read(path, data, name)
    if values.ndim != 1:
        raise InputError(f"{path}: {name} must have one value per unit, not shape {values.shape}")
    if values.dtype.kind in "SOU":
        return h5.text(path, name, values)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} must hold strings or numbers, not {values.dtype}")
    return values


def _groups(
    path: Path, file: h5py.File
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Read both parts' groups and number them alike, so that shared ones can be seen."""
    found: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        name = f"{part}/groups"
        if h5.has(file, name):
            values = _column(path, file, name)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputError(f"{path}: {name} has missing values; give every image a group")
            found[part] = values
    kinds = {values.dtype.kind in "US" for values in found.values()}
    if len(kinds) > 1:
        raise InputError(f"{path}: train/groups and test/groups must both be text or both numbers")
    if not found:
        return None, None
    joined = np.concatenate(list(found.values()))
    codes = np.unique(joined, return_inverse=True)[1].reshape(-1).astype(np.int64)
    n_train = len(found["train"]) if "train" in found else 0
    return (
        codes[:n_train] if "train" in found else None,
        codes[n_train:] if "test" in found else None,
    )


def _truth(path: Path, file: h5py.File) -> dict[str, NDArray[Any]] | None:
    if not h5.has(file, "truth"):
        return None
    names: list[str] = []
    with h5.guarded(path, "truth"):
        file["truth"].visititems(
            lambda name, member: names.append(name) if isinstance(member, h5py.Dataset) else None
        )
    truth = {}
    for name in sorted(names):
        values = h5.read(path, h5.dataset(path, file, f"truth/{name}"), f"truth/{name}")
        if values.dtype.kind in "SO":
            values = h5.text(path, f"truth/{name}", values)
        truth[name] = values
    return truth


def _attribute(path: Path, file: h5py.File, name: str) -> Any:
    with h5.guarded(path, f"attribute {name}"):
        return file.attrs.get(name)


def _label(path: Path, file: h5py.File) -> str:
    value = _attribute(path, file, "label")
    return _text(value) or path.stem


def _flag(path: Path, file: h5py.File, name: str) -> bool:
    value = _attribute(path, file, name)
    return isinstance(value, (bool, np.bool_, int, np.integer)) and bool(value)


def _notes(path: Path, file: h5py.File) -> tuple[str, ...]:
    value = _attribute(path, file, "notes")
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        return ()
    return tuple(line for line in map(_text, value.tolist()) if line)


def _measured_in(path: Path, file: h5py.File) -> str:
    """Read what responses are measured in, one short line."""
    with h5.guarded(path, "attribute unit of train/responses"):
        value = file["train/responses"].attrs.get("unit")
    return " ".join(_text(value).split())[:LONGEST]


def _text(value: Any) -> str:
    """Decode a text attribute; anything else is ``""``."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
