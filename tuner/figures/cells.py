"""What a heatmap is made of: cells, the frame of the best one, the legend, the colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from tuner.figures import style
from tuner.figures.draws import BANDS
from tuner.figures.metrics import Metric, number, short
from tuner.figures.panels import BEST, HOW_TOLD, NOT_SURE, WORSE, Panel, Row, below, failed, pending

MARGIN = 0.1  # inches
LINE = 0.135  # inches, a line of small text
CORNER = 0.055  # inches, the mark of a cell's corner
INSET = 0.008  # inches, of the best cell's frame


def box(axes: Axes, x: float, y: float, face: object, edge: str, hatch: str | None = None) -> None:
    """Draw one cell's background."""
    axes.add_patch(
        Rectangle(
            (x, y), 1, 1, facecolor=face, edgecolor=edge, linewidth=0.5, hatch=hatch, clip_on=False
        )
    )


def number_in(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    """Write a cell's value."""
    axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=style.SMALL, color=colour)


def cell(
    axes: Axes,
    x: float,
    y: float,
    row: Row | None,
    metric: Metric,
    norm: Normalize,
    palette: Colormap,
    theme: style.Theme,
) -> None:
    """Draw one study: its score in colour and number, hatched without colour if it failed, empty if not run."""
    if row is None or pending(row):
        box(axes, x, y, theme.paper, theme.faint)
        return
    value = number(row.get(metric.name))
    if failed(row):
        box(axes, x, y, theme.empty, theme.faint, hatch="/////")
        number_in(axes, x, y, short(value), theme.muted)
        return
    if math.isnan(value):
        box(axes, x, y, theme.empty, theme.paper)
        number_in(axes, x, y, short(value), theme.muted)
        return
    face = palette(norm(value))
    box(axes, x, y, face, theme.paper)
    number_in(axes, x, y, short(value), style.on_colour(face))
    if below(row):
        corner(axes, x, y, style.on_colour(face))
    limits = row.get(BANDS, {}).get(metric.name)
    if limits is not None:
        band(axes, x, y, [float(norm(limit)) for limit in limits], style.on_colour(face))


def corner(axes: Axes, x: float, y: float, colour: str) -> None:
    """Mark a cell's lower left corner, whatever the cell's shape: a triangle."""
    width, height = _inches(axes, CORNER)
    left, bottom = x + 0.8 * width, y + 1 - 0.8 * height
    axes.add_patch(
        Polygon(
            [(left, bottom), (left + width, bottom), (left, bottom - height)],
            facecolor=colour,
            edgecolor="none",
            clip_on=False,
        )
    )


def _inches(axes: Axes, length: float) -> tuple[float, float]:
    """A length in inches as shares of a cell, across and down."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    side = length * figure.dpi
    (x0, y0), (x1, y1) = axes.transData.inverted().transform([(0, 0), (side, side)])
    return abs(x1 - x0), abs(y1 - y0)


def band(axes: Axes, x: float, y: float, shares: Sequence[float], colour: str) -> None:
    """Draw, along a cell's lower edge as along the colour bar, from where to where draws reach."""
    low, high = (0.08 + 0.84 * min(max(share, 0.0), 1.0) for share in shares)
    axes.plot(
        [x + low, x + max(high, low + 0.04)],
        [y + 0.84, y + 0.84],
        color=colour,
        lw=1.2,
        solid_capstyle="butt",
        clip_on=False,
    )


def frame(axes: Axes, x: float, y: float, theme: style.Theme) -> None:
    """Mark a cell so that it shows on any colour: a dark line around a light one."""
    across, down = _inches(axes, INSET)
    for width, colour in ((2.2, theme.paper), (1.1, theme.accent)):
        axes.add_patch(
            Rectangle(
                (x + across, y + down),
                1 - 2 * across,
                1 - 2 * down,
                fill=False,
                edgecolor=colour,
                linewidth=width,
                clip_on=False,
                zorder=3,
                joinstyle="miter",
            )
        )


def legend_entries(grid: list[list[Panel]], metric: Metric) -> list[tuple[str, str]]:
    """Explain only what occurs."""
    every = [panel for line in grid for panel in line]
    found = [row for panel in every for row in panel.cells.values()]
    entries = []
    if any(panel.best for panel in every):
        entries.append(("frame", BEST))
    if any(failed(row) for row in found):
        entries.append(("hatch", f"{NOT_SURE} ({HOW_TOLD})"))
    if any(below(row) and not failed(row) for row in found):
        entries.append(("corner", WORSE))
    if any(row.get(BANDS) for row in found):
        entries.append(("band", "mean over draws of random weights; bar: from least to greatest"))
    if any(pending(row) for row in found) or any(
        panel.places - panel.cells.keys() for panel in every if panel.cells
    ):
        entries.append(("empty", "no finished fit"))
    usable = [row for row in found if not failed(row) and not pending(row)]
    if any(math.isnan(number(row.get(metric.name))) for row in usable):
        entries.append(("dash", "undefined (no unit has a ceiling, or no test images)"))
    if metric.comparable_ceiling and any(
        not math.isnan(number(row.get("noise_ceiling"))) for row in found
    ):
        entries.append(("none", "ceiling: mean CCmax, the correlation that noise leaves possible"))
    return entries


def flow(
    entries: list[tuple[str, str]], width: float
) -> tuple[list[tuple[str, list[str], float, float]], float]:
    """Place entries left to right, wrapped: (kind, lines, left, top) each, and the height."""
    placed: list[tuple[str, list[str], float, float]] = []
    left, top, deepest = 0.0, 0.0, 1
    for kind, text in entries:
        swatch = 0.0 if kind == "none" else 0.28
        lines = style.wrap(text, width - swatch, style.SMALL)
        needed = swatch + style.widest(lines, style.SMALL) + 0.25
        if left and left + needed - 0.25 > width:
            left, top, deepest = 0.0, top + deepest * LINE + 0.05, 1
        placed.append((kind, lines, left, top))
        left += needed
        deepest = max(deepest, len(lines))
    return placed, top + deepest * LINE


def legend(
    figure: Figure,
    top: float,
    entries: list[tuple[str, list[str], float, float]],
    theme: style.Theme,
) -> None:
    """Draw what :func:`flow` has placed, its upper edge at ``top`` inches."""
    for kind, lines, across, down in entries:
        left, level = MARGIN + across, top + down
        if kind != "none":
            axes = style.place(figure, left, level + 0.005, 0.2, 0.11)
            axes.set(xlim=(0, 1), ylim=(1, 0))
            axes.axis("off")
            left += 0.28
        if kind == "frame":
            frame(axes, 0, 0, theme)
        elif kind == "hatch":
            box(axes, 0, 0, theme.empty, theme.faint, hatch="/////")
        elif kind == "corner":
            box(axes, 0, 0, theme.empty, theme.paper)
            corner(axes, 0, 0, theme.ink)
        elif kind == "band":
            box(axes, 0, 0, theme.empty, theme.paper)
            band(axes, 0, 0, (0.3, 0.7), theme.ink)
        elif kind == "empty":
            box(axes, 0, 0, theme.paper, theme.faint)
        elif kind == "dash":
            box(axes, 0, 0, theme.empty, theme.paper)
            number_in(axes, 0, 0, short(math.nan), theme.muted)
        for line in lines:
            style.write(figure, left, level, line, fontsize=style.SMALL, color=theme.muted)
            level += LINE


def colour_bar(
    figure: Figure,
    top: float,
    width: float,
    metric: Metric,
    norm: Normalize,
    palette: Colormap,
    grid: list[list[Panel]],
    theme: style.Theme,
) -> None:
    """Draw the one scale that all panels share, with arrows where values lie beyond it."""
    values = [
        number(row.get(metric.name))
        for line in grid
        for panel in line
        for row in panel.cells.values()
        if not failed(row)
    ]
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    under = any(value < low for value in values)
    over = any(value > high for value in values)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
        (under, over), "both"
    )
    style.write(figure, MARGIN, top, metric.label, fontsize=style.SMALL, color=theme.ink)
    axes = style.place(figure, MARGIN + 0.08, top + 0.16, width, 0.08)
    bar = figure.colorbar(
        ScalarMappable(norm, palette), cax=axes, orientation="horizontal", extend=extend
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, pad=1.5)
    bar.set_ticks([low, (low + high) / 2, high])
    bar.set_ticklabels([f"{value:.2g}".replace("-", "\N{MINUS SIGN}") for value in bar.get_ticks()])
