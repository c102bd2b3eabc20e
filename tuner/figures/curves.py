"""Learning curves of a study: every trial's validation loss, the pruned ones light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.figures import style
from tuner.figures.trials import TrialCurve, best_trial, reported, visible_range


def learning_curves(
    curves: Sequence[TrialCurve],
    *,
    title: str = "Learning curves",
    about: str = "",
    simulated: bool = False,
    theme: style.ThemeName = "light",
    width: style.WidthName | None = None,
) -> Figure:
    """Draw the validation loss of every trial of a study against training steps.

    Parameters
    ----------
    curves
        The trials; values that are not finite are left out, and counted where all of a trial are.
    title
        Usually the study's name.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is.
    theme
        ``"light"`` or ``"dark"``.
    width
        ``"single"`` or ``"double"`` column of a journal; None: single.

    Returns
    -------
    matplotlib.figure.Figure
    """
    colours = style.theme_named(theme)
    low, high = visible_range(curves)
    pruned = sum(curve.state == "pruned" for curve in curves)
    complete = sum(curve.state == "complete" for curve in curves)
    above = sum(_never_below(curve, high) for curve in curves)
    parts = [f"{complete} complete, {pruned} pruned (grey, a dot where each was stopped)"]
    if not pruned:
        parts = [f"{complete} complete, none pruned"]
    if above:
        parts.append(f"{above} above the axis")
    best = best_trial(curves)
    if best is not None:
        parts.append(f"best, thick: trial {best.number}: {reported(best)[1].min():.3f}")
    sub = style.subtitle(*parts, about, simulated=simulated)
    with style.styled(colours):
        wide = style.width_named(width, style.COLUMN)
        top = style.head_height(title, sub, wide) + 0.12
        figure = style.new_figure(wide, top + 1.75 + 0.42, colours)
        style.head(figure, title, sub, colours)
        left = style.room_for_ticks(low, high)
        axes = style.place(figure, left, top, wide - left - 0.12, 1.75)
        _draw(axes, curves, colours)
        axes.set(ylim=(low, high), xlabel="training step", ylabel="validation loss")
        _end_axis(axes, curves)
    return figure


def _never_below(curve: TrialCurve, high: float) -> bool:
    values = reported(curve)[1]
    return not values.size or float(values.min()) > high


def _draw(axes: Axes, curves: Sequence[TrialCurve], theme: style.Theme) -> None:
    best = best_trial(curves)
    axes.axhline(1.0, color=theme.muted, lw=0.6, ls=(0, (4, 3)))
    axes.text(
        0.995,
        1.0,
        "predicts the mean",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=style.TINY,
        color=theme.muted,
    )
    # A trial stopped early is drawn under those that went on.
    for state, colour, width, alpha in (
        ("pruned", theme.muted, 0.5, 0.35),
        ("running", theme.series[2], 0.7, 0.8),
        ("complete", theme.series[0], 0.7, 0.55),
    ):
        for curve in curves:
            if curve.state == state and curve is not best:
                steps, values = reported(curve)
                axes.plot(steps, values, color=colour, lw=width, alpha=alpha)
                if state == "pruned" and len(steps):
                    axes.plot(steps[-1], values[-1], ".", ms=2, color=colour, alpha=0.6)
    if best is None:
        return
    steps, values = reported(best)
    lowest = int(np.argmin(values))
    axes.plot(steps, values, color=theme.accent, lw=1.3, zorder=4)
    axes.plot(steps[lowest], values[lowest], "o", ms=3.5, color=theme.accent, zorder=5)


def _end_axis(axes: Axes, curves: Sequence[TrialCurve]) -> None:
    last = max(
        (float(np.max(curve.steps)) for curve in curves if np.size(curve.steps)), default=1.0
    )
    axes.set_xlim(0, last * 1.02)
    axes.locator_params(axis="both", nbins=6)
