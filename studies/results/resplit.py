"""How sure the choice of a layer is: the best settings of every layer, fitted anew on other cuts of the training images.

The search chose settings and layer on one cut. Here each layer's best settings are fitted on K further cuts, each with a
seed of its own for batches and initial weights, all layers on the same ones, and compared on images that they were not
fitted to. Where the search has folds each further cut is into as many folds, so all images are compared. Intervals hold
for all layers of a region together, see :mod:`tuner.scores.layers`. No test image is used, and nothing is chosen by what
comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.cuts import Cuts
from studies.database.stores import Stores
from studies.database.summaries import Summary
from studies.database.trials import Trial
from studies.grid import Spec, cohorts
from studies.results.encoders import best_studies
from studies.results.predictions import predictions
from studies.search.best_weights import Fitted
from studies.search.closed_form import judged_predictions, solve
from studies.search.round import Member, Round
from studies.search.rungs import ReportGrid
from studies.search.space import hyperparameters
from studies.search.start import start_of
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.progress import counted
from tuner.scores.layers import Judged, compare_layers
from tuner.scores.moments import nan_mean

if TYPE_CHECKING:
    from tuner.recordings import Split

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
) -> list[dict[str, Any]]:
    """Fit the best settings of all selected studies on further cuts and compare the layers.

    Parameters
    ----------
    cuts
        Number of further cuts.
    failed
        Studies whose fits are not surely better than predicting the mean, which are not chosen.

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
    contests: dict[tuple[str, str, str], _Contest] = {}
    for spec, item in ready.values():
        key = (spec.key.backbone, spec.key.region, spec.key.readout)
        contest = contests.setdefault(key, _Contest())
        contest.specs.append(spec)
        assert item.best is not None
        contest.value[spec.key.layer] = float(item.best.value or 0.0)
        if spec.name in failed:
            contest.failed.add(spec.key.layer)
    parts = list(cohorts([spec for spec, _ in ready.values()]).values())
    fits = [(members, k) for members in parts for k in range(1, cuts + 1)]
    for members, k in counted(fits, "fitting on other cuts", workspace.progress):
        losses = _fit(workspace, [ready[s.name] for s in members], k)
        for spec, mine in zip(members, losses, strict=True):
            contest = contests[spec.key.backbone, spec.key.region, spec.key.readout]
            contest.losses.setdefault(spec.key.layer, []).append(mine)
    groups = None
    if workspace.experiment.data.intervals == "groups":
        groups = workspace.recording.train_groups
    return [row for contest in contests.values() for row in _rows(contest, groups)]


def _fit(workspace: Workspace, members: Sequence[tuple[Spec, Summary]], k: int) -> list[Judged]:
    """Losses per study on cut ``k``, with the weights of its best report.

    A unit that has too few responses on one side of the cut takes no part in it.
    """
    from tuner import readouts
    from tuner.fitting.center import feature_mean
    from tuner.fitting.losses import response_scaling
    from tuner.fitting.plan import resolve_memory
    from tuner.fitting.targets import Targets
    from tuner.fitting.trainer import Trainer
    from tuner.recordings import fittable

    experiment, device, recording = workspace.experiment, workspace.device, workspace.recording
    data, training = experiment.data, experiment.training
    cuts = Cuts(experiment, recording, data.seed + k)
    responses = recording.train_responses
    judged = np.all([fittable(responses, split) for split in cuts.splits], axis=0)
    if not judged.all():
        responses = np.where(judged, responses, np.float32(0))  # never trained on
    scaled = response_scaling(training.loss, responses[cuts.fitted]).apply(responses)
    held_out = cuts.held_out
    spec = members[0][0]
    memory = resolve_memory(training.memory, device)
    if spec.closed_form:
        return _solved(workspace, [one for one, _ in members], judged, scaled, cuts.splits, memory)
    store = workspace.features.store(spec.key.backbone, spec.key.layer, memory)
    targets = Targets.of(scaled, cuts.splits, np.arange(len(held_out)) % 2)
    center = feature_mean(store, cuts.fitted, spec.shape) if training.center else None
    trainer = Trainer(
        readouts.get(spec.key.readout).kernel(spec.shape, device),
        store,
        targets,
        loss=training.loss,
        batch_size=training.batch_size,
        seed=experiment.search.seed + k,
        device=device,
        center=center,
        size_invariant=training.size_invariant,
        start=start_of(workspace, spec, targets, store, memory, center=center, keep=False),
    )
    units = [one.units[judged[one.units]] for one, _ in members]
    taking = [i for i, mine in enumerate(units) if len(mine)]
    parts = [
        Member(units[i], [hyperparameters(one.space, item.best.params)], [_trial(i)], [])
        for i, (one, item) in enumerate(members)
        if item.best is not None and i in taking
    ]
    running = Round(
        parts,
        [[(i, part.units) for i, part in enumerate(parts)]],
        trainer,
        reports=ReportGrid.of(experiment).steps,
        prune=False,
    )
    fits = dict(zip(taking, running.run().fitted if parts else [], strict=True))
    out = []
    for i, (one, _) in enumerate(members):
        there = judged[one.units]
        mine = np.full((len(held_out), len(one.units)), np.nan)
        if there.any():
            target = scaled[held_out][:, units[i]]
            each = _losses(workspace, one, fits[i], target, held_out)
            mine[:, there] = each / _mean_loss(workspace, target)
        out.append(Judged(held_out, mine))
    return out


def _mean_loss(workspace: Workspace, target: NDArray[np.float32]) -> float:
    """Loss of predicting every unit's mean on the images that a cut holds out, where losses are divided by it."""
    from tuner.fitting.losses import mean_loss

    if not workspace.divided_by_mean:
        return 1.0
    return mean_loss(workspace.experiment.training.loss, target)


def _solved(
    workspace: Workspace,
    specs: Sequence[Spec],
    judged: NDArray[np.bool_],
    scaled: NDArray[np.float32],
    splits: Sequence[Split],
    memory: int,
) -> list[Judged]:
    """Closed forms on another cut: the whole grid again, every unit's setting chosen among the cut's fit images."""
    import torch

    from tuner.fitting import losses

    rows = np.sort(np.concatenate([split.validation for split in splits]))
    there = [judged[spec.units] for spec in specs]
    units = np.concatenate([s.units[mine] for s, mine in zip(specs, there, strict=True)])
    each = np.zeros((len(rows), 0))
    if len(units):
        found = solve(workspace, specs[0], units, splits, memory=memory)
        y = torch.from_numpy(judged_predictions(found, splits))
        target = torch.from_numpy(scaled[rows][:, units])
        loss = workspace.experiment.training.loss
        each = losses.value(loss, y, target).double().numpy()
    out, begin = [], 0
    for mine in there:
        one = np.full((len(rows), len(mine)), np.nan)
        end = begin + int(mine.sum())
        if mine.any():
            target = scaled[rows][:, units[begin:end]]
            one[:, mine] = each[:, begin:end] / _mean_loss(workspace, target)
        begin = end
        out.append(Judged(rows, one))
    return out


def _losses(
    workspace: Workspace,
    spec: Spec,
    fitted: Sequence[Fitted],
    target: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Losses of a fit, element by element; infinite where it diverged."""
    import torch

    from tuner.fitting import losses

    if not fitted:  # no better than the mean, and said by its loss
        return np.where(np.isnan(target), np.nan, np.inf)
    y = fitted[0].held_out
    if y is None:
        features = workspace.features.of(spec.key.backbone, spec.key.layer)
        made = predictions(spec.key.readout, fitted[0].parameters, features.train, rows)
        y = torch.from_numpy(made)
    loss = workspace.experiment.training.loss
    return losses.value(loss, y, torch.from_numpy(target)).double().numpy()


def _trial(number: int) -> Trial:
    return Trial(number, number, number, TrialState.RUNNING, {})


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
