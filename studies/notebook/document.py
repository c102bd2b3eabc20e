"""Writing a config file from tables that were given in Python."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import InputError


def refuse_other(document: Mapping[str, Any], path: Path) -> None:
    """Refuse a config file that is there and says something else.

    Raises
    ------
    InputError
        Naming the first key that differs.
    """
    if not path.is_file():
        return
    try:
        before = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name another file") from None
    key = _difference(before, tomllib.loads(toml(document)))
    if key is not None:
        raise InputError(
            f"{path}: says something else than what is given here ({key}); name another file, or "
            "open this one without keyword arguments"
        )


def toml(document: Mapping[str, Any]) -> str:
    """Return tables of plain values as TOML.

    Examples
    --------
    >>> print(toml({"data": {"path": "a.h5"}, "backbone": [{"name": "vgg19", "layers": ["features.0"]}]}), end="")
    [data]
    path = "a.h5"
    <BLANKLINE>
    [[backbone]]
    name = "vgg19"
    layers = ["features.0"]
    """
    parts = []
    for name, content in document.items():
        tables = content if isinstance(content, Sequence) else [content]
        for table in tables:
            head = f"[[{name}]]" if isinstance(content, Sequence) else f"[{name}]"
            parts.append("\n".join([head, *(f"{_key(k)} = {_value(v)}" for k, v in table.items())]))
    return "\n\n".join(parts) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def _value(value: Any) -> str:
    if hasattr(value, "item"):
        value = value.item()  # a numpy scalar
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, str | Path):
        return json.dumps(str(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    raise InputError(f"{value!r}: is no value that a config file can hold")


def _difference(before: Any, now: Any, key: str = "") -> str | None:
    """Name the first key in which two documents differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*now, *before]):
            if name not in before or name not in now:
                return f"{key}{name}"
            found = _difference(before[name], now[name], f"{key}{name}.")
            if found is not None:
                return found
        return None
    return None if before == now else key.rstrip(".")
