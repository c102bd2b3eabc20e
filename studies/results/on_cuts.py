"""The best settings of studies fitted on further cuts: all cohorts of a layer on all cuts, and what their fits lose.

Fits of one layer share what does not depend on the cut or the readout: its features, where columns start, and with folds the
decompositions of closed forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.cuts import Cuts
from studies.database.summaries import Summary
from studies.database.trials import Trial
from studies.grid import Spec
from studies.results.predictions import predictions
from studies.search.best_weights import Fitted
from studies.search.closed_form import judged_predictions, solve_on_cuts
from studies.search.forecast_cuts import FIT, START
from studies.search.round import Member, Round
from studies.search.rungs import ReportGrid
from studies.search.space import hyperparameters
from studies.search.start import located_on_cuts, start_in, starts_elsewhere
from studies.workspace import Workspace
from tuner.progress import Weighed
from tuner.scores.layers import Judged

if TYPE_CHECKING:
    import torch

    from studies.search.start import Located
    from tuner.closed_form.smooth import SmoothFit
    from tuner.features.tiers import FeatureStore
    from tuner.fitting.start import Start
    from tuner.fitting.targets import Targets
    from tuner.recordings import Split


@dataclass(frozen=True)
class Cut:
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
    def drawn(cls, workspace: Workspace, number: int) -> Cut:
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


def on_layer(
    workspace: Workspace,
    parts: Sequence[Sequence[Spec]],
    ready: Mapping[str, tuple[Spec, Summary]],
    cuts: Sequence[Cut],
    far: Weighed[tuple[str, ...]],
) -> Iterator[tuple[Sequence[Spec], list[Judged]]]:
    """Fit the cohorts of a layer on all cuts: yields a cohort and its studies' losses, cut after cut.

    What they start in is the same for all of them, and solved once; closed forms share decompositions.

    Parameters
    ----------
    parts
        The cohorts.
    ready
        Each study's name to the study and its trials.
    cuts
        The cuts.
    far
        Told how far each of its parts is, see :mod:`studies.search.forecast_cuts`.
    """
    from tuner.fitting.center import feature_mean
    from tuner.fitting.plan import resolve_memory

    training = workspace.experiment.training
    memory = resolve_memory(training.memory, workspace.device)
    spec = parts[0][0]
    for members in (part for part in parts if part[0].closed_form):
        for losses in _solved(
            workspace, members, cuts, memory, far.part((FIT, *members[0].cohort))
        ):
            yield members, losses
    trained = [part for part in parts if not part[0].closed_form]
    if not trained:
        return
    store = workspace.features.store(spec.key.backbone, spec.key.layer, memory)
    starting = [starts_elsewhere(workspace, part[0]) for part in trained]
    starts: Iterator[Located | None] = iter([None] * len(cuts))
    if any(starting):
        every = [cut.targets for cut in cuts]
        starts = located_on_cuts(
            workspace,
            trained[0][0],
            every,
            memory,
            loss=training.loss,
            tell=far.part((START, spec.key.backbone, spec.key.layer)),
        )
    for done, (cut, found) in enumerate(zip(cuts, starts, strict=True), start=1):
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
            far.part((FIT, *members[0].cohort))(done, len(cuts))


def _fit(
    workspace: Workspace,
    members: Sequence[tuple[Spec, Summary]],
    cut: Cut,
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
    workspace: Workspace,
    specs: Sequence[Spec],
    cuts: Sequence[Cut],
    memory: int,
    tell: Callable[[int, int], None],
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
            before = len(found)

            def told(done: int, total: int, before: int = before, here: int = len(some)) -> None:
                tell(before * total + here * done, len(cuts) * total)

            fits = solve_on_cuts(workspace, specs[0], units, splits, memory=memory, tell=told)
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


def _judging_alike(cuts: Sequence[Cut]) -> list[list[Cut]]:
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
