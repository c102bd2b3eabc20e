"""The best layer of each region: how well it does, or how far the next one is behind it, and how sure it is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tuner.figures import areas, style
from tuner.figures.metrics import OPTIMISTIC, Metric, clean, metric_named
from tuner.figures.panels import NO_LAYER, NOT_TOLD, region_order

HELD_OUT = "the held-out images"

NEXT = Metric("", "next layer's loss above the best's", higher_is_better=False)
"""In place of a score: how much greater the loss of the layer is that comes nearest to the best one."""

ONE_CUT = (
    "these draws are of one cut, on whose held-out images settings and layers were chosen: whether a layer is surely the "
    "best, other cuts decide (tuner export heatmap --resplit 5)"
)
"""Said where the shares of draws are of one cut."""

DECIDE = "bars, not dots, allow for few groups and several layers, and decide"
"""Said where they are of other cuts too."""

SHARES = (0.1, 0.5, 1.0)
"""Of draws, whose dots the key shows."""


@dataclass(frozen=True)
class BestLayer:
    """One region's best layer with one readout.

    Attributes
    ----------
    region, readout
        Names of the region and of the readout.
    layer
        The best by validation loss; :data:`tuner.figures.panels.NO_LAYER` where none is.
    value, low, high
        Its score and the limits of its interval; NaN where unknown or open.
    probabilities
        Layer to the share of bootstrap draws of the validation images in which it is the best;
        empty: unknown.
    ceiling
        The region's noise ceiling, NaN if there is none; drawn where the metric is on its scale.
    """

    region: str
    readout: str
    layer: str
    value: float
    low: float = math.nan
    high: float = math.nan
    probabilities: dict[str, float] | None = None
    ceiling: float = math.nan


def best_layers(
    entries: Sequence[BestLayer],
    layers: Sequence[str],
    *,
    metric: str | Metric = "test_correlation",
    title: str = "Best layer of each region",
    about: str = "",
    bars: str = "95 % interval",
    drawn: str = HELD_OUT,
    groups: Mapping[str, str] | None = None,
    simulated: bool = False,
    theme: style.ThemeName = "light",
    width: style.WidthName | None = None,
) -> Figure:
    """Draw the best layer against region: its score above, its place in depth below.

    A ring marks the best layer; dots grow with the share of bootstrap draws in which a layer is it. A region without one
    says ``none``.

    Parameters
    ----------
    entries
        The best layers of one backbone, one per region and readout.
    layers
        The backbone's, in depth order.
    metric
        Column the values are from; :data:`NEXT`: values say how far the next layer is behind.
    title
        Title of the figure.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    bars
        What the intervals are drawn over, see :func:`tuner.figures.captions.interval`.
    drawn
        What is drawn to see how sure the choice is.
    groups
        Region to area: regions of one area stand together under its name.
    simulated
        Whether the recording is.
    theme
        ``"light"`` or ``"dark"``.
    width
        ``"single"`` or ``"double"`` column of a journal; None: as the number of regions asks for.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the metric does not exist.
    ValueError
        If there are no entries, or one names a layer that is not in ``layers``.
    """
    if not entries:
        raise ValueError("no best layers to draw")
    for entry in entries:
        if entry.layer not in (*layers, NO_LAYER):
            raise ValueError(f"layer {entry.layer!r} of region {entry.region!r} is not in layers")
    chosen = metric if isinstance(metric, Metric) else metric_named(metric)
    colours = style.theme_named(theme)
    regions = region_order([{"region": entry.region} for entry in entries], groups)
    readouts = list(dict.fromkeys(entry.readout for entry in entries))
    names = [clean(region, 20) for region in regions]
    label = chosen.label
    label = label if style.text_width(label, style.NORMAL) < 1.3 else _two(label)
    ceiling = chosen.comparable_ceiling and any(math.isfinite(e.ceiling) for e in entries)
    left = max(
        0.2 + style.widest([clean(layer) for layer in layers], style.SMALL),
        style.room_for_ticks(*_range(entries, chosen, ceiling)) + 0.13 * label.count("\n"),
    )
    wanted = min(max(style.COLUMN, left + 0.1 + 0.42 * len(regions)), style.PAGE)
    wide = style.width_named(width, wanted)
    step = (wide - left - 0.1) / len(regions)
    turned = style.widest(names, style.SMALL) > step - 0.05
    below = (style.widest(names, style.SMALL) if turned else 0.14) + 0.16
    tall = max(0.16 * len(layers), 0.5)
    shares = any(entry.probabilities for entry in entries)
    parts = ["best of the layers shown, by validation loss (ring)"]
    if any(math.isfinite(limit) for entry in entries for limit in (entry.low, entry.high)):
        parts.append(f"bars: {bars}")
    if chosen is NEXT:
        parts.append("a bar that reaches 0: undecided")
    if shares:
        parts.append(f"dots: share of draws of {drawn} in which a layer is best")
        parts.append(DECIDE if chosen is NEXT else ONE_CUT)
    if any(entry.layer == NO_LAYER for entry in entries):
        parts.append(f"{NO_LAYER}: {NOT_TOLD}")
    sub = style.subtitle(
        about or (OPTIMISTIC if chosen.selected_on else ""), *parts, simulated=simulated
    )
    with style.styled(colours):
        top = style.head_height(title, sub, wide) + 0.1
        keys = top
        if groups and areas.finer(regions, groups):
            top += areas.ROOM
        figure = style.new_figure(wide, top + 1.6 + tall + below + 0.2 * shares, colours)
        style.head(figure, title, sub, colours)
        _keys(figure, readouts, keys, left, ceiling, colours)
        score = style.place(figure, left, top + 0.2, wide - left - 0.1, 1.2)
        depth = style.place(figure, left, top + 1.6, wide - left - 0.1, tall)
        for axes in (score, depth):
            axes.set_xlim(-0.5, len(regions) - 0.5)
            axes.set_xticks(range(len(regions)))
        # rings of the readouts of a region stand side by side, however narrow its column
        apart = 0.6 / len(readouts)
        ring = min(7.0, max(3.0, 0.95 * apart * step * 72))
        if shares:
            _sizes(figure, left, top + 1.6 + tall + below, ring, colours)
        for column, region in enumerate(regions):
            own = [entry for entry in entries if entry.region == region]
            if chosen.comparable_ceiling:
                _ceiling(score, column, own, colours)
            for entry in own:
                place = readouts.index(entry.readout)
                x = column + apart * (place - (len(readouts) - 1) / 2)
                colour = colours.series[place % len(colours.series)]
                if entry.layer == NO_LAYER:
                    _none(depth, x, len(layers), colour, colours)
                    continue
                _score(score, x, entry, colour)
                _depth(depth, x, entry, layers, colour, ring)
        score.tick_params(labelbottom=False)
        score.locator_params(axis="y", nbins=5)
        score.set_ylabel(label)
        if chosen is NEXT:
            score.axhline(0.0, color=colours.muted, lw=0.6, ls=(0, (4, 3)), zorder=0)
        if chosen.higher_is_better:
            score.set_ylim(bottom=min(0.0, score.get_ylim()[0]))
        low, high = score.get_ylim()
        score.set_ylim(top=high + 0.05 * (high - low))
        if groups and keys < top:
            edges = [column - 0.5 for column in range(len(regions))]
            areas.brackets(score, regions, groups, edges, step, colours)
        depth.set_ylim(len(layers) - 0.4, -0.6)
        depth.set_yticks(range(len(layers)))
        depth.set_yticklabels([clean(layer) for layer in layers], parse_math=False)
        depth.grid(axis="y", color=colours.faint, lw=0.4)
        depth.set_axisbelow(True)
        depth.set_xticklabels(names, rotation=90 if turned else 0, parse_math=False)
    return figure


def _range(entries: Sequence[BestLayer], metric: Metric, ceiling: bool) -> tuple[float, float]:
    """Least and greatest number of the upper axis."""
    shown = [number for entry in entries for number in (entry.value, entry.low, entry.high)]
    shown += [entry.ceiling for entry in entries] if ceiling else []
    finite = [number for number in shown if math.isfinite(number)]
    if metric is NEXT or metric.higher_is_better:
        finite.append(0.0)  # which bars are held against
    return min(finite, default=0.0), max(finite, default=1.0)


def _two(label: str) -> str:
    words = label.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _ceiling(axes: Axes, x: float, own: Sequence[BestLayer], theme: style.Theme) -> None:
    known = [entry.ceiling for entry in own if math.isfinite(entry.ceiling)]
    if known:
        axes.plot([x - 0.38, x + 0.38], [known[0]] * 2, color=theme.muted, lw=0.9)


def _score(axes: Axes, x: float, entry: BestLayer, colour: str) -> None:
    if math.isfinite(entry.low) or math.isfinite(entry.high):
        low = entry.low if math.isfinite(entry.low) else entry.value
        high = entry.high if math.isfinite(entry.high) else entry.value
        axes.plot([x, x], [low, high], color=colour, lw=1.2, solid_capstyle="butt")
    axes.plot(x, entry.value, "o", ms=3.5, mew=0, color=colour)


def _none(axes: Axes, x: float, n_layers: int, colour: str, theme: style.Theme) -> None:
    """Say that a region has no best layer."""
    axes.text(
        x,
        (n_layers - 1) / 2,
        NO_LAYER,
        rotation=90,
        ha="center",
        va="center",
        fontsize=style.SMALL,
        color=colour,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.0},
    )


def _depth(
    axes: Axes, x: float, entry: BestLayer, layers: Sequence[str], colour: str, ring: float
) -> None:
    shares = entry.probabilities or {}
    for layer, share in shares.items():
        if layer in layers and share > 0.005:
            axes.plot(
                x,
                layers.index(layer),
                "o",
                ms=ring * math.sqrt(share),
                mew=0,
                color=colour,
                alpha=0.55,
            )
    axes.plot(x, layers.index(entry.layer), "o", ms=ring, mfc="none", mec=colour, mew=0.9)


def _sizes(figure: Figure, left: float, top: float, ring: float, theme: style.Theme) -> None:
    """Say which dot stands for which share of draws."""
    width, height = figure.get_size_inches()
    at = left
    style.write(figure, at, top, "best in", fontsize=style.SMALL, color=theme.muted)
    at += style.text_width("best in", style.SMALL) + 0.12
    for share in SHARES:
        text = f"{share:.0%}" + (" of draws" if share == SHARES[-1] else ",")
        figure.add_artist(
            Line2D(
                [at / width],
                [1 - (top + 0.05) / height],
                marker="o",
                markersize=ring * math.sqrt(share),
                markeredgewidth=0,
                color=theme.muted,
            )
        )
        style.write(figure, at + 0.08, top, text, fontsize=style.SMALL, color=theme.muted)
        at += 0.08 + style.text_width(text, style.SMALL) + 0.14


def _keys(
    figure: Figure,
    readouts: Sequence[str],
    top: float,
    left: float,
    ceiling: bool,
    theme: style.Theme,
) -> None:
    at = left
    for index, readout in enumerate(readouts):
        text = clean(readout)
        colour = theme.series[index % len(theme.series)]
        style.write(figure, at, top, text, fontsize=style.SMALL, color=colour, fontweight="bold")
        at += style.text_width(text, style.SMALL) * 1.15 + 0.15
    if ceiling:
        style.write(figure, at, top, "\N{EM DASH} ceiling", fontsize=style.SMALL, color=theme.muted)
