"""Reading HDF5 files that may be damaged, foreign or not what they claim to be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import probe
from tuner.recordings.hdf5.errors import guarded as guarded
from tuner.recordings.hdf5.integrity import check_apart, check_reached
from tuner.recordings.hdf5.integrity import check_stored as check_stored
from tuner.recordings.hdf5.locking import open_beside, written_here


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        If it is missing, not a file, not readable, not HDF5, or open for writing in this process.
    """
    file = open_handle(path)
    try:
        yield file
    finally:
        # A damaged file may not even close; all was read.
        with contextlib.suppress(OSError, RuntimeError):
            file.close()


def open_handle(path: Path) -> h5py.File:
    """As ``open_hdf5``, without closing it."""
    if not path.exists():
        raise InputError(f"{path}: no such file; check data.path")
    if not path.is_file():
        raise InputError(f"{path}: is not a file; data.path must name the file itself")
    try:
        with path.open("rb") as raw:
            start = raw.read(128)
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{path}: cannot be read ({reason}); check its permissions") from error
    if start.startswith(b"MATLAB 5.0"):
        raise InputError(f"{path}: saved in MATLAB's older format; save it with the -v7.3 flag")
    if start.startswith((b"version https://git-lfs", b"/annex/")):
        raise InputError(f"{path}: only a pointer to the file; download its content")
    if written_here(path):
        raise InputError(
            f"{path}: this process holds it open for writing, so what lies on disk may be half written; close it "
            "there first (file.close())"
        )
    probe.check(path)
    with guarded(path, "the file"):
        file = open_beside(path)
        _check_end(path, file)
        check_apart(path, file)
        return file


def _check_end(path: Path, file: h5py.File) -> None:
    """Refuse a file with something behind its end: bytes were inserted, and values moved.

    HDF5 itself notices only what is missing. Zeros that fill up a block of 512 are padding.
    """
    with path.open("rb") as raw:
        raw.seek(file.userblock_size)
        start = raw.read(48)
        at, offsets = (40, start[13]) if start[8] < 2 else (28, start[9])
        if offsets != 8:
            return
        raw.seek(int.from_bytes(start[at : at + 8], "little"))
        surplus = raw.read(4096)
    if surplus.strip(b"\0") or (surplus and path.stat().st_size % 512):
        raise InputError(
            f"{path}: goes on behind its end; it is damaged, or was not closed when it was written"
        )


def has(group: h5py.Group, name: str) -> bool:
    """Whether a group has a member that can be reached; False also where it is damaged."""
    try:
        return name in group
    except (OSError, RuntimeError, ValueError, TypeError, LookupError):
        return False


def names(group: h5py.Group) -> list[str]:
    """Names of a group's members as text; what is not UTF-8, as damage leaves it, is written in escapes."""
    return [
        name if isinstance(name, str) else name.decode(errors="backslashreplace") for name in group
    ]


def dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """Find a dataset of a file, refusing those whose data lie in another file.

    Raises
    ------
    InputError
        If it is missing, a group, or kept in another file.
    """
    with guarded(path, name):
        if name not in group:
            there = ", ".join(_top(group)) or "nothing"
            raise InputError(f"{path}: has no {name}; it holds {there}")
        link = group.get(name, getlink=True)
        found = group[name]
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{path}: {name} is a group where a dataset is expected")
        if isinstance(link, h5py.ExternalLink) or found.external or found.is_virtual:
            raise InputError(
                f"{path}: {name} is kept in another file; copy it into this one (h5repack)"
            )
        _ = found.shape, found.dtype
        _check_type(path, found, name)
        return found


_NUMBERS = tuple(
    getattr(h5py.h5t, f"{name}{order}")
    for name in (
        *(f"IEEE_F{bits}" for bits in (16, 32, 64)),
        *(f"STD_{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)),
    )
    for order in ("LE", "BE")
)


def _check_type(path: Path, data: h5py.Dataset, name: str) -> None:
    """Refuse numbers of a type that no program writes; to be called under ``guarded``.

    A single flipped bit in the description of a type, its exponent's bias say, makes another
    valid type of it, and other numbers of the same bytes.
    """
    stored = data.id.get_type()
    number = isinstance(stored, (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID))
    if number and not any(stored.equal(known) for known in _NUMBERS):
        raise InputError(
            f"{path}: {name} is of no number type that programs write (8 to 64 bits, IEEE); the "
            "file is damaged, or store it as float64"
        )


def read(path: Path, data: h5py.Dataset, name: str) -> NDArray[Any]:
    """Read a whole dataset into memory.

    Raises
    ------
    InputError
        If it is damaged, incomplete or larger than this machine's memory.
    """
    with guarded(path, name):
        check_memory(path, name, data.size or 0, data.dtype.itemsize)
        _check_type(path, data, name)
        check_stored(path, data, name)
        values = np.asarray(data[()])
        check_reached(data, values)
        return values


def check_memory(path: Path, name: str, items: int, itemsize: int) -> None:
    """Refuse an array that this machine's memory cannot hold."""
    needed = int(items) * int(itemsize)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"{path}: {name} needs {needed / 2**30:.1f} GiB of memory and this machine has "
            f"{there / 2**30:.1f}; the file is damaged, or needs a larger machine"
        )


def numbers(path: Path, group: h5py.Group, name: str, ndim: int) -> NDArray[Any]:
    """Read a dataset of real numbers with a known number of axes.

    Raises
    ------
    InputError
        If it is missing, damaged, not numeric or has other axes.
    """
    data = dataset(path, group, name)
    with guarded(path, name):
        kind, axes, shape = data.dtype.kind, data.ndim, data.shape
    if kind not in "fiu":
        raise InputError(f"{path}: {name} must hold real numbers, not {data.dtype}")
    if axes != ndim:
        raise InputError(f"{path}: {name} must have {ndim} axes, not shape {shape}")
    return read(path, data, name)


def float32(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Convert to float32, refusing finite numbers that it cannot hold."""
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    if np.any(np.isinf(converted) & np.isfinite(values)):
        raise InputError(
            f"{path}: {name} holds numbers beyond 3.4e38; rescale them, or mark them as NaN"
        )
    return converted


def strings(path: Path, group: h5py.Group, name: str) -> NDArray[np.str_]:
    """Read a one-dimensional dataset of UTF-8 strings.

    Raises
    ------
    InputError
        If it is missing, damaged or holds anything else.
    """
    data = dataset(path, group, name)
    with guarded(path, name):
        if data.ndim != 1:
            raise InputError(f"{path}: {name} must have one axis, not shape {data.shape}")
        values = read(path, data, name)
    return text(path, name, values)


def text(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.str_]:
    """Decode an array of byte strings (or of text) as UTF-8."""
    if values.dtype.kind not in "SOU":
        raise InputError(f"{path}: {name} must hold UTF-8 strings, not {values.dtype}")
    try:
        decoded = [
            v.decode("utf-8") if isinstance(v, bytes) else v for v in values.ravel().tolist()
        ]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {name} holds text that is not UTF-8; write it anew") from error
    if not all(isinstance(value, str) for value in decoded):
        raise InputError(f"{path}: {name} must hold UTF-8 strings only")
    return np.array(decoded, dtype=np.str_).reshape(values.shape)


def _top(group: h5py.Group) -> list[str]:
    shown: list[str] = []
    for name in names(group)[:8]:
        member = group.get(name)
        inside = names(member)[:6] if isinstance(member, h5py.Group) else []
        shown += [f"{name}/{child}" for child in inside] or [name]
    return shown
