"""Which studies are meant: patterns of backbones, layers, regions and readouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from studies.names import StudyKey
from tuner.errors import InputError

PARTS = ("backbone", "layer", "region", "readout")


@dataclass(frozen=True)
class Selection:
    """Patterns of the studies that are meant; a part without any means all."""

    backbone: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    readout: tuple[str, ...] = ()


class Named(Protocol):
    """What has a study's name."""

    @property
    def key(self) -> StudyKey:
        """Backbone, layer, region and readout."""
        ...


Item = TypeVar("Item", bound=Named)


def select(items: Iterable[Item], selection: Selection) -> list[Item]:
    """Choose the items that match, in their order.

    Parameters
    ----------
    items
        What has the name of a study.
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
