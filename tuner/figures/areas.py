"""Areas of regions that are smaller than an area, such as arrays: named over the regions that lie in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from tuner.figures import style
from tuner.figures.metrics import clean

ROOM = 0.17
"""Inches above the axes that the names of areas and their lines need."""


def finer(regions: Sequence[str], groups: Mapping[str, str] | None) -> bool:
    """Whether regions are something finer than areas, so that areas are worth naming."""
    return groups is not None and {groups.get(region, region) for region in regions} != set(regions)


def with_area(region: str, groups: Mapping[str, str] | None) -> str:
    """Name a region that stands by itself, with its area where that is something else, in at most 20 characters.

    Examples
    --------
    >>> with_area("3", {"3": "V4"}), with_area("V4", {"V4": "V4"}), with_area("V4", None)
    ('3 · V4', 'V4', 'V4')
    """
    area = (groups or {}).get(region, region)
    if area == region:
        return clean(region, 20)
    return f"{clean(region, 9)} \N{MIDDLE DOT} {clean(area, 8)}"


def brackets(
    axes: Axes,
    regions: Sequence[str],
    groups: Mapping[str, str],
    edges: Sequence[float],
    step: float,
    theme: style.Theme,
) -> None:
    """Name each run of regions that share an area, over a line above the axes.

    Parameters
    ----------
    axes
        Where the regions stand side by side.
    regions
        Their names, from left to right; those of one area stand together.
    groups
        Region to area.
    edges
        Left edge of each region's column, which is one unit of the axes wide.
    step
        Inches of such a unit.
    theme
        Colours.
    """
    runs: list[tuple[str, float, float]] = []
    for edge, region in zip(edges, regions, strict=True):
        area = groups.get(region, region)
        if runs and runs[-1][0] == area:
            runs[-1] = (area, runs[-1][1], edge + 1)
        else:
            runs.append((area, edge, edge + 1))
    scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    line, name = (
        blended_transform_factory(
            axes.transData, axes.transAxes + ScaledTranslation(0.0, inches, scale)
        )
        for inches in (0.04, 0.06)
    )
    for area, start, end in runs:
        axes.plot(
            [start + 0.06, end - 0.06],
            [1.0, 1.0],
            color=theme.muted,
            lw=0.6,
            clip_on=False,
            transform=line,
            scalex=False,
            scaley=False,
        )
        room = (end - start) * step
        text = clean(area, 24)
        while len(text) > 2 and style.text_width(text, style.SMALL) > room:
            text = clean(area, len(text) - 1)
        axes.text(
            (start + end) / 2,
            1.0,
            text,
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
            color=theme.muted,
            parse_math=False,
            transform=name,
        )
