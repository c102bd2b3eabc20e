"""The figures that compare studies: readouts and layers of a region unit by unit, the best layers of all regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.export.figures.drawn import Drawn
from studies.names import escape
from studies.results.scores import Evaluated
from studies.results.sure import ahead, divisors
from tuner.figures import captions

if TYPE_CHECKING:
    from studies.workspace import Workspace
    from tuner.figures.best_layers import BestLayer
    from tuner.figures.metrics import Metric


def compare(workspace: Workspace, found: Sequence[Evaluated], metric: Metric, drawn: Drawn) -> None:
    """Readouts and layers of each region unit by unit, and the best layers of all regions."""
    from tuner.figures.panels import NO_LAYER, failed, pending

    usable = [one for one in found if not pending(one.row) and not failed(one.row)]
    for region in dict.fromkeys(one.spec.key.region for one in found):
        mine = sorted((one for one in usable if one.spec.key.region == region), key=_loss)
        for stem, pair, reason in (
            ("units_by_readout", _two_readouts(mine), "needs two readouts that fitted"),
            ("units_by_layer", _two_layers(mine), "needs two layers that one readout fitted"),
        ):
            name = f"{stem}_{escape(region)}"
            if stem not in drawn.wanted:
                continue
            if pair is None:
                drawn.skip(name, reason)
            elif not _defined(pair, metric):
                drawn.skip(name, f"no unit has a {metric.label}")
            else:
                _scatter(workspace, region, pair, metric, name, drawn)
    backbones = dict.fromkeys(one.spec.key.backbone for one in found)
    for backbone in backbones if "best_layer_by_region" in drawn.wanted else ():
        stem = "best_layer_by_region"
        stem += "" if len(backbones) == 1 else f"_{escape(backbone)}"
        every = [one for one in found if one.spec.key.backbone == backbone]
        if len({one.spec.key.layer for one in every}) < 2:
            drawn.skip(stem, "needs two layers to compare")
            continue
        entries = _best_entries(every, metric)
        if all(entry.layer == NO_LAYER for entry in entries):
            drawn.skip(stem, f"no fit that did not fail has a {metric.label}")
            continue
        _best_layers(workspace, every, entries, metric, stem, drawn)


def _loss(one: Evaluated) -> float:
    return float(one.row["validation_loss"])


Pair = tuple[Evaluated, Evaluated]


def _two_readouts(mine: Sequence[Evaluated]) -> Pair | None:
    """The best study of a region, and the best one with another readout of the same backbone."""
    for other in mine[1:]:
        key = other.spec.key
        if key.readout != mine[0].spec.key.readout and key.backbone == mine[0].spec.key.backbone:
            return other, mine[0]
    return None


def _two_layers(mine: Sequence[Evaluated]) -> Pair | None:
    """The best study of a region, and the one at the next best layer, with the same backbone and readout."""
    for other in mine[1:]:
        key, best = other.spec.key, mine[0].spec.key
        if (key.backbone, key.readout) == (best.backbone, best.readout):
            return other, mine[0]
    return None


def _scores(one: Evaluated, metric: Metric) -> NDArray[np.float64]:
    return np.array([unit.get(metric.name, math.nan) for unit in one.units], dtype=np.float64)


def _defined(pair: Pair, metric: Metric) -> bool:
    return bool(np.isfinite(_scores(pair[0], metric) + _scores(pair[1], metric)).any())


def _surely(workspace: Workspace, pair: Pair) -> tuple[int, int]:
    """Of how many units the second study's validation loss is surely lower than the first's, and surely higher."""
    each = divisors(workspace, pair[0].spec.units)
    gaps = [
        ahead(workspace, (pair[1], place), [(pair[0], place)], each[:, place])
        for place in range(each.shape[1])
    ]
    return sum(bool(g.low[0] > 0) for g in gaps), sum(bool(g.high[0] < 0) for g in gaps)


def _scatter(
    workspace: Workspace, region: str, pair: Pair, metric: Metric, stem: str, drawn: Drawn
) -> None:
    from tuner.figures.scatter import unit_scatter

    first, second = (one.spec.key for one in pair)
    figure = unit_scatter(
        _scores(pair[0], metric),
        _scores(pair[1], metric),
        names=(f"{first.readout}, {first.layer}", f"{second.readout}, {second.layer}"),
        metric=metric.name,
        title=f"Region {region} \N{MIDDLE DOT} {first.backbone}",
        about=captions.unit_by_unit([one.row for one in pair], metric, drawn.basis),
        surely=_surely(workspace, pair),
        **drawn.options(width=False),
    )
    drawn.write(figure, stem)


def _best_entries(found: Sequence[Evaluated], metric: Metric) -> list[BestLayer]:
    """Best study per region and readout, and how often each layer is the best of a bootstrap draw."""
    from tuner.figures.best_layers import BestLayer
    from tuner.figures.metrics import number
    from tuner.figures.panels import NO_LAYER, best_row, failed, pending
    from tuner.scores import best_choice_probability

    contests: dict[tuple[str, str], list[Evaluated]] = {}
    for one in found:
        if not pending(one.row):
            contests.setdefault((one.spec.key.region, one.spec.key.readout), []).append(one)
    out = []
    for (region, readout), every in contests.items():
        mine = [one for one in every if not failed(one.row)]
        row = best_row(one.row for one in mine)
        if row is None:
            out.append(BestLayer(region, readout, NO_LAYER, math.nan))
            continue
        best = next(one for one in mine if one.row is row)
        if math.isnan(number(best.row.get(metric.name))):
            continue
        losses: Mapping[str, NDArray[np.float64]] = {
            one.spec.key.layer: one.image_losses for one in mine if one.image_losses is not None
        }
        groups = best.image_groups
        shares = best_choice_probability(losses, groups=groups) if len(losses) > 1 else {}
        if len(losses) == 1 < len(every):
            shares = dict.fromkeys(losses, 1.0)  # no other layer tells anything
        out.append(best.as_best_layer(metric.name, shares))
    return out


def _best_layers(
    workspace: Workspace,
    every: Sequence[Evaluated],
    entries: Sequence[BestLayer],
    metric: Metric,
    stem: str,
    drawn: Drawn,
) -> None:
    from tuner.figures.best_layers import ONE_CUT, best_layers

    layers = dict(sorted({one.spec.layer_index: one.spec.key.layer for one in every}.items()))
    figure = best_layers(
        entries,
        list(layers.values()),
        metric=metric.name,
        title=f"Best layer of each region \N{MIDDLE DOT} {every[0].spec.key.backbone}",
        about=captions.scores([one.row for one in every], metric, drawn.basis),
        bars=captions.interval(drawn.basis),
        groups=workspace.areas,
        **drawn.options(),
    )
    drawn.write(figure, stem)
    if any(entry.probabilities for entry in entries):
        drawn.say(f"best_layer_by_region: shares of draws in which a layer is best; {ONE_CUT}")
