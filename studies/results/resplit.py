"""How sure the choice of a layer is: the best settings of every layer, fitted anew on other cuts of the training images.

The search chose settings and layer on one cut. Here each layer's best settings are fitted on K further cuts, each with a
seed of its own for batches and initial weights, all layers on the same ones, and compared on images that they were not
fitted to. Where the search has folds each further cut is into as many folds, so all images are compared. Intervals hold
for all layers of a region together, see :mod:`tuner.scores.layers`. No test image is used, and nothing is chosen by what
comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
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
from studies.search.closed_form import judged_predictions, solve_on_cuts
from studies.search.round import Member, Round
from studies.search.rungs import ReportGrid
from studies.search.space import hyperparameters
from studies.search.start import located_on_cuts, start_in, starts_elsewhere
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.scores.layers import Judged, compare_layers
from tuner.scores.moments import nan_mean

if TYPE_CHECKING:
    import torch

    from studies.search.start import Located
    from tuner.closed_form.smooth import SmoothFit
    from tuner.features.tiers import FeatureStore
    from tuner.fitting.start import Start
    from tuner.fitting.targets import Targets
    from tuner.recordings import Split

FITTING = "fitting on other cuts"
"""How that is called where it is said how far it is."""

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
    layers: dict[tuple[str, str], list[list[Spec]]] = {}
    for part in cohorts([spec for spec, _ in ready.values()]).values():
        layers.setdefault((part[0].key.backbone, part[0].key.layer), []).append(part)
    fits, done = cuts * sum(map(len, layers.values())), 0
    workspace.progress(FITTING, done, fits)
    others = [_Cut.drawn(workspace, k) for k in range(1, cuts + 1)]
    for parts in layers.values():
        for members, losses in _on_layer(workspace, parts, ready, others):
            done += 1
            workspace.progress(FITTING, done, fits)
            for spec, mine in zip(members, losses, strict=True):
                contest = contests[spec.key.backbone, spec.key.region, spec.key.readout]
                contest.losses.setdefault(spec.key.layer, []).append(mine)
    groups = None
    if workspace.experiment.data.intervals == "groups":
        groups = workspace.recording.train_groups
    return [row for contest in contests.values() for row in _rows(contest, groups)]


@dataclass(frozen=True)
class _Cut:
    """A further cut.

    Attributes
    ----------
    number
        From 1 on; added to the seeds.
    splits
        One, or one for each fold.
    judged
        ``(n_units,)`` which units have enough responses on both sides of it; the others take no part in it.
    scaled
        ``(n_train, n_units)`` scaled responses, 0 of units that take no part.
    targets
        The same, as they are trained on.
    """

    number: int
    splits: tuple[Split, ...]
    judged: NDArray[np.bool_]
    scaled: NDArray[np.float32]
    targets: Targets

    @classmethod
    def drawn(cls, workspace: Workspace, number: int) -> _Cut:
        """Cut the training images anew."""
        from tuner.fitting.losses import response_scaling
        from tuner.fitting.targets import Targets
        from tuner.recordings import fittable

        experiment, recording = workspace.experiment, workspace.recording
        cuts = Cuts(experiment, recording, experiment.data.seed + number)
        responses = recording.train_responses
        judged = np.all([fittable(responses, split) for split in cuts.splits], axis=0)
        if not judged.all():
            responses = np.where(judged, responses, np.float32(0))  # never trained on
        scaling = response_scaling(experiment.training.loss, responses[cuts.fitted])
        scaled = scaling.apply(responses)
        targets = Targets.of(scaled, cuts.splits, np.arange(len(cuts.held_out)) % 2)
        return cls(number, cuts.splits, judged, scaled, targets)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Images that its fits are judged on."""
        return self.targets.validation_rows


def _on_layer(
    workspace: Workspace,
    parts: Sequence[Sequence[Spec]],
    ready: Mapping[str, tuple[Spec, Summary]],
    cuts: Sequence[_Cut],
) -> Iterator[tuple[Sequence[Spec], list[Judged]]]:
    """Fit the cohorts of a layer on all cuts: yields a cohort and its studies' losses, cut after cut.

    What they start in is the same for all of them, and solved once; closed forms share decompositions.
    """
    from tuner.fitting.center import feature_mean
    from tuner.fitting.plan import resolve_memory

    training = workspace.experiment.training
    memory = resolve_memory(training.memory, workspace.device)
    spec = parts[0][0]
    for members in (part for part in parts if part[0].closed_form):
        for losses in _solved(workspace, members, cuts, memory):
            yield members, losses
    trained = [part for part in parts if not part[0].closed_form]
    if not trained:
        return
    store = workspace.features.store(spec.key.backbone, spec.key.layer, memory)
    starting = [starts_elsewhere(workspace, part[0]) for part in trained]
    starts: Iterator[Located | None] = iter([None] * len(cuts))
    if any(starting):
        every = [cut.targets for cut in cuts]
        starts = located_on_cuts(workspace, trained[0][0], every, memory, loss=training.loss)
    for cut, found in zip(cuts, starts, strict=True):
        mean = None
        if training.center or found is not None:
            mean = feature_mean(store, cut.targets.fit_rows, spec.shape)
        for members, elsewhere in zip(trained, starting, strict=True):
            start = None
            if elsewhere and found is not None and mean is not None:
                start = start_in(members[0], found, mean)
            center = mean if training.center else None
            them = [ready[one.name] for one in members]
            yield members, _fit(workspace, them, cut, store, center, start)


def _fit(
    workspace: Workspace,
    members: Sequence[tuple[Spec, Summary]],
    cut: _Cut,
    store: FeatureStore,
    center: torch.Tensor | None,
    start: Start | None,
) -> list[Judged]:
    """Losses per study on a cut, with the weights of its best report."""
    from tuner import readouts
    from tuner.fitting.trainer import Trainer

    experiment, device = workspace.experiment, workspace.device
    training, held_out, judged = experiment.training, cut.held_out, cut.judged
    spec = members[0][0]
    trainer = Trainer(
        readouts.get(spec.key.readout).kernel(spec.shape, device),
        store,
        cut.targets,
        loss=training.loss,
        batch_size=training.batch_size,
        seed=experiment.search.seed + cut.number,
        device=device,
        center=center,
        size_invariant=training.size_invariant,
        start=start,
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
            target = cut.scaled[held_out][:, units[i]]
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
    workspace: Workspace, specs: Sequence[Spec], cuts: Sequence[_Cut], memory: int
) -> list[list[Judged]]:
    """Closed forms on other cuts: the whole grid again, every unit's setting chosen among a cut's fit images."""
    import torch

    from tuner.fitting import losses

    loss = workspace.experiment.training.loss
    found: list[list[Judged]] = []
    for some in _judging_alike(cuts):
        there = [some[0].judged[spec.units] for spec in specs]
        units = np.concatenate([s.units[mine] for s, mine in zip(specs, there, strict=True)])
        fits: Sequence[SmoothFit | None] = [None] * len(some)
        if len(units):
            splits = [cut.splits for cut in some]
            fits = solve_on_cuts(workspace, specs[0], units, splits, memory=memory)
        for cut, fit in zip(some, fits, strict=True):
            each = np.zeros((len(cut.held_out), 0))
            if fit is not None:
                y = torch.from_numpy(judged_predictions(fit, cut.splits))
                target = torch.from_numpy(cut.scaled[cut.held_out][:, units])
                each = losses.value(loss, y, target).double().numpy()
            out, begin = [], 0
            for mine in there:
                one = np.full((len(cut.held_out), len(mine)), np.nan)
                end = begin + int(mine.sum())
                if mine.any():
                    target_of = cut.scaled[cut.held_out][:, units[begin:end]]
                    one[:, mine] = each[:, begin:end] / _mean_loss(workspace, target_of)
                begin = end
                out.append(Judged(cut.held_out, one))
            found.append(out)
    return found


def _judging_alike(cuts: Sequence[_Cut]) -> list[list[_Cut]]:
    """Cuts in which the same units take part, in their order."""
    return [list(some) for _, some in groupby(cuts, key=lambda cut: cut.judged.tobytes())]


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
