"""Image paths as recordings name them, resolved without ever leaving the images folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuner.errors import InputError

_SHOWN = 5


def resolve_images(
    folder: Path | None, names: Sequence[str], source: str
) -> tuple[list[str], list[Path]]:
    """Resolve the image paths of a recording inside its images folder.

    Parameters
    ----------
    folder
        The images folder (``data.images``).
    names
        Paths relative to it; backslashes count as slashes.
    source
        The recording, for error messages.

    Returns
    -------
    relative, files
        The cleaned relative paths, with slashes, and the files, all of which exist.

    Raises
    ------
    InputError
        If no folder is given, a path leaves it (absolute, ``..``, or by a link), or files are
        missing, which are then counted and the first of them listed.
    """
    if folder is None:
        raise InputError(f"{source} names image files: set data.images to the folder they are in")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set data.images to the images' folder")
    # Strings and not Path objects: this runs for tens of thousands of images.
    root = os.path.realpath(folder)
    relative = [clean(name, source) for name in names]
    real_folders: dict[str, str] = {}
    files, missing = [], []
    for name in relative:
        parent, _, last = name.rpartition("/")
        if parent not in real_folders:
            real_folders[parent] = os.path.realpath(f"{root}/{parent}")
        path = f"{real_folders[parent]}/{last}"
        if os.path.islink(path):  # noqa: PTH114
            path = os.path.realpath(path)
        if os.path.commonpath([root, path]) != root:
            raise InputError(
                f"{source}: image path {name!r} leads out of {folder} by a link; "
                "images must lie inside data.images"
            )
        if not os.path.isfile(path):  # noqa: PTH113
            missing.append(name)
        files.append(Path(path))
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(names)} images are missing in {folder}: "
            f"{shortened(missing)}; check data.images"
        )
    return relative, files


def clean(name: str, source: str) -> str:
    """Turn an image path as written in a recording into a relative one with slashes.

    Raises
    ------
    InputError
        If it is empty, absolute, holds ``..`` or a character no path can hold.
    """
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or "\0" in path:
        raise InputError(f"{source}: {name!r} is not an image path")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in parts:
        raise InputError(
            f"{source}: image path {name!r} leaves the images folder; "
            "paths must be relative to data.images and hold no '..'"
        )
    return "/".join(parts)


def shortened(names: Iterable[str]) -> str:
    """List the first few names and count the others."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
