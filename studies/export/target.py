"""Where an export goes: into the one file that ``-o`` names, or into a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tuner.errors import EnvironmentFailure, InputError

FILES = (".html", ".png", ".svg", ".csv", ".json", ".npz", ".safetensors", ".pdf")
"""Suffixes by which a path is taken for a file, whether or not an export can write one."""


def is_file(out: Path, *kinds: str) -> bool:
    """Whether an export goes into one file.

    Parameters
    ----------
    out
        What ``-o`` names.
    kinds
        Suffixes of the one file that this export can write; none where it always writes a folder.

    Raises
    ------
    InputError
        If it names a file of another kind, or there is a folder of the file's name, a file of the folder's name, or a file
        where a folder above it would be.
    EnvironmentFailure
        If nothing can be written there: better said before the work than after it.
    """
    suffix = out.suffix.lower()
    in_the_way = next((path for path in out.parents if path.exists() and not path.is_dir()), None)
    if in_the_way is not None:
        raise InputError(f"-o {out}: {in_the_way} is a file and no folder; name another place")
    _check_writable(out)
    if suffix not in FILES:
        if out.exists() and not out.is_dir():
            raise InputError(f"-o {out}: is a file; name another place, or remove it")
        return False
    if suffix not in kinds:
        valid = f"a file {' or '.join('NAME' + kind for kind in kinds)}, or " if kinds else ""
        raise InputError(f"-o {out}: this is not written as {suffix}; name {valid}a folder")
    if out.is_dir():
        raise InputError(f"-o {out}: is a folder; name a file that is none, or remove it")
    return True


def _check_writable(out: Path) -> None:
    """Refuse a place in which no file can be made, tried in the folder that is there already."""
    folder = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentFailure(
            f"-o {out}: nothing can be written to {folder} ({error.strerror}); change its permissions, "
            "or name another place"
        ) from error
