"""``--backbone --layer --region --readout``: which studies a command is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Protocol, TypeVar

import typer

from cli.options import Function, Selection, settings
from studies.names import StudyKey
from tuner.errors import InputError

PARTS = ("backbone", "layer", "region", "readout")


def _option(part: str) -> Any:
    def remember(patterns: list[str] | None) -> None:
        if patterns:
            chosen = replace(settings().selection, **{part: tuple(patterns)})
            settings().selection = chosen

    return typer.Option(
        f"--{part}",
        help=f"Only these {part}s; repeatable, * and ? match.",
        metavar="NAME",
        callback=remember,
        expose_value=False,
    )


def _declared(
    backbone: Annotated[list[str] | None, _option("backbone")] = None,
    layer: Annotated[list[str] | None, _option("layer")] = None,
    region: Annotated[list[str] | None, _option("region")] = None,
    readout: Annotated[list[str] | None, _option("readout")] = None,
) -> None:
    """Declare the four options."""


def selects(command: Function) -> Function:
    """Give a command the four options; what they say is the ``selection`` of the settings."""
    command.takes = _declared  # type: ignore[attr-defined]
    return command


class Named(Protocol):
    """What has a study's name."""

    @property
    def key(self) -> StudyKey:
        """Backbone, layer, region and readout."""
        ...


Item = TypeVar("Item", bound=Named)


def select(items: Iterable[Item], selection: Selection | None = None) -> list[Item]:
    """Choose the items that match, in their order.

    Parameters
    ----------
    items
        What has the name of a study.
    selection
        An item matches if, for each part that has patterns, one of them matches; where not given, what
        the running command was told.

    Returns
    -------
    list
        At least one item, if there are any.

    Raises
    ------
    InputError
        If a pattern matches nothing, listing the valid values; if no item matches all parts.
    """
    selection = settings().selection if selection is None else selection
    chosen = every = list(items)
    for part in PARTS:
        patterns: tuple[str, ...] = getattr(selection, part)
        if not patterns:
            continue
        values = list(dict.fromkeys(str(getattr(item.key, part)) for item in every))
        matching = {value for pattern in patterns for value in _matches(part, pattern, values)}
        chosen = [item for item in chosen if getattr(item.key, part) in matching]
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
