"""One line for a configuration that is wrong: the key, what is wrong, what would be valid."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
KINDS = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "must be an integer of ordinary size",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "is_instance_of": "must be a path in quotes",
    "finite_number": "must be a finite number",
}
TABLES = {"model_type", "model_attributes_type", "dict_type"}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Put a validation error in one line.

    Parameters
    ----------
    error
        The error that pydantic raised.
    model
        The model of the whole document, to list the keys that are valid.

    Returns
    -------
    str
        ``KEY: what is wrong and what would be valid``; the first problem, and how many more.
    """
    details = error.errors(include_url=False)
    first = details[0]
    key = key_of(first)
    more = len({key_of(other) for other in details} - {key})
    tail = f" (and {more} more {'key is' if more == 1 else 'keys are'} wrong)" if more else ""
    message = " ".join(_message(first, key, model).split())
    return f"{key}: {message}{tail}" if key else f"{message}{tail}"


def key_of(detail: ErrorDetails) -> str:
    """Write where a problem lies as the file's reader would: ``search.space.full.drop``."""
    parts = [*detail["loc"]]
    inner = str(detail.get("ctx", {}).get("key", ""))
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    if inner and text and not inner.startswith("["):
        return f"{text}.{inner}"
    return text + inner


def _message(detail: ErrorDetails, key: str, model: type[BaseModel]) -> str:
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    got = "" if key == "storage.url" else _got(detail["input"])
    if kind == "config":
        return str(context["problem"])
    if kind == "value_error":
        return f"{context['error']}{got}"
    if kind == "extra_forbidden":
        return _unknown_key(detail, model)
    if kind == "missing":
        return _missing(detail, model)
    if kind in LIMITS:
        word, name = LIMITS[kind]
        limit = context[name]
        return f"must be {word} {limit:g}{got}" if limit < 10**6 else f"must be {word} {limit}{got}"
    if kind == "literal_error":
        words = str(context["expected"]).replace("'", '"')
        return f"must be {words}{got}{_guess(detail, model)}"
    if kind in KINDS:
        return KINDS[kind] + got + _not_a_list(detail, key)
    if kind in TABLES:
        return f"must be a table of keys{got}"
    if key == "backbone":
        return "must be written as [[backbone]] tables, each with a name"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}{got}"


def _not_a_list(detail: ErrorDetails, key: str) -> str:
    """Say what to do where several values were written for one."""
    if not isinstance(detail["input"], list | tuple):
        return ""
    if key == "data.region":
        return (
            ", one unit column and not a list; for regions by two columns give the recording a column "
            "that joins them, such as units/area_array"
        )
    return ", a single one and not a list"


def _got(value: object) -> str:
    """Repeat what was written, where that is short."""
    return "" if isinstance(value, list | tuple | dict) else f", not {shown(value)}"


def shown(value: object) -> str:
    """Write a value as TOML has it, cut where it is long."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii") + '"'
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_key(detail: ErrorDetails, model: type[BaseModel]) -> str:
    name = str(detail["loc"][-1])
    fields = list(_model_at(detail["loc"][:-1], model).model_fields)
    return f"unknown key; valid: {', '.join(fields)}{_did_you_mean(name, fields)}"


def _missing(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["loc"] == ("backbone",):
        return "missing; write at least one [[backbone]] table with a name"
    name = str(detail["loc"][-1])
    field = _model_at(detail["loc"][:-1], model).model_fields[name]
    return f"missing; {field.description}"


def _model_at(location: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel]:
    """Follow a location through nested models."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [annotation, *get_args(annotation)]
        model = next(a for a in inner if isinstance(a, type) and issubclass(a, BaseModel))
    return model


def _guess(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Suggest the word that was meant, where one is close."""
    field = _model_at(detail["loc"][:-1], model).model_fields[str(detail["loc"][-1])]
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    return _did_you_mean(str(detail["input"]), words)


def _did_you_mean(name: str, valid: Sequence[str]) -> str:
    close = get_close_matches(name, valid, n=1)
    return f"; did you mean {close[0]}?" if close else ""
