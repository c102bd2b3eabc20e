"""``--units``: which units of the recording are meant, by index or by name."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuner.recordings import Recording

UnitsOption = Annotated[
    str | None,
    typer.Option(
        help="Indices in the recording (column unit of units.csv) and ranges of them, or names, such as 0-11,24 or "
        "A12,A17; all if not given.",
        metavar="UNITS",
    ),
]


def unit_list(text: str | None, recording: Recording) -> list[int] | None:
    """Indices of the units that are meant; None where all are.

    What is a number, or a range of numbers, is of indices; anything else is a name, of the column ``name``, else
    ``electrode``.

    Raises
    ------
    InputError
        If nothing is named, or something that is no unit, or several.
    """
    from tuner.errors import InputError

    if text is None:
        return None
    column = next((c for c in ("name", "electrode") if c in recording.units), None)
    names = [] if column is None else [str(name) for name in recording.units[column]]
    units: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        mine = [unit for unit, name in enumerate(names) if name == part]
        if numbers:
            units += range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)
        elif len(mine) > 1:
            raise InputError(
                f"--units {part}: is the {column} of {len(mine)} units; say their indices, "
                f"{', '.join(map(str, mine))}"
            )
        elif mine:
            units += mine
        elif names:
            near = difflib.get_close_matches(part, names, 3, 0.3) or names[:3]
            raise InputError(
                f"--units {part}: no unit has this {column}; there are such as {', '.join(near)}, and indices from 0 "
                f"to {len(names) - 1}"
            )
        else:
            raise InputError(
                f"--units {text}: must be unit indices and ranges of them, such as 0-11,24: the recording has no "
                "column name or electrode"
            )
    if not units:
        raise InputError(f"--units {text}: names no unit")
    return list(dict.fromkeys(units))
