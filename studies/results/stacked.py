"""All layers and readouts of a region as one encoder: what each of its studies came to, weighted for every unit.

Weights come from the images that trials are judged on, each predicted by a fit that did not see it. Test images choose
nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.database.stores import Stores
from studies.grid import Spec
from studies.names import StudyKey
from studies.results.encoders import Best, Whole, best_studies, each
from studies.results.judged import fit_failed, mean_losses, per_unit, units_failed
from studies.results.on_test_images import on_test_images
from studies.results.predictions import held_out, respond, tested
from studies.results.scores import unit_rows
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.figures.captions import STACKED
from tuner.progress import counted

if TYPE_CHECKING:
    from tuner.encoder import StackedEncoder

Member = tuple[Best, Whole]


@dataclass(frozen=True)
class Stack:
    """The studies of a region on a backbone, and what each of them counts.

    Attributes
    ----------
    spec
        Stands for the stack where a study would stand.
    members
        Studies with the weights that are used.
    weights
        ``(n_members, n_units)``, not negative.
    held_out
        ``(n_held_out, n_units)`` scaled responses to the images that the weights are from, under weights from the other
        half of these images.
    """

    spec: Spec
    members: tuple[Member, ...]
    weights: NDArray[np.float64]
    held_out: NDArray[np.float64]

    def encoder(self) -> StackedEncoder:
        """The image-computable model."""
        import torch

        from tuner.encoder import StackedEncoder

        encoders = [best.made(kept) for best, kept in self.members]
        meta: dict[str, Any] = encoders[0].meta | {"study": self.spec.name, "trial": STACKED}
        meta["validation_loss"] = None
        return StackedEncoder(encoders, torch.from_numpy(self.weights), meta)


def stacks(workspace: Workspace, stores: Stores, specs: Sequence[Spec]) -> Iterator[Stack]:
    """One stack per backbone and region of the studies that have a complete trial, where there are two or more.

    Raises
    ------
    InputError
        If no region has two.
    """
    together: dict[tuple[str, str], list[Best]] = {}
    for best in best_studies(workspace, stores, specs):
        key = best.spec.key
        together.setdefault((key.backbone, key.region), []).append(best)
    several = [found for found in together.values() if len(found) > 1]
    if not several:
        raise InputError(
            "--stacked: no region has two studies with complete trials; select more layers or readouts"
        )
    for found in counted(several, "stacking", workspace.progress):
        members = list(each(found, Best.shown))
        if len(members) > 1:
            yield _stack(workspace, members)


def _stack(workspace: Workspace, members: Sequence[Member]) -> Stack:
    from tuner.encoder.stacked import stacking_weights

    specs = [best.spec for best, _ in members]
    units, key = specs[0].units, specs[0].key
    last = max(spec.layer_index for spec in workspace.grid if spec.key.backbone == key.backbone)
    spec = Spec(
        StudyKey(key.backbone, STACKED, key.region, STACKED), last + 1, units, specs[0].shape, {}
    )
    base, loss = _mean_response(workspace), workspace.experiment.training.loss
    predicted = np.stack(
        [
            respond(loss, held_out(workspace, best.spec, kept.parameters)) - base
            for best, kept in members
        ]
    )
    measured = workspace.targets.validation[:, units] - base
    half = workspace.cuts.halves
    crossed = np.zeros(measured.shape)
    for side in (0, 1):
        other = stacking_weights(predicted[:, half != side], measured[half != side])
        crossed[half == side] = np.einsum("mtu,mu->tu", predicted[:, half == side], other)
    weights = stacking_weights(predicted, measured)
    return Stack(spec, tuple(members), weights, crossed + base)


def _mean_response(workspace: Workspace) -> float:
    """A unit's mean response, scaled."""
    return 0.0 if workspace.experiment.training.loss == "mse" else 1.0


def evaluate_stack(
    workspace: Workspace, stack: Stack
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, tuple[float, float]]]:
    """A row of ``heatmap.csv``, a row of ``units.csv`` for every unit, and the limits of the region's scores.

    ``validation_loss`` and ``validation_correlation`` are of the images that weights are from, each half under the
    weights of the other half.
    """
    from tuner.scores import mean_correlation, pearson

    spec, loss = stack.spec, workspace.experiment.training.loss
    measured = workspace.targets.validation[:, spec.units]
    each_loss = _losses(loss, stack.held_out, measured)
    correlation = pearson(stack.held_out, measured[None])
    flat = mean_losses(loss, measured)
    scores: dict[str, NDArray[Any]] = {
        "validation_loss": per_unit(workspace, each_loss, flat),
        "validation_correlation": correlation,
    }
    value = float(np.nanmean(each_loss, axis=0).mean()) / workspace.mean_loss(spec.units)
    trials = sum(best.summary.finished for best, _ in stack.members)
    scores["fit_failed"] = units_failed(workspace, each_loss, flat, trials=trials)
    row: dict[str, Any] = spec.columns | {
        "n_units": len(spec.units),
        "n_trials": trials,
        "validation_loss": value,
        "validation_correlation": mean_correlation(correlation, measured[None]),
        "fit_failed": fit_failed(workspace, value, each_loss, flat, trials=trials),
        "note": f"{len(stack.members)} studies together",
    }
    intervals: dict[str, tuple[float, float]] = {}
    if workspace.recording.test_responses is not None:
        base = _mean_response(workspace)
        scaled = np.full((workspace.recording.n_test, len(spec.units)), base)
        for (best, kept), weight in zip(stack.members, stack.weights, strict=True):
            scaled += weight * (respond(loss, tested(workspace, best.spec, kept.parameters)) - base)
        scaling = workspace.scaling
        predicted = scaled.astype(np.float32) * scaling.scale[spec.units] + scaling.mean[spec.units]
        of_test = on_test_images(workspace, spec.units, predicted)
        scores |= of_test.units
        row |= of_test.columns(workspace)
        intervals = of_test.intervals
    return row, unit_rows(workspace, spec, scores), intervals


def _losses(
    loss: str, responses: NDArray[np.float64], measured: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Loss of scaled responses, ``(n, n_units)``."""
    if loss == "mse":
        return np.square(responses - measured)
    rate = np.maximum(responses, 1e-9)  # a sum of rates weighted may fall below 0
    return np.asarray(rate - measured * np.log(rate + 1e-9))
