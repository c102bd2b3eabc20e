"""``--backbone --layer --region --readout``: which studies a command is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import typer

from cli.options import Function, settings
from studies import selection as selection_module
from studies.selection import Item, Selection


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


def select(items: Iterable[Item], selection: Selection | None = None) -> list[Item]:
    """Choose the items that match, in their order; where no selection is given, what the running command was told.

    Raises
    ------
    InputError
        As :func:`studies.selection.select`.
    """
    return selection_module.select(items, settings().selection if selection is None else selection)
