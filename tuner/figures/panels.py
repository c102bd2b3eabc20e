"""The heatmap table arranged as panels: backbone x readout, layers in depth order x regions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.figures.captions import STACKED
from tuner.figures.metrics import METRICS, Metric, metric_named, number

Row = Mapping[str, Any]

NO_LAYER = "none"
"""In the place of a best layer where no fit is surely better than predicting the mean."""

BEST = "best of the layers shown, by validation loss"
"""What the frame of a cell means."""

NOT_SURE = "not surely better than predicting the mean"
"""What is said of a fit that failed."""

HOW_TOLD = "held-out images; each by a test of its own, corrected for its trials"
"""How it was found that a fit failed: of two fits the one of the higher score may have."""

NOT_TOLD = "no fit is surely better than predicting the mean"
"""Why there is no best layer."""

WORSE = "higher validation loss than the closed form (smooth) of the same layer and region"
"""What the mark of ``below_smooth`` means."""


@dataclass(frozen=True)
class Panel:
    """One backbone with one readout.

    Attributes
    ----------
    backbone, readout
        Names of the backbone and of the readout.
    layers
        In depth order: all that any readout of this backbone was fitted to.
    cells
        ``(layer, region)`` to the study's row.
    best
        Region to its best layer: lowest validation loss among the fits that did not fail.
    places
        ``(layer, region)`` where there is a fit or one could be made; elsewhere nothing is drawn. A stack is of no layer,
        and closed forms beside the studies are all there.
    """

    backbone: str
    readout: str
    layers: tuple[str, ...]
    cells: Mapping[tuple[str, str], Row]
    best: Mapping[str, str]
    places: frozenset[tuple[str, str]]


def failed(row: Row) -> bool:
    """Whether a study's best fit is not surely better than predicting the mean."""
    return _true(row.get("fit_failed"))


def below(row: Row) -> bool:
    """Whether the closed form of a study's layer and region has the lower validation loss."""
    return _true(row.get("below_smooth"))


def _true(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() == "true"
    unknown = isinstance(value, float) and math.isnan(value)  # an empty cell, as pandas reads it
    return bool(value) and not unknown


def pending(row: Row) -> bool:
    """Whether a study has no finished fit yet."""
    return not failed(row) and math.isnan(number(row.get("validation_loss")))


def region_order(rows: Iterable[Row], groups: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Regions in order of first appearance, those of one area together."""
    regions = list(dict.fromkeys(str(row["region"]) for row in rows))
    if groups:
        areas = list(dict.fromkeys(groups.get(region, region) for region in regions))
        regions.sort(key=lambda region: areas.index(groups.get(region, region)))
    return tuple(regions)


def best_layers(rows: Iterable[Row]) -> dict[str, str]:
    """Region to the layer of lowest validation loss; ties go to the shallower.

    Parameters
    ----------
    rows
        Of one backbone and one readout. Fits that failed or have not finished are no candidates.

    Returns
    -------
    dict
    """
    contests: dict[str, list[Row]] = {}
    for row in rows:
        contests.setdefault(str(row["region"]), []).append(row)
    best = {region: best_row(mine) for region, mine in contests.items()}
    return {region: str(row["layer"]) for region, row in best.items() if row is not None}


def best_row(rows: Iterable[Row]) -> Row | None:
    """Return the row of lowest validation loss among fits that did not fail, ties to the shallower layer.

    Everything that names a best layer asks here. None where no fit is surely better than predicting the mean: then no
    layer is the best, and what shows one says :data:`NO_LAYER`.

    Examples
    --------
    >>> noise = {"layer": "a", "layer_index": 0, "validation_loss": 0.98, "fit_failed": True}
    >>> fitted = {"layer": "b", "layer_index": 1, "validation_loss": 0.99, "fit_failed": False}
    >>> best_row([noise, fitted])["layer"], best_row([noise])
    ('b', None)
    """
    there = [row for row in rows if not failed(row) and not pending(row)]
    return min(
        there,
        key=lambda row: (number(row["validation_loss"]), int(row["layer_index"])),
        default=None,
    )


def panels(rows: Sequence[Row], references: Sequence[Row] = ()) -> list[list[Panel]]:
    """Arrange rows into panels, one inner list per backbone, readouts in the same order in each.

    Parameters
    ----------
    rows
        Rows of the heatmap table, one per study.
    references
        Rows of closed forms that are shown beside them.

    Returns
    -------
    list of list of Panel
    """
    given = {str(row["readout"]) for row in references} | {STACKED}
    rows = [*rows, *references]
    regions = {str(row["region"]) for row in rows}
    readouts = list(dict.fromkeys(str(row["readout"]) for row in rows))
    result = []
    for backbone in dict.fromkeys(str(row["backbone"]) for row in rows):
        own = [row for row in rows if str(row["backbone"]) == backbone]
        depth = {str(row["layer"]): int(row["layer_index"]) for row in own}
        layers = tuple(sorted(depth, key=lambda layer: depth[layer]))
        line = []
        for readout in readouts:
            chosen = [row for row in own if str(row["readout"]) == readout]
            cells = {(str(row["layer"]), str(row["region"])): row for row in chosen}
            # One layer is not better than others that are not shown.
            several = len({layer for layer, _ in cells}) > 1
            best = best_layers(chosen) if several else {}
            places = set(cells)
            if readout not in given:
                places |= {(layer, region) for layer in layers for region in regions}
                places -= {(STACKED, region) for region in regions}
            line.append(Panel(backbone, readout, layers, cells, best, frozenset(places)))
        result.append(line)
    return result


def has_test(rows: Iterable[Row]) -> bool:
    """Whether any study was scored on test images."""
    return any(not math.isnan(number(row.get("test_correlation"))) for row in rows)


def choose_metric(rows: Sequence[Row], metric: str | None) -> Metric:
    """Return the metric asked for, or the best the rows can show."""
    if metric is not None:
        return metric_named(metric)
    return METRICS["test_correlation" if has_test(rows) else "validation_correlation"]


def ceilings(rows: Iterable[Row]) -> dict[str, float]:
    """Region to its noise ceiling, where any study of it has one."""
    found: dict[str, float] = {}
    for row in rows:
        value = number(row.get("noise_ceiling"))
        if not math.isnan(value):
            found.setdefault(str(row["region"]), value)
    return found


def scale(rows: Sequence[Row], metric: Metric, *, ceiling: bool) -> tuple[float, float]:
    """Limits of the one colour scale that all panels share.

    Scores start at 0 (a negative one is drawn as 0 and written as it is), losses end at 1; fits
    that failed are not on the scale.

    Parameters
    ----------
    rows
        All rows shown, references included.
    metric
        The metric that is drawn.
    ceiling
        Whether noise ceilings are drawn on the same scale.

    Returns
    -------
    low, high
    """
    values = [number(row.get(metric.name)) for row in rows if not failed(row)]
    if ceiling:
        values += list(ceilings(rows).values())
    finite = [value for value in values if math.isfinite(value)]
    if not metric.higher_is_better:
        low = min([value for value in finite if value >= 0], default=0.0)
        return min(math.floor(low * 10) / 10, 0.9), 1.0
    high = max(finite, default=1.0)
    return 0.0, max(math.ceil(round(high * 10, 6)) / 10, 0.1)
