"""netCDF-4 files as the HDF5 files that they are: variables with named dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5

_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def dimensions(path: Path, data: h5py.Dataset) -> tuple[str, ...]:
    """Name the dimensions of a variable; an axis without one is ``""``."""
    with h5.guarded(path, str(data.name)):
        if data.is_scale and "DIMENSION_LIST" not in data.attrs:
            # A coordinate is its own dimension.
            return (str(data.name).lstrip("/"),)
        return tuple(str(axis[0].name).lstrip("/") if len(axis) else "" for axis in data.dims)


def variables(path: Path, file: h5py.File) -> dict[str, tuple[str, ...]]:
    """List the variables at the top of a file with their dimensions."""
    found = {}
    with h5.guarded(path, "the list of variables"):
        names = h5.names(file)
    for name in names:
        with h5.guarded(path, name):
            member = file.get(name)
            if not isinstance(member, h5py.Dataset):
                continue
            label = member.attrs.get("NAME", b"")
            label = label.encode() if isinstance(label, str) else bytes(label)
            if label.startswith(_NO_VARIABLE):
                continue
        found[name] = dimensions(path, member)
    return found


def column(path: Path, file: h5py.File, name: str) -> NDArray[Any]:
    """Read a variable along one dimension: texts (also as rows of characters) or numbers.

    Raises
    ------
    InputError
        If it is damaged, or neither.
    """
    data = h5.dataset(path, file, name)
    values = h5.read(path, data, name)
    if values.ndim == 2 and values.dtype == np.dtype("S1"):
        joined = [b"".join(row).rstrip(b"\0 ") for row in values]
        return h5.text(path, name, np.array(joined, dtype=object))
    if values.ndim != 1:
        raise InputError(f"{path}: {name} must have one dimension, not shape {values.shape}")
    if values.dtype.kind in "SOU":
        return h5.text(path, name, values)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} must hold texts or numbers, not {values.dtype}")
    return values
