"""Whether an HDF5 file can be read at all, found out in a process of its own.

The HDF5 library loops for ever on some damaged files, and on others it takes its process down. So
a file is first walked through by a child with a time limit; only then does this process open it.
Files whose layout has checksums throughout, as ``hdf5_writer`` writes them, need none of this: HDF5
notices damage there itself. (Texts of variable length lie in a heap without checksums.)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tuner.errors import InputError

LIMIT_S = 60.0
"""Seconds that a file may take, before its size is considered."""

ENABLED = True
"""Set to False in a process that is itself watched."""

_SMALL = 2**26
_HIDDEN = "#refs#"  # where MATLAB puts the contents of cells
_FOLLOWED = "/things_path"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_checked: set[tuple[str, int, int, int]] = set()


def check(*paths: Path) -> None:
    """Walk through files in a child process; once per state of each file.

    Raises
    ------
    InputError
        If the child hung or crashed.
    """
    if not ENABLED:
        return
    todo = {path: state for path in paths if (state := file_state(path)) not in _checked}
    todo = {path: state for path, state in todo.items() if not _has_checksums(path)}
    if len(todo) > 1 and _ended(list(todo)) == 0:
        _checked.update(todo.values())  # One child did for all.
        return
    for path, state in todo.items():
        code = _ended([path])
        if code is None:
            raise InputError(f"{path}: reading it does not end; the file is damaged, get it again")
        if code < 0:
            raise InputError(f"{path}: reading it crashes HDF5; the file is damaged, get it again")
        _checked.add(state)


def file_state(path: Path) -> tuple[str, int, int, int]:
    """What tells a file from itself before it was changed."""
    status = path.stat()
    return os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns


def _ended(paths: list[Path]) -> int | None:
    """Walk through files in a child; its return code, or None where it did not end in time."""
    # Ten megabytes a second is slower than any disk that is in order.
    limit = LIMIT_S + sum(min(path.stat().st_size, 2**33) for path in paths) / 1e7
    try:
        return subprocess.run(
            [sys.executable, "-P", __file__, *map(str, paths)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None
    except OSError:  # No process can be started here: go on without.
        return 0


def _has_checksums(path: Path) -> bool:
    """Whether all structures of a file have checksums: then it can be read without danger.

    So it is under a superblock of version 3, which implies the newer structures, where no dataset
    and no attribute is of variable length.
    """
    with path.open("rb") as start:
        if start.read(8) != _SIGNATURE or start.read(1) < b"\x03":
            return False
    import h5py

    from tuner.recordings.hdf5.locking import open_beside

    def unguarded(_: str, member: Any) -> bool | None:
        types = [member.attrs.get_id(name).dtype for name in member.attrs]
        if isinstance(member, h5py.Dataset):
            types.append(member.dtype)
        return True if any(kind.hasobject for kind in types) else None

    try:
        with open_beside(path) as file:
            return not (unguarded("", file) or file.visititems(unguarded))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError):
        return False


def walk(path: str) -> None:
    """Read a file as its readers do: all that is small, and of the large the layout."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:

        def visit(name: str, member: object) -> None:
            # Reached through references by the readers; there can be a hundred thousand.
            if not name.startswith(_HIDDEN):
                _look_at(h5py, file, member)

        for name in file:
            if name == _HIDDEN:
                continue
            member = file.get(name)
            _look_at(h5py, file, member)
            if isinstance(member, h5py.Group):
                member.visititems(visit)


def _look_at(h5py: Any, file: Any, member: Any) -> None:
    """Read one member; what raises here raises in the reader too, which says what is wrong."""
    with contextlib.suppress(Exception):
        for key in member.attrs:
            with contextlib.suppress(Exception):
                _ = member.attrs[key]
        if not isinstance(member, h5py.Dataset):
            return
        if member.chunks:
            member.id.chunk_iter(lambda chunk: None)
        if not member.size or member.size * member.dtype.itemsize > _SMALL:
            return
        values = member[()]
        if member.name.endswith(_FOLLOWED):
            for reference in values.ravel():
                with contextlib.suppress(Exception):
                    h5py.Dataset(h5py.h5r.dereference(reference, file.id))[()]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        with contextlib.suppress(Exception):
            walk(argument)
