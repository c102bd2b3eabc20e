"""What a hyperparameter may be: a number, a range to search or a grid to fill, and what is shipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
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

Listed: TypeAlias = tuple[float, ...]
"""Values of a grid, one by one, in rising order."""

Setting: TypeAlias = float | int | FloatRange | IntRange | Listed
Space: TypeAlias = dict[str, Setting]

CLOSED_FORM = "smooth"
"""The readout whose space is a grid that is filled whole: it is fitted in closed form, without a search."""

PER_DECADE = 2
"""Grid points of a logarithmic range in each factor of ten: half decades."""

EVENLY = 5
"""Grid points of a range that is not logarithmic."""

MOST = 100
"""Values that a grid may list of one hyperparameter."""


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
    grid
        Whether its values are tried one and all: it may then be a list too, and a range is its points.
    log
        Whether a range of it, and what is drawn of a list of it, is on a logarithmic scale where nothing is said.
    maximum
        The largest value that makes sense.
    """

    default: FloatRange | IntRange | Listed
    minimum: float
    above: bool
    description: str
    grid: bool = False
    log: bool = True
    maximum: float = LARGEST

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
        CLOSED_FORM: {
            "width": Hyperparameter(
                (0.0, 0.7, 1.5, 3.0),
                0.0,
                False,
                "over how many cells neighbouring weights are alike: standard deviation of the "
                "Gaussian prior; 0 is ordinary ridge",
                grid=True,
                log=False,
                maximum=1000,
            ),
            "penalty": Hyperparameter(
                FloatRange(low=1e-4, high=1e4),
                1e-9,
                False,
                "weight of the prior, in units of the mean squared length of an image's features",
                grid=True,
                maximum=1e9,
            ),
        },
    }
)


def points(setting: Setting) -> tuple[float, ...]:
    """Grid points of a setting, in rising order: a number itself, what is listed, or a range's.

    A logarithmic range has about ``PER_DECADE`` points in each factor of ten, another one ``EVENLY``; both ends are among
    them.

    Examples
    --------
    >>> points(FloatRange(low=0.1, high=10.0, log=True))
    (0.1, 0.31622776601683794, 1.0, 3.1622776601683795, 10.0)
    >>> points(FloatRange(low=0.0, high=2.0, log=False))
    (0.0, 0.5, 1.0, 1.5, 2.0)
    """
    if isinstance(setting, tuple):
        return setting
    if not isinstance(setting, FloatRange | IntRange):
        return (float(setting),)
    if not setting.log:
        step = (setting.high - setting.low) / (EVENLY - 1)
        return (*(setting.low + i * step for i in range(EVENLY - 1)), float(setting.high))
    low, high = math.log10(setting.low), math.log10(setting.high)
    steps = max(1, round(PER_DECADE * (high - low)))
    between = (float(10 ** (low + i * (high - low) / steps)) for i in range(1, steps))
    return (float(setting.low), *between, float(setting.high))


def grid(space: Mapping[str, Setting]) -> list[dict[str, float]]:
    """Every point of a space's grid: the first hyperparameter outermost."""
    values = product(*(points(setting) for setting in space.values()))
    return [dict(zip(space, point, strict=True)) for point in values]


def trials_needed(readout: str, space: Mapping[str, Setting], n_trials: int) -> int:
    """Trials that a study is to have: of a closed form its grid whatever was asked, one where nothing varies."""
    if readout == CLOSED_FORM:
        return len(grid(space)) if n_trials else 0
    return n_trials if varies(space) else min(1, n_trials)


def default_space(readout: str) -> Space:
    """Return the ranges that are searched for a readout where nothing else is said."""
    return {name: parameter.default for name, parameter in SPACES[readout].items()}


def varies(space: Mapping[str, Setting]) -> bool:
    """Tell whether anything is left to search; if not, one trial is all a study needs."""
    return any(varied(setting) for setting in space.values())


def varied(setting: Setting) -> bool:
    """Whether a setting leaves anything to choose."""
    return isinstance(setting, FloatRange | IntRange) or (
        isinstance(setting, tuple) and len(setting) > 1
    )


def logarithmic(name: str, setting: Setting) -> bool:
    """Whether a hyperparameter is searched, or its list filled, on a logarithmic scale."""
    if isinstance(setting, tuple):
        return SPACES[CLOSED_FORM][name].log and min(setting) > 0
    return isinstance(setting, FloatRange | IntRange) and setting.log


def plain_space(space: Mapping[str, Setting]) -> dict[str, object]:
    """Write a space as TOML has it: numbers, lists of them, and tables of low, high, log."""
    return {name: _plain(setting) for name, setting in space.items()}


def _plain(setting: Setting) -> object:
    if isinstance(setting, tuple):
        return list(setting)
    return setting.model_dump() if isinstance(setting, BaseModel) else setting


def parse_spaces(document: object) -> dict[str, Space]:
    """Read the tables ``[search.space.READOUT]``.

    Parameters
    ----------
    document
        The value of ``search.space``: readout -> hyperparameter -> a number, a table with
        ``low``, ``high``, ``log``, or, of a closed form, a list of numbers.

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
    if parameter.grid and isinstance(value, list | tuple):
        return _parse_list(key, value, parameter)
    log = str(parameter.log).lower()
    written = f"a range {{ low = ..., high = ..., log = {log} }}"
    return _parse_number(
        key,
        value,
        parameter,
        f"a list of them, or {written}" if parameter.grid else f"or {written}",
    )


def _parse_list(
    key: str, values: list[object] | tuple[object, ...], parameter: Hyperparameter
) -> Listed:
    if not values:
        raise problem(key, "needs at least one value")
    numbers = [float(_parse_number(f"{key}[{i}]", v, parameter)) for i, v in enumerate(values)]
    for i, number in enumerate(numbers):
        if number in numbers[:i]:
            raise problem(f"{key}[{i}]", f"{number:g} is listed twice; remove one")
    if len(numbers) > MOST:
        raise problem(key, f"must list at most {MOST} values, not {len(numbers)}")
    return tuple(sorted(numbers))


def _parse_range(key: str, table: dict[str, object], parameter: Hyperparameter) -> Setting:
    default = parameter.default
    if isinstance(default, tuple):  # a range has the ends of the list
        default = FloatRange(low=default[0], high=default[-1], log=parameter.log)
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
    found = FloatRange(low=float(low), high=float(high), log=log)
    if parameter.grid and len(points(found)) > MOST:
        raise problem(
            key, f"has {len(points(found))} grid points, and {MOST} are allowed; narrow it"
        )
    return found


def _parse_number(
    key: str, value: object, parameter: Hyperparameter, alternative: str = ""
) -> float | int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value if abs(value) <= parameter.maximum else math.nan
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
    beyond = isinstance(value, int | float) and parameter.maximum < value < math.inf
    if parameter.maximum < LARGEST or beyond:
        valid += f" and at most {parameter.maximum:g}"
    if alternative:
        valid = f"{valid}, {alternative}"
    raise problem(key, f"{valid}; got {shown(value)}")
