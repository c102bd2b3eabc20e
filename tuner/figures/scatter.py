"""Two models compared unit by unit: readout against readout, layer against layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from tuner.figures import style
from tuner.figures.metrics import OPTIMISTIC, clean, metric_named
from tuner.scores.few import share_interval


def unit_scatter(
    first: ArrayLike,
    second: ArrayLike,
    *,
    names: tuple[str, str],
    metric: str = "test_correlation",
    regions: Sequence[str] | None = None,
    title: str | None = None,
    about: str = "",
    surely: tuple[int, int] | None = None,
    simulated: bool = False,
    theme: style.ThemeName = "light",
) -> Figure:
    """Draw one model's score against another's, a point per unit.

    Parameters
    ----------
    first, second
        ``(n_units,)`` scores of the same units; NaN: undefined, counted and not drawn.
    names
        Names of the two models, which the axes show.
    metric
        Column the scores are from.
    regions
        ``(n_units,)`` region of each unit: one colour and symbol each.
    title
        None: made from the names.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    surely
        Of how many units the second model's validation loss is surely lower, and surely higher; said under the title.
    simulated
        Whether the recording is.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the metric does not exist.
    ValueError
        If lengths differ.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or (regions is not None and len(regions) != len(x)):
        raise ValueError(f"scores of shapes {x.shape} and {y.shape} are not of the same units")
    chosen = metric_named(metric)
    colours = style.theme_named(theme)
    there = np.isfinite(x) & np.isfinite(y)
    better = (y > x) if chosen.higher_is_better else (y < x)
    parts = [f"{int(there.sum())} units"]
    if not there.all():
        parts.append(f"{int((~there).sum())} undefined")
    if there.any():
        number, total = int(better[there].sum()), int(there.sum())
        limits = " to ".join(f"{limit:.0%}" for limit in share_interval(number, total))
        parts.append(
            f"{clean(names[1])} better for {number} ({number / total:.0%}, 95% interval {limits})"
        )
    if surely is not None:
        parts.append(
            f"by validation loss surely better for {surely[0]}, surely worse for {surely[1]}"
        )
    if about or chosen.selected_on:
        parts.append(about or OPTIMISTIC)
    sub = style.subtitle(*parts, simulated=simulated)
    heading = title or f"{clean(names[1])} against {clean(names[0])}"
    width, side = style.COLUMN, 2.5
    with style.styled(colours):
        top = style.head_height(heading, sub, width) + 0.12
        kinds = list(dict.fromkeys(regions)) if regions is not None else []
        keys = 0.16 * ((len(kinds) + 3) // 4) + 0.1 if kinds else 0.0
        figure = style.new_figure(width, top + side + 0.55 + keys, colours)
        style.head(figure, heading, sub, colours)
        axes = style.place(figure, 0.7, top, side, side)
        both = np.concatenate([x[there], y[there]]) if there.any() else np.array([0.0, 1.0])
        low, high = float(both.min()), float(both.max())
        if 0 < low < 0.5 * high:
            low = 0.0
        margin = 0.04 * max(high - low, 1e-3)
        low, high = low - margin, high + margin
        axes.plot([low, high], [low, high], color=colours.muted, lw=0.6, ls=(0, (4, 3)))
        labels = np.asarray(regions if regions is not None else [""] * len(x), dtype=object)
        marks = "os^Dv<>"
        for index, kind in enumerate(kinds or [""]):
            part = there & (labels == kind)
            axes.plot(
                x[part],
                y[part],
                marks[index % len(marks)],
                ms=3,
                mew=0,
                alpha=0.75,
                color=colours.series[index % len(colours.series)],
            )
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.locator_params(nbins=5)
        axes.set_xlabel(f"{clean(names[0])}\n{chosen.label}", parse_math=False)
        axes.set_ylabel(f"{clean(names[1])}\n{chosen.label}", parse_math=False)
        _keys(figure, kinds, top + side + 0.52, marks, colours)
    return figure


def _keys(figure: Figure, kinds: Sequence[str], top: float, marks: str, theme: style.Theme) -> None:
    for index, kind in enumerate(kinds):
        row, column = divmod(index, 4)
        left, level = 0.2 + 0.8 * column, top + 0.16 * row
        colour = theme.series[index % len(theme.series)]
        width, height = figure.get_size_inches()
        figure.add_artist(
            Line2D(
                [left / width],
                [1 - (level + 0.06) / height],
                marker=marks[index % len(marks)],
                markersize=3.5,
                markeredgewidth=0,
                color=colour,
                linestyle="",
            )
        )
        style.write(figure, left + 0.08, level, clean(kind, 11), fontsize=style.SMALL)
