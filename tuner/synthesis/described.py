"""Descriptions beside images, read as what they are: files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuner.errors import InputError

MAX_BYTES = 64 * 2**20
"""Of a description: far beyond thousands of units with dozens of images each."""


def read_description(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path
        The file.
    remedy
        What to do where it cannot be read, for the message.

    Raises
    ------
    InputError
        If it is missing, no file, larger than :data:`MAX_BYTES`, nested too deeply, or no JSON object.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is not a file; {remedy}")
        with path.open("rb") as file:
            payload = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(payload) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES // 2**20} MiB; {remedy}")
    try:
        content = json.loads(payload)
    except RecursionError as error:
        raise InputError(f"{path}: damaged, it is nested too deeply; {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path}: damaged, no JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged, it holds no JSON object; {remedy}")
    return content


def whole(name: str, value: Any, most: int, least: int = 0) -> int:
    """Return a value that must be a whole number within limits.

    Raises
    ------
    ValueError
        If it is not, by its name.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} = {_short(value)}: must be a whole number from {least} to {most}")
    return value


def table(name: str, value: Any) -> dict[str, Any]:
    """Return a value that must be a JSON object.

    Raises
    ------
    ValueError
        If it is not, by its name.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {'missing' if value is None else 'no table'}")
    return value


def rows(name: str, value: Any) -> list[dict[str, Any]]:
    """Return a value that must be a list of JSON objects, not an empty one.

    Raises
    ------
    ValueError
        If it is not, by its name.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name}: missing or empty")
    return [table(f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def text(name: str, value: Any) -> str:
    """Return a value that must be text.

    Raises
    ------
    ValueError
        If it is not, by its name.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is {'missing' if value is None else 'no text'}")
    return value


def _short(value: Any) -> str:
    return str(value)[:40] if isinstance(value, int | float | str) else type(value).__name__
