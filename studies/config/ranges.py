"""What a hyperparameter may be: a number, or a range to search, and the ranges that are shipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from studies.config.errors import shown


class FloatRange(BaseModel):
    """A range of real numbers, ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    log: bool = True


class IntRange(BaseModel):
    """A range of integers, ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int
    high: int
    log: bool = True


LARGEST = 2**53
"""No hyperparameter is larger; beyond it integers and real numbers part."""

Setting: TypeAlias = float | int | FloatRange | IntRange
Space: TypeAlias = dict[str, Setting]


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of a readout: which values make sense and which are searched.

    Attributes
    ----------
    default
        The range that is searched where ``tuner.toml`` says nothing.
    minimum
        The least value that makes sense.
    above
        True where ``minimum`` itself does not.
    description
        What it does, for the reference.
    """

    default: FloatRange | IntRange
    minimum: float
    above: bool
    description: str

    @property
    def integer(self) -> bool:
        """Whether only whole numbers make sense."""
        return isinstance(self.default, IntRange)


def _penalty(low: float, high: float, description: str) -> Hyperparameter:
    return Hyperparameter(FloatRange(low=low, high=high), 0.0, False, description)


_LEARNING_RATE = Hyperparameter(
    FloatRange(low=1e-3, high=1e0), 0.0, True, "initial learning rate of Adam"
)
_DROP = Hyperparameter(
    IntRange(low=20, high=400),
    1,
    False,
    "steps after which the learning rate is multiplied by 0.85",
)

SPACES: Mapping[str, Mapping[str, Hyperparameter]] = MappingProxyType(
    {
        "full": {
            "sparsity": _penalty(1e-7, 1e-1, "weight of sum |w|"),
            "smoothness": _penalty(1e-7, 1e-1, "weight of sum (Laplacian of w)^2"),
            "group_sparsity": _penalty(
                1e-7, 1e-1, "weight of the sum over channels of the norm over space"
            ),
            "weight_decay": _penalty(1e-6, 1e-1, "weight of sum w^2"),
            "learning_rate": _LEARNING_RATE,
            "drop": _DROP,
        },
        "factorized": {
            "sparsity": _penalty(1e-8, 1e-1, "weight of sum |f|, f the feature weights"),
            "smoothness": _penalty(1e-8, 1e-1, "weight of sum (Laplacian of the unit-norm mask)^2"),
            "weight_decay": _penalty(1e-8, 1e-1, "weight of sum f^2, f the feature weights"),
            "learning_rate": _LEARNING_RATE,
            "drop": _DROP,
        },
    }
)


def default_space(readout: str) -> Space:
    """Return the ranges that are searched for a readout where nothing else is said."""
    return {name: parameter.default for name, parameter in SPACES[readout].items()}


def varies(space: Mapping[str, Setting]) -> bool:
    """Tell whether anything is left to search; if not, one trial is all a study needs."""
    return any(isinstance(setting, FloatRange | IntRange) for setting in space.values())


def plain_space(space: Mapping[str, Setting]) -> dict[str, object]:
    """Write a space as TOML has it: numbers, and tables of low, high, log."""
    return {
        name: setting.model_dump() if isinstance(setting, BaseModel) else setting
        for name, setting in space.items()
    }


def parse_spaces(document: object) -> dict[str, Space]:
    """Read the tables ``[search.space.READOUT]``.

    Parameters
    ----------
    document
        The value of ``search.space``: readout -> hyperparameter -> a number, or a table with
        ``low``, ``high``, ``log``.

    Returns
    -------
    dict
        The readouts that are to be tried, every hyperparameter of each; all readouts with their
        default ranges where nothing is written.

    Raises
    ------
    PydanticCustomError
        Of type ``config``, with the key and the problem in its context.
    """
    tables = _table(document, "")
    for readout in tables:
        if readout not in SPACES:
            raise problem(readout, f"unknown readout; valid: {', '.join(SPACES)}")
    if not tables:
        return {readout: default_space(readout) for readout in SPACES}
    return {readout: _parse_space(readout, table) for readout, table in tables.items()}


def problem(key: str, message: str) -> PydanticCustomError:
    """Build the error for a key below the one being validated."""
    return PydanticCustomError("config", "{problem}", {"key": key, "problem": message})


def _table(value: object, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise problem(key, f"must be a table, not {shown(value)}")
    return value


def _parse_space(readout: str, table: object) -> Space:
    written = _table(table, readout)
    known = SPACES[readout]
    for name in written:
        if name not in known:
            raise problem(f"{readout}.{name}", f"unknown hyperparameter; valid: {', '.join(known)}")
    space = default_space(readout)
    for name, value in written.items():
        space[name] = _parse_setting(f"{readout}.{name}", value, known[name])
    return space


def _parse_setting(key: str, value: object, parameter: Hyperparameter) -> Setting:
    if isinstance(value, dict):
        return _parse_range(key, value, parameter)
    return _parse_number(key, value, parameter, "or a range { low = ..., high = ..., log = true }")


def _parse_range(key: str, table: dict[str, object], parameter: Hyperparameter) -> Setting:
    default = parameter.default
    for name in table:
        if name not in ("low", "high", "log"):
            raise problem(f"{key}.{name}", "unknown key; valid: low, high, log")
    log = table.get("log", default.log)
    if not isinstance(log, bool):
        raise problem(f"{key}.log", f"must be true or false, not {shown(log)}")
    low = _parse_number(f"{key}.low", table.get("low", default.low), parameter)
    high = _parse_number(f"{key}.high", table.get("high", default.high), parameter)
    if log and low <= 0:
        raise problem(
            f"{key}.low", "a log range cannot start at 0; give a low above 0 or log = false"
        )
    if low >= high:
        written = (
            "" if {"low", "high"} <= table.keys() else " (what is not written has its default)"
        )
        raise problem(
            key,
            f"low {low:g} must be below high {high:g}{written}; "
            "to fix the value write the number alone",
        )
    if parameter.integer:
        return IntRange(low=int(low), high=int(high), log=log)
    return FloatRange(low=float(low), high=float(high), log=log)


def _parse_number(
    key: str, value: object, parameter: Hyperparameter, alternative: str = ""
) -> float | int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value if abs(value) <= LARGEST else math.nan
        low_enough = number > parameter.minimum or (
            number == parameter.minimum and not parameter.above
        )
        if low_enough and not parameter.integer:
            return float(number)
        if low_enough and isinstance(number, int):
            return number
    kind = "an integer" if parameter.integer else "a number"
    bound = "above" if parameter.above else "of at least"
    valid = f"must be {kind} {bound} {parameter.minimum:g}"
    if alternative:
        valid = f"{valid}, {alternative}"
    raise problem(key, f"{valid}; got {shown(value)}")
