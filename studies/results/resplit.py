"""How sure the choice of a layer is: the best settings of every layer, fitted anew on other cuts of the training images.

The search chose settings and layer on one cut. Here each layer's best settings are fitted on K further cuts, each with a
seed of its own for batches and initial weights, all layers on the same ones, and compared on images that they were not
fitted to. Where the search has folds each further cut is into as many folds, so all images are compared. Intervals hold
for all layers of a region together, see :mod:`tuner.scores.layers`. No test image is used, and nothing is chosen by what
comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.database.stores import Stores
from studies.grid import Spec, cohorts
from studies.results.encoders import best_studies
from studies.results.kept_cuts import keep, kept_at, read_kept
from studies.results.on_cuts import Cut, on_layer
from studies.search.forecast_cuts import expected_on_other_cuts
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.progress import Weighed
from tuner.scores.layers import Judged, compare_layers
from tuner.scores.moments import nan_mean

if TYPE_CHECKING:
    from studies.search.calibrate import Span

COLUMNS = (
    "backbone",
    "region",
    "readout",
    "layer",
    "layer_index",
    "chosen",
    "cuts",
    "validation_loss",
    "best_in_cuts",
    "best_in_draws",
    "difference",
    "difference_low",
    "difference_high",
)
"""Of ``resplit.csv``: one row per study. ``difference`` is the loss of this layer minus that of the chosen one; its limits
hold for all layers of the region together."""


@dataclass
class _Contest:
    """Layers that compete for one region: per layer and cut, validation images and their losses ``(images, units)``."""

    specs: list[Spec] = field(default_factory=list)
    losses: dict[str, list[Judged]] = field(default_factory=dict)
    value: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


def resplit(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    cuts: int,
    failed: Collection[str] = (),
    expected: Mapping[tuple[str, ...], Span] | None = None,
) -> list[dict[str, Any]]:
    """Fit the best settings of all selected studies on further cuts and compare the layers.

    What came of it is kept in the cache: asked for again, of the same studies with the same best trials, it is read.

    Parameters
    ----------
    cuts
        Number of further cuts.
    failed
        Names of studies whose fits are not surely better than predicting the mean, which are not chosen.
    expected
        How long its parts take, where that is known already.

    Returns
    -------
    list of dict
        Rows with :data:`COLUMNS`.

    Raises
    ------
    InputError
        If no study has a complete trial, ``cuts`` is not positive, or no unit of a region can be judged on other cuts.
    """
    if cuts < 1:
        raise InputError(f"--resplit {cuts}: must be at least 1")
    ready = {b.spec.name: (b.spec, b.summary) for b in best_studies(workspace, stores, specs)}
    place = kept_at(workspace, ready.values(), cuts)
    there = read_kept(place, failed)
    if there is not None:
        return there
    contests: dict[tuple[str, str, str], _Contest] = {}
    for spec, item in ready.values():
        key = (spec.key.backbone, spec.key.region, spec.key.readout)
        contest = contests.setdefault(key, _Contest())
        contest.specs.append(spec)
        assert item.loss is not None
        contest.value[spec.key.layer] = item.loss  # what heatmap.csv has, and chooses by
        if spec.name in failed:
            contest.failed.add(spec.key.layer)
    layers: dict[tuple[str, str], list[list[Spec]]] = {}
    for part in cohorts([spec for spec, _ in ready.values()]).values():
        layers.setdefault((part[0].key.backbone, part[0].key.layer), []).append(part)
    if not expected:
        expected = expected_on_other_cuts(workspace, [spec for spec, _ in ready.values()], cuts)
    weights = {part: span.value for part, span in expected.items()}
    far = Weighed("fitting on other cuts", weights, workspace.progress)
    others = [Cut.drawn(workspace, k) for k in range(1, cuts + 1)]
    for parts in layers.values():
        for members, losses in on_layer(workspace, parts, ready, others, far):
            for spec, mine in zip(members, losses, strict=True):
                contest = contests[spec.key.backbone, spec.key.region, spec.key.readout]
                contest.losses.setdefault(spec.key.layer, []).append(mine)
    far.end()
    groups = None
    if workspace.experiment.data.intervals == "groups":
        groups = workspace.recording.train_groups
    rows = [row for contest in contests.values() for row in _rows(contest, groups)]
    keep(place, failed, rows)
    return rows


def _region_loss(losses: NDArray[np.float64]) -> float:
    """Mean over units of their mean over images, as ``validation_loss`` is."""
    return float(nan_mean(nan_mean(losses)))


def _rows(contest: _Contest, groups: NDArray[np.int64] | None) -> list[dict[str, Any]]:
    # where all fits failed none is chosen, and the lowest loss is what the others are compared with
    chosen = min(contest.value, key=lambda layer: (layer in contest.failed, contest.value[layer]))
    judged = [k for k, one in enumerate(contest.losses[chosen]) if not np.isnan(one.losses).all()]
    if not judged:
        raise InputError(
            f"--resplit: no unit of {contest.specs[0].key.region} has enough responses on any other "
            "cut; raise data.validation_fraction, or leave the region out"
        )
    cuts = {layer: [parts[k] for k in judged] for layer, parts in contest.losses.items()}
    means = {layer: [_region_loss(one.losses) for one in parts] for layer, parts in cuts.items()}
    winners = [min(means, key=lambda layer: means[layer][k]) for k in range(len(judged))]
    compared = compare_layers(cuts, chosen, groups=groups)
    rows = []
    for spec in contest.specs:
        layer = spec.key.layer
        gap = compared[layer]
        rows.append(
            {
                **spec.columns,
                "chosen": layer == chosen and layer not in contest.failed,
                "cuts": len(judged),
                "validation_loss": float(np.mean(means[layer])),
                "best_in_cuts": winners.count(layer) / len(judged),
                "best_in_draws": gap.best,
                "difference": gap.difference,
                "difference_low": gap.low,
                "difference_high": gap.high,
            }
        )
    return rows
