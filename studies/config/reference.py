"""The keys of ``tuner.toml`` as tables, made from the models that check them."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from studies.config.errors import shown
from studies.config.keys import (
    BackboneConfig,
    ClusterConfig,
    DataConfig,
    SearchConfig,
    StorageConfig,
    TrainingConfig,
)
from studies.config.ranges import (
    LARGEST,
    SPACES,
    FloatRange,
    Hyperparameter,
    IntRange,
    Listed,
)

TABLES: dict[str, type[BaseModel]] = {
    "[data]": DataConfig,
    "[[backbone]]": BackboneConfig,
    "[training]": TrainingConfig,
    "[search]": SearchConfig,
    "[storage]": StorageConfig,
    "[cluster]": ClusterConfig,
}
SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
UNREACHABLE = 10**6
"""Bounds from here on only keep out nonsense; a reader need not know them."""


@dataclass(frozen=True)
class KeyReference:
    """One key of ``tuner.toml``.

    Attributes
    ----------
    table
        The table it stands in, as written: ``[data]``.
    key
        Name of the key.
    kind
        What its value may be, in words.
    default
        What holds where it is not written, as TOML; empty where there is none.
    description
        What it does.
    """

    table: str
    key: str
    kind: str
    default: str
    description: str


def reference_rows() -> list[KeyReference]:
    """List every key of ``tuner.toml``, in the order of the file.

    Returns
    -------
    list of KeyReference
        Made from the models, so that it cannot differ from what is checked.
    """
    return [*_schema_rows(), *_space_rows()]


def render_reference() -> str:
    """Write the reference as Markdown, one table a section of the file."""
    rows = reference_rows()
    lines: list[str] = []
    for table in dict.fromkeys(row.table for row in rows):
        lines += [
            f"## `{table}`",
            "",
            "| key | value | default | what it does |",
            "|---|---|---|---|",
        ]
        for row in rows:
            if row.table == table:
                default = f"`{row.default}`" if row.default else ""
                cells = (f"`{row.key}`", row.kind, default, row.description)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _schema_rows() -> Iterator[KeyReference]:
    for table, model in TABLES.items():
        for key, field in model.model_fields.items():
            if (table, key) == ("[search]", "space"):
                continue  # one table per readout, below
            yield KeyReference(table, key, _kind(field), _default(field), field.description or "")


def _space_rows() -> Iterator[KeyReference]:
    for readout, parameters in SPACES.items():
        for name, parameter in parameters.items():
            yield KeyReference(
                f"[search.space.{readout}]",
                name,
                _setting_kind(parameter),
                _range(parameter.default),
                parameter.description,
            )


def _setting_kind(parameter: Hyperparameter) -> str:
    number = "integer" if parameter.integer else "number"
    kinds = f"{number}, list or range" if parameter.grid else f"{number} or range"
    bound = "above" if parameter.above else "at least"
    most = f", at most {parameter.maximum:g}" if parameter.maximum < LARGEST else ""
    return f"{kinds}, {bound} {parameter.minimum:g}{most}"


def _range(setting: FloatRange | IntRange | Listed) -> str:
    if isinstance(setting, tuple):
        return shown(list(setting))
    log = str(setting.log).lower()
    return f"{{ low = {setting.low:g}, high = {setting.high:g}, log = {log} }}"


def _kind(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "words" in extra:
        return str(extra["words"])
    limits = [
        f"{spoken} {getattr(constraint, sign)}"
        for constraint in field.metadata
        for sign, spoken in SIGNS.items()
        if abs(getattr(constraint, sign, None) or 0) < UNREACHABLE
        and getattr(constraint, sign, None) is not None
    ]
    return ", ".join([_words(field.annotation), *limits])


def _words(annotation: Any) -> str:
    """Name a type as a reader of the file would."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return " or ".join(shown(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return "list of texts"
    return WORDS[annotation]


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default is PydanticUndefined or default == "":
        return ""
    if isinstance(default, tuple):
        return shown(list(default))
    return shown(f"{default}" if isinstance(default, Path) else default)
