"""``--units``: by index, by range, by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cli.units import unit_list
from tuner.errors import InputError


def recording(**columns: list[str]) -> Any:
    return SimpleNamespace(units={name: np.array(values) for name, values in columns.items()})


NAMED = recording(name=["a-1", "b2", "twice", "twice", "7"], electrode=["x", "y", "z", "v", "w"])


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (None, None),
        ("0-2,4", [0, 1, 2, 4]),
        ("b2, a-1,1", [1, 0]),
        ("7", [7]),  # a number is an index, whatever units are called
        ("3,", [3]),
    ],
)
def test_units_that_are_meant(text: str | None, units: list[int] | None) -> None:
    assert unit_list(text, NAMED) == units


@pytest.mark.parametrize(
    ("text", "of", "said"),
    [
        ("twice", NAMED, "--units twice: is the name of 2 units; say their indices, 2, 3"),
        ("b3", NAMED, "no unit has this name; there are such as b2, .* indices from 0 to 4"),
        ("x", NAMED, "no unit has this name"),  # electrodes count where there are no names
        (",", NAMED, "names no unit"),
        ("b2", recording(area=["V4"]), "has no column name or electrode"),
        ("1-x", recording(area=["V4"]), "must be unit indices and ranges of them"),
    ],
)
def test_what_is_no_unit_is_named(text: str, of: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        unit_list(text, of)


def test_electrodes_are_names_where_there_are_no_others() -> None:
    assert unit_list("y,x", recording(electrode=["x", "y"])) == [1, 0]
