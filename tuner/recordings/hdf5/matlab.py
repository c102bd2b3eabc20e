"""MATLAB v7.3 files as h5py shows them: transposed, with cells as references.

MATLAB stores arrays column by column and HDF5 row by row, so that the axes of every array appear
in reverse. A cell array is an array of references, a text an array of UTF-16 code units, and an
empty array its dimensions with the attribute ``MATLAB_empty``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import open as h5


def is_empty(path: Path, data: h5py.Dataset, name: str) -> bool:
    """Whether a dataset stands for an empty MATLAB array."""
    with h5.guarded(path, name):
        return bool(data.attrs.get("MATLAB_empty", 0)) or data.size == 0


def cell_strings(path: Path, file: h5py.File, name: str) -> list[str]:
    """Read a cell array of texts of shape n x 1 or 1 x n.

    Parameters
    ----------
    path
        The file, for error messages.
    file
        The open file.
    name
        The dataset of object references; plain UTF-8 strings are read as well.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        If it is missing or damaged, has more than one long axis or holds other things than texts.
    """
    data = h5.dataset(path, file, name)
    with h5.guarded(path, name):
        if is_empty(path, data, name):
            return []
        if max(data.shape, default=0) != data.size:
            raise InputError(f"{path}: {name} must be a list of texts, not shape {data.shape}")
    values = h5.read(path, data, name).ravel()
    if values.dtype.kind in "SU" or h5py.check_string_dtype(data.dtype) is not None:
        return [str(value) for value in h5.text(path, name, values)]
    if h5py.check_ref_dtype(data.dtype) is not h5py.Reference:
        raise InputError(f"{path}: {name} must hold texts, not {data.dtype}")
    with h5.guarded(path, name):
        return [_text(path, h5py.h5r.dereference(r, file.id), name) for r in values]


def _text(path: Path, found: Any, name: str) -> str:
    """Decode a MATLAB char array; called under ``guarded``.

    Through h5py's lower level, which takes a quarter of the time: there are tens of thousands.
    """
    if not isinstance(found, h5py.h5d.DatasetID):
        raise InputError(f"{path}: {name} holds something that is not a text")
    if h5py.h5a.exists(found, b"MATLAB_empty") and is_empty(path, h5py.Dataset(found), name):
        return ""
    if found.dtype != np.uint16:
        raise InputError(f"{path}: {name} holds something that is not a text")
    units = np.empty(found.shape, dtype="<u2")
    found.read(h5py.h5s.ALL, h5py.h5s.ALL, units)
    try:
        return units.tobytes().decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {name} holds a text that is not UTF-16") from error


def oriented(
    path: Path, name: str, values: NDArray[Any], lengths: tuple[int, ...], axes: str
) -> NDArray[Any]:
    """Turn an array so that its axes have the lengths known of them.

    Parameters
    ----------
    path, name
        The file and the dataset, as error messages name them.
    values
        As read; as h5py shows MATLAB's arrays, or with its axes in reverse.
    lengths
        What the axes should be; -1 where a length is not known.
    axes
        What the axes are, in words.

    Returns
    -------
    ndarray
        A view with the axes in the wanted order.

    Raises
    ------
    InputError
        If neither order of the axes fits.
    """
    for candidate in (values, values.transpose()):
        if fits(candidate.shape, lengths):
            return candidate
    wanted = " x ".join("any" if length < 0 else str(length) for length in lengths)
    raise InputError(
        f"{path}: {name} has shape {values.shape}, which fits {axes} ({wanted}) neither as it is "
        "nor transposed; check that it belongs to these stimuli"
    )


def fits(shape: tuple[int, ...], lengths: tuple[int, ...]) -> bool:
    """Whether a shape has the known lengths."""
    return len(shape) == len(lengths) and all(
        length in (-1, there) for there, length in zip(shape, lengths, strict=True)
    )
