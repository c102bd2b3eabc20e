"""Which network explains which region: a panel for each region, a line for each network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tuner.figures import areas, captions, style
from tuner.figures.captions import Basis
from tuner.figures.metrics import Metric, clean, metric_named, number
from tuner.figures.panels import NOT_SURE, failed, region_order

Row = Mapping[str, Any]

LINE = 0.16  # inches, of one network
NARROW, WIDE = 1.0, 1.4  # inches across a panel
GAP = 0.14
LABEL = 0.12  # of a further line of an axis's label
LONGEST = 34  # characters of a network's name
UNTRAINED, BASELINE = "untrained", "baseline"


def networks(
    rows: Sequence[Row],
    *,
    metric: str = "test_correlation",
    basis: Basis | None = None,
    groups: Mapping[str, str] | None = None,
    simulated: bool = False,
    theme: style.ThemeName = "light",
    title: str = "Networks against regions",
) -> Figure:
    """Draw the best layer of every network for every region, ordered by the mean over regions.

    A dot is a network's best layer, its colour the layer's place in depth, with the 95 % interval where it is known;
    a cross a fit that failed, at the upper end of a line that is one's; a diamond all layers and readouts together. Pixels
    and the Gabor bank are lines through all networks, untrained networks a band between their least and their greatest; one
    alone is a line and its interval.

    Parameters
    ----------
    rows
        One per network and region: ``network``, ``kind`` (``network``, ``baseline`` or ``untrained``), ``region``, ``depth``
        (0 to 1), ``fit_failed``, the metric and, where known, ``<metric>_low``, ``<metric>_high``, ``stacked_<metric>``.
    metric
        Column that is drawn.
    basis
        What the scores are over.
    groups
        Region to area: regions of one area stand together, each with its area's name.
    simulated
        Whether the recording is.
    theme
        ``"light"`` or ``"dark"``.
    title
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the metric does not exist.
    ValueError
        If there are no rows.
    """
    if not rows:
        raise ValueError("no networks to draw")
    chosen, colours = metric_named(metric), style.theme_named(theme)
    regions = region_order(rows, groups)
    named = [row for row in rows if row["kind"] not in (UNTRAINED, BASELINE)]
    names = _ordered(named, chosen)
    labels = {name: clean(name.removeprefix("timm/"), LONGEST) for name in names}
    left = 0.1 + max(style.widest(labels.values(), style.SMALL), 0.5) + 0.08
    most = max(1, int((style.PAGE - left) / (NARROW + GAP)))
    lines = math.ceil(len(regions) / most)
    across = math.ceil(len(regions) / lines)
    panel = min(WIDE, (style.PAGE - left) / across - GAP)
    width = max(left + across * (panel + GAP), style.COLUMN)
    tall = max(LINE * max(len(names), 1), 0.5)
    known = basis or Basis()
    sub = style.subtitle(
        "best of the layers and readouts that were tried of each network, by validation loss",
        captions.of_images(chosen, known),
        f"bars: {captions.interval(known)}" if _any(rows, f"{metric}_low") else "",
        simulated=simulated,
    )
    words = style.wrap(chosen.label, panel, style.NORMAL)
    keys = _keys(rows, metric)
    room = style.wrap(captions.joined(*keys), width - 0.2, style.SMALL)
    with style.styled(colours):
        top = style.head_height(title, sub, width) + 0.1
        block = 0.2 + tall + 0.42
        under = LABEL * (len(words) - 1)
        bottom = under + 0.13 * len(room) + 0.55
        figure = style.new_figure(width, top + lines * block + bottom, colours)
        style.head(figure, title, sub, colours)
        limits = _limits(rows, chosen)
        for number_, region in enumerate(regions):
            line, column = divmod(number_, across)
            axes = style.place(
                figure, left + column * (panel + GAP), top + line * block + 0.2, panel, tall
            )
            own = [row for row in rows if str(row["region"]) == region]
            _panel(axes, own, names, chosen, limits, colours)
            axes.set_title(
                areas.with_area(region, groups),
                loc="left",
                fontweight="bold",
                pad=3,
                parse_math=False,
            )
            axes.set_yticks(range(len(names)))
            axes.set_yticklabels(
                [labels[name] for name in names] if column == 0 else [], parse_math=False
            )
            if number_ + across >= len(regions):
                axes.set_xlabel("\n".join(words))
        level = top + lines * block + under
        for text in room:
            style.write(figure, 0.1, level, text, fontsize=style.SMALL, color=colours.muted)
            level += 0.13
        _depth_bar(figure, level + 0.06, colours)
    return figure


def _ordered(rows: Sequence[Row], metric: Metric) -> list[str]:
    """Networks, the best by the mean over regions first."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        value = number(row.get(metric.name))
        scores.setdefault(str(row["network"]), []).append(0.0 if math.isnan(value) else value)
    sign = -1 if metric.higher_is_better else 1
    return sorted(scores, key=lambda name: sign * sum(scores[name]) / len(scores[name]))


def _any(rows: Sequence[Row], column: str) -> bool:
    return any(not math.isnan(number(row.get(column))) for row in rows)


def _limits(rows: Sequence[Row], metric: Metric) -> tuple[float, float]:
    columns = [metric.name, f"{metric.name}_low", f"{metric.name}_high", f"stacked_{metric.name}"]
    values = [number(row.get(column)) for row in rows for column in columns]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    low = max(min(low, 0.0), -0.5) if metric.higher_is_better else low
    edge = 0.04 * max(high - low, 0.1)
    return low - edge, high + edge


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    names: Sequence[str],
    metric: Metric,
    limits: tuple[float, float],
    theme: style.Theme,
) -> None:
    axes.set_xlim(*limits)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=theme.faint, lw=0.4)
    axes.set_axisbelow(True)
    untrained = [row for row in rows if row["kind"] == UNTRAINED]
    scores = [number(row.get(metric.name)) for row in untrained]
    scores = [value for value in scores if math.isfinite(value)]
    band = scores
    if len(scores) == 1:
        limits_ = [
            number(r.get(f"{metric.name}_{end}")) for r in untrained for end in ("low", "high")
        ]
        band = [value for value in limits_ if math.isfinite(value)] or scores
    if scores:
        axes.axvspan(min(band), max(band), color=theme.muted, alpha=0.25, lw=0)
        mean = sum(scores) / len(scores)
        axes.axvline(mean, color=theme.muted, lw=0.8)
        if all(failed(row) for row in untrained):
            _cross(axes, mean, theme.muted)
    for index, name in enumerate(_baselines(rows)):
        row = next(row for row in rows if str(row["network"]) == name)
        value, colour = number(row.get(metric.name)), theme.series[1 - index % 2]
        if math.isfinite(value):
            axes.axvline(value, color=colour, lw=0.9, ls=_dash(index))
            if failed(row):
                _cross(axes, value, colour)
    palette = mpl.colormaps[style.SEQUENTIAL]
    for row in rows:
        if str(row["network"]) not in names:
            continue
        y = names.index(str(row["network"]))
        value = number(row.get(metric.name))
        low, high = number(row.get(f"{metric.name}_low")), number(row.get(f"{metric.name}_high"))
        together = number(row.get(f"stacked_{metric.name}"))
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [y, y], color=theme.muted, lw=0.9, solid_capstyle="butt")
        if math.isfinite(together):
            axes.plot(together, y, "D", ms=3.6, mfc="none", mec=theme.ink, mew=0.7)
        if math.isfinite(value):
            place = number(row.get("depth"))
            face = theme.empty if math.isnan(place) else palette(place)
            if failed(row):
                axes.plot(value, y, "x", ms=3.6, mec=theme.muted, mew=0.9)
            else:
                axes.plot(value, y, "o", ms=4.2, mfc=face, mec=theme.ink, mew=0.4)
    axes.locator_params(axis="x", nbins=3)


def _cross(axes: Axes, value: float, colour: str) -> None:
    """Mark a line as that of a fit that failed, at its upper end, away from the networks' own crosses."""
    place = axes.get_xaxis_transform()
    axes.plot(value, 1, "x", transform=place, clip_on=False, ms=3.6, mec=colour, mew=0.9)


def _baselines(rows: Sequence[Row]) -> list[str]:
    return sorted({str(row["network"]) for row in rows if row["kind"] == BASELINE})


def _dash(index: int) -> str:
    return "--" if index % 2 == 0 else ":"


def _all_failed(rows: Sequence[Row]) -> bool:
    """Whether of some region no untrained network's fit is surely better than the mean, which marks their line."""
    regions: dict[str, bool] = {}
    for row in rows:
        if row["kind"] == UNTRAINED:
            region = str(row["region"])
            regions[region] = regions.get(region, True) and failed(row)
    return any(regions.values())


def _keys(rows: Sequence[Row], metric: str) -> list[str]:
    """Explain only what occurs."""
    keys = []
    if any(failed(row) for row in rows if row["kind"] != UNTRAINED) or _all_failed(rows):
        keys.append(f"cross: {NOT_SURE}")
    if _any(rows, f"stacked_{metric}"):
        keys.append("diamond: all layers and readouts together")
    for index, name in enumerate(_baselines(rows)):
        keys.append(f"{'dashed' if index % 2 == 0 else 'dotted'} line: {clean(name)}")
    untrained = {str(row["network"]) for row in rows if row["kind"] == UNTRAINED}
    if untrained:
        count = len(untrained)
        keys.append(
            f"grey line: the untrained network{', band: its interval' if _any(rows, f'{metric}_low') else ''}"
            if count == 1
            else f"band: {count} untrained networks, line: their mean"
        )
    return keys


def _depth_bar(figure: Figure, top: float, theme: style.Theme) -> None:
    style.write(figure, 0.1, top, "depth of the best layer", fontsize=style.SMALL, color=theme.ink)
    axes = style.place(figure, 0.18, top + 0.15, 1.4, 0.08)
    mappable = ScalarMappable(Normalize(0, 1), mpl.colormaps[style.SEQUENTIAL])
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, pad=1.5)
    bar.set_ticks([0, 1])
    bar.set_ticklabels(["first", "last"])
