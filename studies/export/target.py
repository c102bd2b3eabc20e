"""Where an export goes: into the one file that ``-o`` names, or into a folder."""

from __future__ import annotations

from pathlib import Path

from tuner.errors import InputError

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
        If it names a file of another kind, or there is a folder of the file's name.
    """
    suffix = out.suffix.lower()
    if suffix not in FILES:
        return False
    if suffix not in kinds:
        valid = f"a file {' or '.join('NAME' + kind for kind in kinds)}, or " if kinds else ""
        raise InputError(f"-o {out}: this is not written as {suffix}; name {valid}a folder")
    if out.is_dir():
        raise InputError(f"-o {out}: is a folder; name a file that is none, or remove it")
    return True
