"""What a search found: validation loss against each hyperparameter, and which of them matter."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from numpy.typing import ArrayLike

from tuner.figures import style
from tuner.figures.metrics import clean

BETWEEN = 0.32
"""Inches between slices side by side: half of the labels at the ends of two axes."""
PER_LINE = 3


def slices(
    parameters: Mapping[str, ArrayLike],
    values: ArrayLike,
    *,
    complete: ArrayLike | None = None,
    log: Collection[str] = (),
    title: str = "Search",
    about: str = "",
    simulated: bool = False,
    theme: style.ThemeName = "light",
    width: style.WidthName | None = None,
) -> Figure:
    """Draw the value of every trial against each hyperparameter, later trials darker.

    Parameters
    ----------
    parameters
        Name to ``(n_trials,)`` values.
    values
        ``(n_trials,)`` validation losses; those that are not finite are counted, not drawn.
    complete
        ``(n_trials,)`` bool; the others were pruned and are drawn open. None: all complete.
    log
        Names of the hyperparameters searched on a logarithmic scale.
    title
        Usually the study's name.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is.
    theme
        ``"light"`` or ``"dark"``.
    width
        ``"single"`` or ``"double"`` column of a journal; None: as the number of hyperparameters asks for.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no hyperparameter, or lengths differ.
    """
    losses = np.asarray(values, dtype=float)
    done = np.ones(len(losses), bool) if complete is None else np.asarray(complete, bool)
    if not parameters:
        raise ValueError("no hyperparameters to draw")
    if any(np.shape(column) != losses.shape for column in parameters.values()):
        raise ValueError("hyperparameters and values differ in length")
    colours = style.theme_named(theme)
    finite = np.isfinite(losses)
    limit = _limit(losses[finite])
    shown = finite & (losses <= limit)
    pruned = int((~done).sum())
    parts = [f"{len(losses)} trials" + (f", {pruned} of them pruned (open)" if pruned else "")]
    if not shown.all():
        parts.append(f"{int((~shown).sum())} above the axis")
    sub = style.subtitle(*parts, about, simulated=simulated)
    wide = style.width_named(width, style.PAGE if len(parameters) > 1 else style.COLUMN)
    across = min(len(parameters), PER_LINE if wide > 2 * style.COLUMN else PER_LINE - 1)
    lines = math.ceil(len(parameters) / across)
    low = float(losses[shown].min()) if shown.any() else 0.0
    left = style.room_for_ticks(low, limit)
    side = (wide - left - 0.15 - BETWEEN * (across - 1)) / across
    tall = 1.45
    with style.styled(colours):
        top = style.head_height(title, sub, wide) + 0.12
        figure = style.new_figure(wide, top + lines * (tall + 0.45) + 0.42, colours)
        style.head(figure, title, sub, colours)
        order = np.arange(len(losses), dtype=float)
        palette = mpl.colormaps["Blues" if theme == "light" else "Blues_r"]
        norm = Normalize(-0.35 * max(len(losses), 2), max(len(losses) - 1, 1))
        best = int(np.nanargmin(np.where(shown & done, losses, np.inf))) if shown.any() else None
        for index, (name, column) in enumerate(parameters.items()):
            line, place = divmod(index, across)
            axes = style.place(
                figure, left + place * (side + BETWEEN), top + line * (tall + 0.45), side, tall
            )
            x = np.asarray(column, dtype=float)
            tint = palette(norm(order))
            axes.scatter(
                x[shown & ~done],
                losses[shown & ~done],
                s=9,
                facecolors="none",
                edgecolors=tint[shown & ~done],
                linewidths=0.6,
            )
            axes.scatter(x[shown & done], losses[shown & done], s=9, c=tint[shown & done], lw=0)
            if best is not None:
                axes.plot(x[best], losses[best], "o", ms=5, mfc="none", mec=colours.accent, mew=1.2)
            if name in log:
                axes.set_xscale("log")
                _log_ticks(axes, side)
            axes.set_xlabel(clean(name), labelpad=2, parse_math=False)
            if place:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("validation loss")
                axes.locator_params(axis="y", nbins=5)
            margin = 0.06 * max(limit - low, 1e-3)
            axes.set_ylim(low - margin, limit + margin)
        bar = style.place(figure, left, top + lines * (tall + 0.45) + 0.02, 1.2, 0.07)
        drawn = figure.colorbar(
            ScalarMappable(Normalize(0, 1), _part(palette, norm, len(losses))),
            cax=bar,
            orientation="horizontal",
        )
        drawn.outline.set_visible(False)
        drawn.set_ticks([0, 1])
        drawn.set_ticklabels(["first", "last trial"])
        bar.tick_params(length=0, pad=2)
        style.write(
            figure,
            left + 1.6,
            top + lines * (tall + 0.45),
            "circle: the best trial",
            fontsize=style.SMALL,
            color=colours.accent,
        )
    return figure


def _log_ticks(axes: Axes, length: float) -> None:
    """Mark powers of ten, or 1, 2, 5 times them where few are on an axis of this many inches; labels stand apart."""
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    if decades >= 2.5:
        axes.xaxis.set_major_locator(LogLocator(numticks=min(max(int(length / 0.36), 2), 5)))
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marked: list[float] = []
        for digits in ((1, 2, 5), (1, 3), (1,), (2,)):
            marked = [digit * 10.0**power for power in powers for digit in digits]
            marked = [tick for tick in marked if low <= tick <= high]
            widths = [style.text_width(_label(tick).strip("$"), style.SMALL) for tick in marked]
            apart = [math.log10(b / a) / decades * length for a, b in pairwise(marked)]
            needed = [(a + b) / 2 + 0.05 for a, b in pairwise(widths)]
            if marked and all(map(operator.ge, apart, needed)):
                break
        axes.xaxis.set_major_locator(FixedLocator(marked))
        axes.xaxis.set_major_formatter(lambda tick, _: _label(tick))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(tick: float) -> str:
    """A number beside an axis; small ones as powers of ten, as on longer axes."""
    if tick >= 1e-3:
        return f"{tick:g}"
    digit, power = f"{tick:.0e}".split("e")
    return f"${'' if digit == '1' else digit + '·'}10^{{{int(power)}}}$"


def _part(palette: mpl.colors.Colormap, norm: Normalize, n: int) -> mpl.colors.Colormap:
    """Return the stretch of a palette that the trials use."""
    ends = norm(np.array([0.0, max(n - 1, 1)]))
    return mpl.colors.ListedColormap(palette(np.linspace(ends[0], ends[1], 64)))


def _limit(losses: np.ndarray) -> float:
    """Highest loss worth an axis: all but trials far off in a long tail."""
    if not len(losses):
        return 1.0
    low, median = float(losses.min()), float(np.median(losses))
    return min(float(losses.max()), max(median + 3.0 * (median - low), 1.1 * low + 1e-9))


def importance(
    shares: Mapping[str, float],
    *,
    title: str = "Hyperparameter importance",
    about: str = "",
    simulated: bool = False,
    note: str = "",
    theme: style.ThemeName = "light",
    width: style.WidthName | None = None,
) -> Figure:
    """Draw how much each hyperparameter of a study matters.

    Parameters
    ----------
    shares
        Name to importance, in [0, 1].
    title
        Title of the figure.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is.
    note
        Said under the title: how the shares were computed.
    theme
        ``"light"`` or ``"dark"``.
    width
        ``"single"`` or ``"double"`` column of a journal; None: single.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are none.
    """
    if not shares:
        raise ValueError("no importances to draw")
    colours = style.theme_named(theme)
    order = sorted(shares, key=lambda name: -shares[name])
    sub = style.subtitle(note, about, simulated=simulated)
    wide = style.width_named(width, style.COLUMN)
    with style.styled(colours):
        top = style.head_height(title, sub, wide) + 0.1
        tall = 0.2 * len(order)
        names = [clean(name) for name in order]
        left = 0.1 + style.widest(names, style.SMALL) + 0.08
        figure = style.new_figure(wide, top + tall + 0.15, colours)
        style.head(figure, title, sub, colours)
        axes = style.place(figure, left, top, wide - left - 0.45, tall)
        axes.set(xlim=(0, max([*shares.values(), 1e-9])), ylim=(len(order) - 0.4, -0.6))
        axes.axis("off")
        for row, name in enumerate(order):
            axes.barh(row, shares[name], height=0.62, color=colours.series[0])
            axes.annotate(
                f"{shares[name]:.2f}",
                (shares[name], row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=style.SMALL,
            )
            axes.annotate(
                clean(name),
                (0, row),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=style.SMALL,
                parse_math=False,
            )
    return figure
