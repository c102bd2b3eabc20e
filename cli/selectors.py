"""``--backbone --layer --region --readout``: which studies a command is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Protocol, TypeVar

import typer

from tuner.errors import InputError

PARTS = ("backbone", "layer", "region", "readout")

BackboneOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone", help="Only these backbones; repeatable, * and ? match.", metavar="NAME"
    ),
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option("--layer", help="Only these layers; repeatable, * and ? match.", metavar="NAME"),
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option("--region", help="Only these regions; repeatable, * and ? match.", metavar="NAME"),
]
ReadoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--readout", help="Only these readouts; repeatable, * and ? match.", metavar="NAME"
    ),
]


class Combination(Protocol):
    """Anything that belongs to one backbone, layer, region and readout."""

    @property
    def backbone(self) -> str:
        """The backbone's alias."""
        ...

    @property
    def layer(self) -> str:
        """The layer's module path."""
        ...

    @property
    def region(self) -> str:
        """The region."""
        ...

    @property
    def readout(self) -> str:
        """The readout."""
        ...


Item = TypeVar("Item")
Selectable = TypeVar("Selectable", bound=Combination)


@dataclass(frozen=True)
class Selection:
    """Glob patterns per part of a study's name; no pattern selects everything."""

    backbone: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    readout: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        backbone: Sequence[str] | None = None,
        layer: Sequence[str] | None = None,
        region: Sequence[str] | None = None,
        readout: Sequence[str] | None = None,
    ) -> Selection:
        """Collect what the four options were given."""
        given = (backbone, layer, region, readout)
        return cls(*(tuple(patterns or ()) for patterns in given))

    def __bool__(self) -> bool:
        return any(getattr(self, part) for part in PARTS)


def select(items: Iterable[Selectable], selection: Selection) -> list[Selectable]:
    """Choose the items that match, in their order.

    Parameters
    ----------
    items
        Things with the attributes ``backbone``, ``layer``, ``region`` and ``readout``.
    selection
        An item matches if, for each part that has patterns, one of them matches.

    Returns
    -------
    list
        At least one item, if there are any.

    Raises
    ------
    InputError
        If a pattern matches nothing, listing the valid values; if no item matches all parts.
    """
    return select_by(items, selection, getattr)


def select_by(
    items: Iterable[Item], selection: Selection, part_of: Callable[[Item, str], Any]
) -> list[Item]:
    """Choose as :func:`select` does, from items that name their parts in another way.

    Parameters
    ----------
    items, selection
        As for :func:`select`.
    part_of
        Gives an item's part: ``part_of(item, "layer")``.
    """
    chosen = every = list(items)
    for part in PARTS:
        patterns: tuple[str, ...] = getattr(selection, part)
        if not patterns:
            continue
        values = list(dict.fromkeys(str(part_of(item, part)) for item in every))
        matching = {value for pattern in patterns for value in _matches(part, pattern, values)}
        chosen = [item for item in chosen if str(part_of(item, part)) in matching]
    if every and not chosen:
        given = " ".join(
            f"--{part} {pattern}" for part in PARTS for pattern in getattr(selection, part)
        )
        raise InputError(f"no study matches {given} together; each alone matches some")
    return chosen


def _matches(part: str, pattern: str, values: Sequence[str]) -> list[str]:
    """Find the values that match a pattern, or are it: brackets in names need no escaping."""
    found = [value for value in values if value == pattern or fnmatchcase(value, pattern)]
    if not found:
        raise InputError(f"--{part} {pattern}: no {part} matches; valid: {', '.join(values)}")
    return found
