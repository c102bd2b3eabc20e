"""Opening a file that the user, in a notebook or in another process, has open too, or opens next."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import h5py


def open_beside(path: Path) -> h5py.File:
    """Open a file for reading so that the user may open it too, before or after.

    HDF5 opens a file again in one process only with the locking that it was opened with. So it is opened with the
    locking that this process, a notebook perhaps, holds it open with; else as ``h5py.File`` opens it unless told otherwise.
    Where that lock is not to be had, because another process writes the file or the file system refuses locks, it is
    opened without: readers change nothing, and damage is noticed.

    Raises
    ------
    OSError
        As ``h5py.File`` does.
    """
    held = _held_here(path)
    if held:
        return h5py.File(path, "r", locking=held[0][1])
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


def written_here(path: Path) -> bool:
    """Whether this process holds a file open for writing."""
    return any(writing for writing, _ in _held_here(path))


def _held_here(path: Path) -> list[tuple[bool, bool | str]]:
    """How this process holds a file open already: whether for writing, and its locking as ``h5py.File`` takes it."""
    status = path.stat()
    held: list[tuple[bool, bool | str]] = []
    for other in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE):
        # A file in memory has a name that is no path; another thread may close one meanwhile.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if os.path.samestat(status, Path(os.fsdecode(other.name)).stat()):
                locks, lenient = other.get_access_plist().get_file_locking()
                writing = bool(other.get_intent() & h5py.h5f.ACC_RDWR)
                held.append((writing, "best-effort" if lenient else bool(locks)))
    return held
