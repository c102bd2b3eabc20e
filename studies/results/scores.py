"""What the best trials are worth: predictions of a study's best weights, scored on validation and on test images.

Nothing here chooses anything: which trial is best was decided on validation loss while the search ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.database.artifacts import Tensors
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.database.summaries import Summary, closed_form_line
from studies.grid import Spec
from studies.results.encoders import NONE_COMPLETE, Best, Whole, encoder, opened_studies
from studies.results.judged import (
    by_image,
    compared,
    fit_failed,
    per_unit,
    tried,
    units_failed,
)
from studies.results.on_test_images import on_test_images
from studies.results.predictions import respond, tested
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.progress import counted

if TYPE_CHECKING:
    from tuner.figures.best_layers import BestLayer

LOST = "weights of all its kept trials are lost"
"""Note of a study of which nothing can be shown until its trials have run again."""


@dataclass(frozen=True)
class Evaluated:
    """A study with its best weights and what they are worth.

    Attributes
    ----------
    row
        One row of ``heatmap.csv``.
    summary
        Counts of its trials, and the trial that is shown: the best one, or the next best where its weights are lost.
    units
        One row of ``units.csv`` per unit.
    parameters
        Best trial's exported parameters, or None before the first complete trial.
    intervals
        Score to the 95 % limits of the region's mean, see :mod:`studies.results.on_test_images`.
    image_losses
        ``(n_validation,)`` loss of each validation image, mean over units, by which layers can be compared.
    image_groups
        ``(n_validation,)`` group of each of them, where intervals are drawn over groups.
    parts
        ``(parts,)`` as of :class:`studies.results.on_test_images.Tested`; None without intervals.
    unit_losses
        ``(parts, n_units)`` losses of the validation images, summed by :func:`tuner.scores.by_part`.
    """

    spec: Spec
    summary: Summary
    row: dict[str, Any]
    units: list[dict[str, Any]]
    parameters: Tensors | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    image_losses: NDArray[np.float64] | None = None
    image_groups: NDArray[np.int64] | None = None
    parts: NDArray[np.float64] | None = None
    unit_losses: NDArray[np.float32] | None = None

    def as_best_layer(self, metric: str, probabilities: dict[str, float]) -> BestLayer:
        """Put the study into a figure of best layers, with how often each of its rivals is the best."""
        from tuner.figures.best_layers import BestLayer

        return BestLayer(
            self.spec.key.region,
            self.spec.key.readout,
            self.spec.key.layer,
            float(self.row.get(metric, np.nan)),
            *self.intervals.get(metric, (np.nan, np.nan)),
            probabilities=probabilities,
            ceiling=float(self.row.get("noise_ceiling", np.nan)),
        )


@dataclass(frozen=True)
class Scored:
    """What a study's weights are worth: all that is computed from them, wherever that is.

    Attributes
    ----------
    row
        Score to its value, as in ``heatmap.csv``.
    units
        Column of ``units.csv`` to its ``(n_units,)`` values, in the order of the columns.
    intervals, image_losses, parts, unit_losses
        As of :class:`Evaluated`.
    """

    row: dict[str, Any]
    units: dict[str, NDArray[Any]]
    intervals: dict[str, tuple[float, float]]
    image_losses: NDArray[np.float64]
    parts: NDArray[np.float64] | None
    unit_losses: NDArray[np.float32]


Scorer = Callable[[Sequence[Best]], Iterator[tuple[Whole | None, Scored | None]]]
"""Given studies: of each, in order, the kept trial that is shown and its scores, if there is one."""


def shown(best: Best) -> Whole | None:
    """The best kept trial of a study whose weights can be used, if there is one."""
    return None if best.summary.best is None else next(best.whole(), None)


def score_here(opened: Sequence[Best]) -> Iterator[tuple[Whole | None, Scored | None]]:
    """Score studies one after the other in this process."""
    for best in opened:
        kept = shown(best)
        if kept is None:
            yield None, None
            continue
        value, finished = loss_of(best, kept), best.summary.finished
        yield (
            kept,
            score(
                best.workspace,
                best.spec,
                kept.parameters,
                value=value,
                finished=finished,
            ),
        )


def loss_of(best: Best, kept: Whole) -> float:
    """Validation loss of what a study shows."""
    value = replace(best.summary, best=kept.trial).loss
    assert value is not None
    return value


def evaluate_all(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    *,
    what: str = "scoring studies",
    scorer: Scorer = score_here,
) -> Iterator[Evaluated]:
    """Score the best trial of every study, in the order given.

    Parameters
    ----------
    what
        What is being done, as the workspace's `progress` is told after each study.
    scorer
        Who computes the scores.

    Raises
    ------
    InputError
        If no study has a complete trial.
    """
    opened = opened_studies(workspace, stores, specs)
    if all(best.summary.best is None for best in opened):
        raise InputError(NONE_COMPLETE)
    line = closed_form_line(stores.storage, stored_studies(stores.storage).values())
    scored = scorer(opened)
    for best in counted(opened, what, workspace.progress):
        kept, worth = next(scored)
        lost = best.summary.best is not None and kept is None
        item = replace(best.summary, best=None if kept is None else kept.trial)
        parameters = None if kept is None else kept.parameters
        one = _evaluated(workspace, best.spec, item, parameters, worth)
        loss = None if kept is None else item.loss
        one.row["below_smooth"] = line.below(best.spec.key, loss)
        one.row["note"] = LOST if lost else "" if kept is None else kept.note
        yield one


def _evaluated(
    workspace: Workspace,
    spec: Spec,
    item: Summary,
    parameters: Tensors | None,
    worth: Scored | None,
) -> Evaluated:
    """Put scores beside what recording and database say of a study."""
    row: dict[str, Any] = spec.columns | {
        "n_units": len(spec.units),
        "n_trials": item.finished,
        "n_complete": item.counts.get(TrialState.COMPLETE, 0),
    }
    units = unit_rows(workspace, spec, {} if worth is None else worth.units)
    if worth is None:
        return Evaluated(spec, item, row, units, None)
    return Evaluated(
        spec,
        item,
        row | worth.row,
        units,
        parameters,
        worth.intervals,
        worth.image_losses,
        workspace.cuts.held_out_groups,
        worth.parts,
        worth.unit_losses,
    )


def score(
    workspace: Workspace,
    spec: Spec,
    parameters: Tensors,
    *,
    value: float,
    finished: int,
    intervals: bool = True,
    fields: bool = True,
) -> Scored:
    """Score a study's weights.

    Parameters
    ----------
    parameters
        Exported parameters of a trial.
    value
        Its validation loss.
    finished
        Trials that it was chosen from.
    intervals
        Whether to compute 95 % limits of its test scores.
    fields
        Whether it is measured where units read.
    """
    from tuner.scores import by_part, mean_correlation, pearson

    raw, each, flat = compared(workspace, spec, parameters)
    trials = tried(workspace, spec, finished)
    failed = fit_failed(workspace, value, each, flat, trials=trials)
    row: dict[str, Any] = {"validation_loss": value, "fit_failed": failed}
    measured = workspace.targets.validation[None, :, spec.units]
    loss = workspace.experiment.training.loss
    scores: dict[str, NDArray[Any]] = {
        "validation_loss": per_unit(workspace, each, flat),
        "validation_correlation": pearson(respond(loss, raw), measured),
        "fit_failed": units_failed(workspace, each, flat, trials=trials),
    }
    row["validation_correlation"] = mean_correlation(scores["validation_correlation"], measured)
    limits, parts = {}, None
    if workspace.recording.test_responses is not None:
        scaling = workspace.scaling
        scaled = respond(loss, tested(workspace, spec, parameters))
        predicted = scaled * scaling.scale[spec.units] + scaling.mean[spec.units]
        found = on_test_images(workspace, spec.units, predicted, intervals=intervals)
        scores |= found.units
        row |= found.columns(workspace)
        limits, parts = found.intervals, found.parts
    if fields:
        scores |= _receptive_fields(workspace, spec, parameters)
    summed = by_part(each, workspace.cuts.held_out_groups)
    return Scored(row, scores, limits, by_image(each), parts, summed)


def unit_rows(
    workspace: Workspace, spec: Spec, scores: Mapping[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """Rows of ``units.csv``, one per unit of a study.

    Parameters
    ----------
    scores
        Column to its ``(n_units,)`` values.
    """
    return [
        {"study": spec.name}
        | spec.columns
        | {"unit": int(unit)}
        | unit_columns(workspace, unit)
        | {name: values[i] for name, values in scores.items()}
        for i, unit in enumerate(spec.units)
    ]


def unit_columns(workspace: Workspace, unit: int) -> dict[str, Any]:
    """A unit's columns in the recording; one that is called like a column of ours keeps its values under ``recorded_``."""
    from tuner.figures.tables import UNIT_KEYS, UNIT_SCORES

    ours = UNIT_SCORES.union(UNIT_KEYS)
    return {
        (f"recorded_{name}" if name in ours else name): values[unit]
        for name, values in workspace.recording.units.items()
    }


def _receptive_fields(
    workspace: Workspace, spec: Spec, parameters: Tensors
) -> dict[str, NDArray[Any]]:
    """Where each unit reads, in pixels and degrees, from its weights and from where the layer's cells look."""
    from tuner.synthesis.receptive_fields import from_readout
    from tuner.synthesis.sight import sight

    model = encoder(workspace, spec, parameters, trial=None, value=None)
    columns = from_readout(model, sight(model, workspace.sights)).columns(
        workspace.experiment.data.pixels_per_degree
    )
    return {name: np.asarray(values) for name, values in columns.items()}
