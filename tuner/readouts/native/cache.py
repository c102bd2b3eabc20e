"""Where compiled steps are kept: a folder that nobody else can write, in files whose names say what they hold.

What is loaded runs with all that the user may do, so a folder or file of somebody else's is never used. A file that is not
what was written (cut short, emptied) is compiled anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_TRY = """
import ctypes, sys
loaded = ctypes.CDLL(sys.argv[1])
for name in sys.argv[2:]:
    getattr(loaded, name)
for name in ("full_packed", "factorized_packed"):
    function = getattr(loaded, name)
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64] * 3
    function(2, 3, 4)
"""
"""Load and call in a process of its own: a file cut short may kill whoever touches it."""

_TRY_SECONDS = 60


def private_folder() -> Path | None:
    """``$XDG_CACHE_HOME/cortex-tuner`` or ``~/.cache/cortex-tuner``, made if need be; None where it is not the user's."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "cortex-tuner"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or not _own(status):
            return None
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)
    except (OSError, RuntimeError):  # no such place, or no home at all
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def find(folder: Path, stem: str) -> Path | None:
    """The kept file of this name that is the user's and is what was written; all others of the name are deleted."""
    found = None
    for path in sorted(folder.glob(f"{stem}*.so")):
        if found is None and _as_written(path, stem):
            found = path
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    return found


def keep(made: Path, folder: Path, stem: str) -> Path:
    """Give a tried file its place, under a name that says what it holds."""
    made.chmod(0o600)
    return made.replace(folder / _name(stem, made))


def tried(made: Path, functions: Sequence[str]) -> str | None:
    """Load a library in a process of its own; returns what is wrong with it, or None."""
    command = [sys.executable, "-I", "-c", _TRY, str(made), *functions]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TRY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it ends by signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["it ends with an error"])[-1][-300:]


def _as_written(path: Path, stem: str) -> bool:
    try:
        status = path.lstat()
        safe = stat.S_ISREG(status.st_mode) and _own(status) and not status.st_mode & 0o022
        return safe and path.name == _name(stem, path)
    except OSError:
        return False


def _own(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _name(stem: str, path: Path) -> str:
    return f"{stem}-{hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}.so"
