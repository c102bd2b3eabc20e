"""Which layer explains which region: panels of backbone x readout."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from tuner.figures import areas, captions, cells, style
from tuner.figures.against import against
from tuner.figures.captions import Basis
from tuner.figures.cells import LINE, MARGIN
from tuner.figures.metrics import Metric, clean, number, short
from tuner.figures.panels import (
    Panel,
    Row,
    ceilings,
    choose_metric,
    has_test,
    panels,
    region_order,
    scale,
)

GAP = 0.25  # between panels side by side
AREA_GAP = 0.3  # cells between areas
STRIP_GAP = 0.35  # cells between the layers and the ceilings


@dataclass(frozen=True)
class _Layout:
    """Everything measured before anything is drawn, in inches."""

    regions: tuple[str, ...]
    offsets: tuple[float, ...]  # left edge of each region's column, in cells
    cell: tuple[float, float]
    labels: float  # width of the layers' names
    turned: bool  # region names upright
    two: bool  # panel titles broken into network and readout
    below: float  # height of the region names
    above: float  # height of a panel's title and area names
    strip: bool  # whether there are ceilings
    untrained: Collection[str]  # networks that have learned nothing

    @property
    def width(self) -> float:
        return (self.offsets[-1] + 1) * self.cell[0]

    def height(self, n_layers: int) -> float:
        return (n_layers + (1 + STRIP_GAP if self.strip else 0)) * self.cell[1]


def heatmap(
    rows: Sequence[Row],
    *,
    metric: str | None = None,
    basis: Basis | None = None,
    simulated: bool = False,
    references: Sequence[Row] = (),
    groups: Mapping[str, str] | None = None,
    theme: style.ThemeName = "light",
    title: str | None = None,
) -> Figure:
    """Draw the table of studies as heatmaps on one shared scale.

    A panel per backbone (down) and readout (across); layers in depth order, input first, against
    regions. The best layer of a region, by validation loss, is framed. A fit that is not
    surely better than predicting the mean is hatched and its score has no colour; a study without a finished fit is empty. A
    corner marks a study whose layer and region are predicted better without a search (``below_smooth``).

    Parameters
    ----------
    rows
        Of the heatmap table, one per study: dicts with the columns of ``heatmap.csv``.
    metric
        Which column; None: test correlation, or validation correlation without test images.
    basis
        What the scores rest on, which is said under the title; None: what the rows tell of it.
    simulated
        Whether the recording is; it is then said in the figure.
    references
        More rows (a closed-form ridge, say), drawn as panels beside the studies.
    groups
        Region to area: regions of one area stand together under its name.
    theme
        ``"light"`` or ``"dark"``.
    title
        None: the metric's name.

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
        raise ValueError("no studies to draw")
    everything = [*rows, *references]
    chosen = choose_metric(rows, metric)
    colours = style.theme_named(theme)
    grid = panels(rows, references)
    tested = has_test(rows)
    known = basis or Basis(n_test=None if tested else 0)
    ceiling = ceilings(rows) if tested and chosen.comparable_ceiling else {}
    limits = scale(everything, chosen, ceiling=chosen.comparable_ceiling and bool(ceiling))
    palette = mpl.colormaps[
        style.SEQUENTIAL if chosen.higher_is_better else f"{style.SEQUENTIAL}_r"
    ]
    layout = _measure(
        grid, region_order(everything, groups), groups, chosen, ceiling, known.untrained
    )
    heading = title or chosen.label[0].upper() + chosen.label[1:]
    sub = style.subtitle(
        captions.scores(rows, chosen, known),
        captions.beside(references),
        against(rows, chosen, known.untrained),
        simulated=simulated,
    )
    with style.styled(colours):
        return _draw(grid, layout, chosen, ceiling, limits, palette, colours, groups, heading, sub)


def _measure(
    grid: list[list[Panel]],
    regions: tuple[str, ...],
    groups: Mapping[str, str] | None,
    metric: Metric,
    ceiling: Mapping[str, float],
    untrained: Collection[str],
) -> _Layout:
    names = [clean(region, 24) for region in regions]
    texts = {
        short(number(row.get(metric.name)))
        for line in grid
        for panel in line
        for row in panel.cells.values()
    }
    texts |= {short(value) for value in ceiling.values()}
    roomy = len(regions) <= 6
    width = max(style.widest(texts, style.SMALL) + 0.09, 0.42 if roomy else 0.25)
    area = [groups.get(region, region) for region in regions] if groups else []
    wanted = style.widest(names, style.SMALL) + 0.08
    if wanted <= max(width, 0.6):
        width, turned = max(width, wanted), False
    else:
        turned = True
    offsets, at = [], 0.0
    for index in range(len(regions)):
        if area and index and area[index] != area[index - 1]:
            at += AREA_GAP
        offsets.append(at)
        at += 1
    layers = [clean(layer) for line in grid for layer in line[0].layers]
    titles = [_title(panel, untrained) for line in grid for panel in line if panel.cells]
    columns = offsets[-1] + 1
    whole = _room(captions.joined(*title) for title in titles)
    two = whole > 1.3 * width * columns
    # a panel is never narrower than its own title
    needed = _room(part for title in titles for part in title) if two else whole
    width = max(width, needed / columns)
    strip = ["ceiling"] if ceiling else []
    return _Layout(
        regions=regions,
        offsets=tuple(offsets),
        cell=(width, 0.22 if roomy else 0.175),
        labels=style.widest([*layers, *strip], style.SMALL) + 0.06,
        turned=turned,
        below=(style.widest(names, style.SMALL) if turned else LINE) + 0.06,
        two=two,
        above=(0.33 if two else 0.2) + (areas.ROOM if areas.finer(regions, groups) else 0.0),
        strip=bool(ceiling),
        untrained=untrained,
    )


def _title(panel: Panel, untrained: Collection[str]) -> tuple[str, str]:
    """What a panel is called: its network and its readout."""
    learned = " (random)" if panel.backbone in untrained else ""
    return f"{clean(panel.backbone)}{learned}", clean(panel.readout)


def _room(titles: Iterable[str]) -> float:
    """Width in inches that the longest of some panel titles needs, in bold."""
    return style.widest(titles, style.NORMAL) * 1.15


def _draw(
    grid: list[list[Panel]],
    layout: _Layout,
    metric: Metric,
    ceiling: Mapping[str, float],
    limits: tuple[float, float],
    palette: Colormap,
    theme: style.Theme,
    groups: Mapping[str, str] | None,
    heading: str,
    sub: str,
) -> Figure:
    columns = len(grid[0])
    inner = layout.labels + columns * layout.width + (columns - 1) * GAP
    width = max(inner + 2 * MARGIN, style.COLUMN)
    entries = cells.legend_entries(grid, metric)
    flow, legend = cells.flow(entries, width - 2 * MARGIN)
    top = style.head_height(heading, sub, width, MARGIN) + 0.08
    rows = [layout.above + layout.height(len(line[0].layers)) + layout.below for line in grid]
    bar = 0.5
    height = top + sum(rows) + 0.12 * (len(rows) - 1) + 0.14 + bar + legend + MARGIN
    figure = style.new_figure(width, height, theme)
    style.head(figure, heading, sub, theme, MARGIN)
    norm = Normalize(*limits, clip=True)
    for line, used in zip(grid, rows, strict=True):
        left = MARGIN + layout.labels
        first = next(panel for panel in line if panel.cells)
        for panel in line:
            if not panel.cells:  # nothing was to be fitted there
                left += layout.width + GAP
                continue
            axes = style.place(
                figure, left, top + layout.above, layout.width, layout.height(len(panel.layers))
            )
            _panel(
                axes, panel, layout, metric, ceiling, norm, palette, theme, groups, panel is first
            )
            left += layout.width + GAP
        top += used + 0.12
    top += 0.14 - 0.12
    cells.colour_bar(
        figure, top, min(2.4, width - 2 * MARGIN - 0.3), metric, norm, palette, grid, theme
    )
    cells.legend(figure, top + bar, flow, theme)
    return figure


def _panel(
    axes: Axes,
    panel: Panel,
    layout: _Layout,
    metric: Metric,
    ceiling: Mapping[str, float],
    norm: Normalize,
    palette: Colormap,
    theme: style.Theme,
    groups: Mapping[str, str] | None,
    first: bool,
) -> None:
    depth = len(panel.layers)
    total = depth + (1 + STRIP_GAP if layout.strip else 0)
    axes.set(xlim=(0, layout.offsets[-1] + 1), ylim=(total, 0))
    axes.axis("off")
    for column, region in zip(layout.offsets, layout.regions, strict=True):
        for index, layer in enumerate(panel.layers):
            if (layer, region) not in panel.places:
                continue
            row = panel.cells.get((layer, region))
            cells.cell(axes, column, index, row, metric, norm, palette, theme)
        if region in panel.best:
            cells.frame(axes, column, panel.layers.index(panel.best[region]), theme)
        if layout.strip:
            value = ceiling.get(region, math.nan)
            coloured = metric.comparable_ceiling and math.isfinite(value)
            face = palette(norm(value)) if coloured else theme.paper
            ink = style.on_colour(palette(norm(value))) if coloured else theme.muted
            cells.box(
                axes, column, depth + STRIP_GAP, face, theme.faint if not coloured else theme.paper
            )
            cells.number_in(axes, column, depth + STRIP_GAP, short(value), ink)
        axes.text(
            column + 0.5,
            total + 0.05 / layout.cell[1],
            clean(region, 24),
            ha="center",
            va="top",
            rotation=90 if layout.turned else 0,
            fontsize=style.SMALL,
            parse_math=False,
        )
    if first:
        for index, layer in enumerate(panel.layers):
            _label(axes, layout, index + 0.5, clean(layer), theme.ink)
        if layout.strip:
            _label(axes, layout, depth + STRIP_GAP + 0.5, "ceiling", theme.muted)
    title = _title(panel, layout.untrained)
    lift = layout.above - 0.06
    for part in title if layout.two else [captions.joined(*title)]:
        axes.text(
            0,
            -lift / layout.cell[1],
            part,
            ha="left",
            va="top",
            fontsize=style.NORMAL,
            fontweight="bold",
            parse_math=False,
        )
        lift -= LINE
    if groups and areas.finer(layout.regions, groups):
        areas.brackets(axes, layout.regions, groups, layout.offsets, layout.cell[0], theme)


def _label(axes: Axes, layout: _Layout, row: float, text: str, colour: str) -> None:
    axes.text(
        -0.05 / layout.cell[0],
        row,
        text,
        ha="right",
        va="center",
        fontsize=style.SMALL,
        color=colour,
        parse_math=False,
    )
