"""What one ``[[backbone]]`` table stands for: the networks of a pattern, the draws of random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from studies.config.ranges import problem
from tuner.errors import InputError

if TYPE_CHECKING:
    from studies.config.keys import BackboneConfig


BASELINES = ("pixels", "gabor")
"""Backbones that have no weights: nothing was learned, and nothing can be drawn."""


def draws(tables: Iterable[BackboneConfig]) -> dict[str, str]:
    """Alias to the one that it shares with other draws of its weights."""
    return {table.alias: table.draws_of for table in tables if table.draws_of}


def untrained(tables: Iterable[BackboneConfig]) -> frozenset[str]:
    """Aliases of the networks of random weights."""
    return frozenset(table.alias for table in tables if table.weights == "random")


def of_patterns(tables: object) -> object:
    """Put in the place of each ``timm = ["vit_small*", ...]`` a table for every network that it fits.

    Raises
    ------
    PydanticCustomError
        If a pattern is none, fits nothing, or stands beside a name or an alias.
    """
    if not isinstance(tables, list | tuple) or not any(_has_pattern(table) for table in tables):
        return tables
    out: list[object] = []
    for index, table in enumerate(tables):
        if not isinstance(table, dict) or not _has_pattern(table):
            out.append(table)
            continue
        key = f"backbone[{index}]"
        for other in ("name", "alias"):
            if other in table:
                raise problem(f"{key}.{other}", "not beside timm, which names networks; remove one")
        shared = {name: value for name, value in table.items() if name != "timm"}
        published = table.get("weights", "imagenet") != "random"
        out += [
            {**shared, "name": name} for name in _fitting(table["timm"], f"{key}.timm", published)
        ]
    return out


def _has_pattern(table: object) -> bool:
    return isinstance(table, Mapping) and "timm" in table


def _fitting(patterns: object, key: str, published: bool) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not listed:
        raise problem(key, 'must be a list of patterns, such as ["vit_small*", "convnext_tiny*"]')
    from tuner.backbones.timm_models import FAMILY

    found: dict[str, None] = {}
    for index, pattern in enumerate(listed):
        if not isinstance(pattern, str) or not pattern.strip():
            raise problem(f"{key}[{index}]", 'must be a pattern in quotes, such as "vit_small*"')
        try:
            names = FAMILY.listed(pattern, published=published)
        except InputError as error:
            raise problem(f"{key}[{index}]", str(error)) from None
        if not names:
            raise problem(
                f"{key}[{index}]",
                f'"{pattern}" fits none of timm\'s networks; see \'tuner backbone list --filter "timm/*"\'',
            )
        found |= dict.fromkeys(names)
    return list(found)


def drawn(tables: Iterable[BackboneConfig]) -> tuple[BackboneConfig, ...]:
    """Put in the place of each table with ``seeds = N`` one for every draw, their aliases numbered from 1.

    Examples
    --------
    >>> from studies.config.keys import BackboneConfig
    >>> table = BackboneConfig(name="vgg19", weights="random", seeds=2)
    >>> [(one.alias, one.draw, one.draws_of) for one in drawn([table])]
    [('vgg19-1', 0, 'vgg19'), ('vgg19-2', 1, 'vgg19')]
    """
    out: list[BackboneConfig] = []
    for table in tables:
        if table.seeds == 1:
            out.append(table)
            continue
        for number in range(table.seeds):
            update: dict[str, Any] = {"alias": f"{table.alias}-{number + 1}", "seeds": 1}
            one = table.model_copy(update=update)
            one._draw, one._draws_of = number, table.alias
            out.append(one)
    return tuple(out)
