"""A recording before anything is fitted to it: how reliable its units are, region by region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tuner.figures import style
from tuner.figures.metrics import clean

ROW = 0.42
"""Inches that a region takes."""

KEYS = ("correlation between two repeats", "ceiling (CCmax)")
"""What the two clouds of a region are."""

HALF_ROW = 0.17
NEAR = 0.02
CROWD = 6
"""Points within ``NEAR`` of one another that fill a row; fewer are spread less."""


def reliability_strips(
    regions: Sequence[str],
    reliability: ArrayLike,
    ceiling: ArrayLike,
    *,
    title: str,
    areas: Sequence[str] | None = None,
    about: str = "",
    simulated: bool = False,
    theme: style.ThemeName = "light",
) -> Figure:
    """Draw every unit's reliability and ceiling, a row per region, with their medians.

    Parameters
    ----------
    regions
        ``(n_units,)`` region of each unit; rows follow their first appearance.
    reliability
        ``(n_units,)`` mean correlation between two repeats; NaN: undefined.
    ceiling
        ``(n_units,)`` CCmax, the correlation that a perfect model would reach; NaN: undefined.
    title
        What the recording is called.
    areas
        ``(n_units,)`` area of each unit, said where regions are something finer.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is simulated, which the figure then says.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If lengths differ.
    """
    kinds = (np.asarray(reliability, dtype=float), np.asarray(ceiling, dtype=float))
    labels = np.asarray(list(regions), dtype=object)
    if any(values.shape != labels.shape for values in kinds) or labels.ndim != 1:
        raise ValueError("regions, reliabilities and ceilings are not of the same units")
    rows = list(dict.fromkeys(labels.tolist()))
    colours = style.theme_named(theme)
    sub = style.subtitle(
        f"{labels.size} units",
        "dots: units, bars: medians",
        about,
        simulated=simulated,
    )
    width = style.COLUMN
    with style.styled(colours):
        keys = style.head_height(clean(title), sub, width) + 0.08
        top = keys + 0.2
        names = [_named(str(row), labels == row, areas) for row in rows]
        counts = [_counted(kinds[1][labels == row]) for row in rows]
        left = style.widest(names, style.NORMAL) + 0.2
        lines = [line for count in counts for line in count.split("\n")]
        right = style.widest(lines, style.SMALL) + 0.2
        figure = style.new_figure(width, top + ROW * len(rows) + 0.5, colours)
        style.head(figure, clean(title), sub, colours)
        wide = [style.text_width(text, style.SMALL) * 1.15 for text in KEYS]
        at = max(0.1, min(left, width - sum(wide) - 0.25))
        for text, colour in zip(KEYS, colours.series, strict=False):
            style.write(
                figure, at, keys, text, fontsize=style.SMALL, color=colour, fontweight="bold"
            )
            at += wide[KEYS.index(text)] + 0.15
        axes = style.place(figure, left, top, width - left - right, ROW * len(rows))
        lowest = min((float(np.nanmin(v)) for v in kinds if np.isfinite(v).any()), default=0.0)
        axes.set(xlim=(min(lowest, 0.0) - 0.03, 1.03), ylim=(len(rows) - 0.5, -0.5))
        for index, row in enumerate(rows):
            members = labels == row
            for values, offset, colour in zip(kinds, (-0.2, 0.2), colours.series, strict=False):
                _strip(axes, values[members], index + offset, colour)
            axes.text(
                1.0 + 0.1 / (width - left - right),
                index,
                counts[index],
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=style.SMALL,
                color=colours.muted,
                parse_math=False,
            )
        axes.set_yticks(range(len(rows)), names, parse_math=False)
        axes.tick_params(axis="y", length=0, labelsize=style.NORMAL)
        axes.set_xlabel("correlation")
    return figure


def _named(region: str, members: NDArray[np.bool_], areas: Sequence[str] | None) -> str:
    """A region's name, with the area that all its units lie in."""
    inside = set() if areas is None else {str(areas[i]) for i in np.flatnonzero(members).tolist()}
    area = inside.pop() if len(inside) == 1 else region
    return (
        clean(region, 14)
        if area == region
        else f"{clean(region, 8)} \N{MIDDLE DOT} {clean(area, 6)}"
    )


def _counted(ceiling: NDArray[np.float64]) -> str:
    defined = int(np.isfinite(ceiling).sum())
    units = f"{ceiling.size} units"
    return units if defined == ceiling.size else f"{units},\n{defined} with ceiling"


def _strip(axes: Axes, values: NDArray[np.float64], level: float, colour: str) -> None:
    """Draw a value per unit on one line, spread where they crowd, and their median."""
    there = np.sort(values[np.isfinite(values)])
    if not there.size:
        return
    size = 2.2 if there.size <= 100 else 1.5
    axes.plot(there, level + _spread(there), "o", ms=size, mew=0, alpha=0.6, color=colour)
    median = float(np.median(there))
    axes.plot([median, median], [level - 0.17, level + 0.17], color=colour, lw=1.4)


def _spread(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift points within their row, by as much as there are others close by: the cloud shows how many."""
    near = np.searchsorted(ordered, ordered + NEAR) - np.searchsorted(ordered, ordered - NEAR)
    reach = HALF_ROW * (near - 1) / max(int(near.max()) - 1, CROWD)
    # Multiples of the golden ratio: neighbours never fall on one another, and no draw is needed.
    turn = np.arange(ordered.size) * (5**0.5 - 1) / 2
    return np.asarray(reach * (2 * (turn % 1) - 1))
