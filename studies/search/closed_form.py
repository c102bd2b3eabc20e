"""Studies that are fitted in closed form: every point of a study's grid is a trial, and all of them are told at once.

One cohort is one fit: all regions of a layer share a decomposition a width. Each unit has the width and penalty that predict
best what was left out among the fit images, with folds fold by fold; the study's one kept file holds these weights. A
trial's value is what the other readouts' trials are valued by: the mean over units of the loss on the images that are held
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.config.ranges import points
from studies.database.studies import Stored
from studies.database.summaries import ENCODER_LOSS
from studies.database.trials import Outcome, Trial
from studies.grid import Spec
from studies.search.best_weights import Fitted
from studies.search.listener import Listener
from studies.search.space import hyperparameters
from studies.search.training import Ended, out_of_memory
from studies.workspace import Workspace
from tuner.errors import EnvironmentFailure

if TYPE_CHECKING:
    from tuner.closed_form.cost import Problem
    from tuner.closed_form.smooth import SmoothFit
    from tuner.recordings import Split

UNITS = "units"
"""Attribute of a trial: how many units of the region have its setting."""


class _Predicting(Protocol):
    """What every closed form's fit has."""

    @property
    def left_out(self) -> NDArray[np.float32]: ...

    @property
    def others(self) -> NDArray[np.float32]: ...


class ClosedForm:
    """Fits studies of one cohort at a time.

    Parameters
    ----------
    workspace
        The experiment.
    stored
        All studies in the database.
    """

    def __init__(
        self, workspace: Workspace, stored: Mapping[str, Stored], listener: Listener
    ) -> None:
        self.workspace = workspace
        self.stored = stored
        self.listener = listener

    def cut(self, members: Sequence[Spec]) -> list[list[Spec]]:
        """Specs of one cohort that are fitted together: all that were created with the same memory."""
        parts: dict[int, list[Spec]] = {}
        for spec in members:
            parts.setdefault(self.stored[spec.name].plan["memory"], []).append(spec)
        return list(parts.values())

    def run(
        self, specs: Sequence[Spec], asked: Mapping[str, Sequence[Trial]]
    ) -> Iterator[tuple[str, Ended]]:
        """Fit studies of one cohort; yields each study's outcomes and weights.

        Raises
        ------
        EnvironmentFailure
            If the device's memory does not suffice.
        """
        units = np.concatenate([spec.units for spec in specs])
        count = sum(len(asked[spec.name]) for spec in specs)
        cohort = "/".join(specs[0].cohort)
        try:
            found = solve(
                self.workspace,
                specs[0],
                units,
                self.workspace.cuts.splits,
                memory=self.stored[specs[0].name].plan["memory"],
                tell=lambda done, total: self.listener.training(cohort, count, done, total, count),
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise EnvironmentFailure(
                f"training.memory: out of memory while {cohort} was fitted; free the device, or lower "
                "training.memory and create the studies anew with 'tuner study create --force'"
            ) from None
        begin = 0
        for spec in specs:
            mine = slice(begin, begin + len(spec.units))
            begin = mine.stop
            yield spec.name, self._results(spec, found, mine, asked[spec.name])

    def _results(self, spec: Spec, found: SmoothFit, mine: slice, asked: Sequence[Trial]) -> Ended:
        import torch

        place = {(s.width, s.penalty): i for i, s in enumerate(found.settings)}
        folds = self.workspace.cuts.n_folds
        losses = found.other_loss if folds == 1 else found.left_out_loss
        mean_loss = self.workspace.mean_loss(spec.units)
        values = losses[:, mine].mean(axis=1) / mean_loss
        chosen = found.chosen[mine]
        at: dict[int, Trial] = {}
        for trial in asked:
            point = hyperparameters(spec.space, trial.params)
            at[place[point["width"], point["penalty"]]] = trial
        finite = [i for i in at if np.isfinite(values[i])]
        # Under a penalty that is too small for its precision a fit is not a number; it is stopped as training is.
        best = min(finite, key=lambda i: (values[i], at[i].number), default=None)
        loss = float(losses[chosen, np.arange(len(found.chosen))[mine]].mean()) / mean_loss
        outcomes = [
            Outcome(
                trial.trial_id,
                TrialState.COMPLETE if i in finite else TrialState.PRUNED,
                float(values[i]) if i in finite else np.inf,
                {},
                _attributes(int((chosen == i).sum()), loss if i == best else None),
            )
            for i, trial in at.items()
        ]
        if best is None:
            return outcomes, []
        predicted = judged_predictions(found, self.workspace.cuts.splits)[:, mine]
        unit_loss = self._unit_loss(spec, predicted)
        parameters = {name: value[mine].clone() for name, value in found.parameters.items()}
        numbers = np.array([at[i].number if i in at else -1 for i in chosen], dtype=np.int64)
        held_out = None if folds == 1 else torch.from_numpy(predicted.copy())
        return outcomes, [Fitted(at[best], loss, parameters, unit_loss, numbers, held_out)]

    def _unit_loss(self, spec: Spec, predicted: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(n_units, 2)`` loss of each unit on each half of the held-out images; NaN where there is no response."""
        import torch

        from tuner.fitting.losses import value
        from tuner.scores.moments import nan_mean

        targets = self.workspace.targets
        each = value(
            self.workspace.experiment.training.loss,
            torch.from_numpy(predicted).double(),
            torch.from_numpy(targets.validation[:, spec.units]).double(),
        ).numpy()
        halves = [nan_mean(each[targets.half == half], axis=0) for half in (0, 1)]
        return np.stack(halves, axis=1)


def _attributes(units: int, encoder_loss: float | None) -> dict[str, float]:
    """What the dashboard shows beside a trial's value."""
    out: dict[str, float] = {UNITS: units} if units else {}
    return out if encoder_loss is None else out | {ENCODER_LOSS: encoder_loss}


def problem(workspace: Workspace, specs: Sequence[Spec]) -> Problem:
    """Sizes of the fit of studies of one cohort."""
    from tuner.closed_form.cost import Problem

    space = specs[0].space
    return Problem(
        images=len(workspace.cuts.fitted),
        others=len(workspace.cuts.held_out) if workspace.cuts.n_folds == 1 else 0,
        shape=specs[0].shape,
        units=sum(len(spec.units) for spec in specs),
        widths=points(space["width"]),
        penalties=points(space["penalty"]),
    )


def arranged(
    splits: Sequence[Split], groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """What a closed form fits, what it predicts besides, and which images it leaves out together.

    Parameters
    ----------
    splits
        A single cut, or a cut for each fold.
    groups
        Of the training images.
    """
    if len(splits) == 1:
        return splits[0].fit, splits[0].validation, groups
    fold = np.zeros(sum(len(split.validation) for split in splits), dtype=np.int64)
    for number, split in enumerate(splits):
        fold[split.validation] = number
    return np.arange(len(fold)), None, fold


def judged_predictions(found: _Predicting, splits: Sequence[Split]) -> NDArray[np.float32]:
    """Predictions ``(n_held_out, n_units)`` of the images that fits are judged on; 0 where a fold has no response."""
    return found.others if len(splits) == 1 else np.nan_to_num(found.left_out)


def solve(
    workspace: Workspace,
    spec: Spec,
    units: NDArray[np.int64],
    splits: Sequence[Split],
    *,
    memory: int,
    tell: Callable[[int, int], None] | None = None,
) -> SmoothFit:
    """Fit units under a study's whole grid: to the fit images of a cut, or, with folds, to all training images.

    Parameters
    ----------
    spec
        A study of the layer.
    units
        Indices of the units in the recording, of any regions.
    splits
        Images that are fitted, and those that are predicted besides; or a cut for each fold, whose images are then left
        out together, as training leaves them out, and settings are compared by what the fit without them predicts.
    memory
        Bytes that it may take.
    tell
        Called with (done, total) while it fits.
    """
    from tuner.closed_form.smooth import fit_smooth

    rows, others, groups = arranged(splits, workspace.recording.train_groups)
    given = _given(workspace, spec, units, rows, memory)
    return fit_smooth(**given, others=others, groups=groups, tell=tell)


def solve_on_cuts(
    workspace: Workspace,
    spec: Spec,
    units: NDArray[np.int64],
    cuts: Sequence[Sequence[Split]],
    *,
    memory: int,
    tell: Callable[[int, int], None],
) -> list[SmoothFit]:
    """Fits as :func:`solve` makes them on one cut after another, without weights; with folds they share decompositions.

    ``tell`` is called with how much of all cuts is done, and how much there is.
    """
    from tuner.closed_form.smooth import fit_smooth, fits_smooth

    parts = [arranged(splits, workspace.recording.train_groups) for splits in cuts]
    if any(others is not None for _, others, _ in parts):
        found = []
        for k, (rows, others, groups) in enumerate(parts):

            def told(done: int, total: int, before: int = k) -> None:
                tell(before * total + done, len(parts) * total)

            given = _given(workspace, spec, units, rows, memory)
            found.append(
                fit_smooth(**given, others=others, groups=groups, weights=False, tell=told)
            )
        return found
    given = _given(workspace, spec, units, parts[0][0], memory)
    return fits_smooth(**given, groupings=[groups for _, _, groups in parts], tell=tell)


def _given(
    workspace: Workspace, spec: Spec, units: NDArray[np.int64], rows: NDArray[np.int64], memory: int
) -> dict[str, Any]:
    """What every fit to these images is told."""
    from tuner.fitting.losses import response_scaling

    loss = workspace.experiment.training.loss
    responses = workspace.recording.train_responses[:, units]
    return {
        "features": workspace.features.of(spec.key.backbone, spec.key.layer).train,
        "targets": response_scaling(loss, responses[rows]).apply(responses),
        "rows": rows,
        "widths": points(spec.space["width"]),
        "penalties": points(spec.space["penalty"]),
        "loss": loss,
        "memory": memory,
        "device": workspace.algebra_device,
    }
