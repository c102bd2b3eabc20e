"""Which weights of a study are kept: those of its best trials, and the best of every unit.

Both are decided among COMPLETE trials on validation loss. The per-unit choice is made on one half of the validation images,
so that the other half can report it without the optimism of having been chosen on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState
from torch import Tensor

from studies.database import rounds
from studies.database.artifacts import (
    Artifacts,
    Tensors,
    UnreadableWeights,
    dashboard_attribute,
    identity,
)
from studies.database.connection import Storage
from studies.database.rounds import Told
from studies.database.studies import Stored
from studies.database.trials import Trial
from studies.database.weights import KeptFile, Swap, kept_files

_log = logging.getLogger("tuner")

HELD_OUT = "held_out"
"""Name, in a weights file, of the responses to the images that a trial is judged on."""

CHOICE, REPORT = 0, 1
"""Halves of the validation images."""


@dataclass(frozen=True)
class Fitted:
    """Weights of a COMPLETE trial at its best report.

    Attributes
    ----------
    parameters
        The readout's exported parameters, one row a unit.
    unit_loss
        ``(n_units, 2)`` validation loss of each unit on each half at that report; NaN where the half has no response of it.
    numbers
        ``(n_units,)`` number of the trial that each unit's parameters are of, where they are not all of `trial`.
    held_out
        With folds ``(n_train, n_units)`` responses of the readout, as it was at that report, to each image by the fold that
        did not see it; ``parameters`` are the average over folds. None with a single cut, where they can be made anew.
    """

    trial: Trial
    value: float
    parameters: Tensors
    unit_loss: NDArray[np.float64]
    numbers: NDArray[np.int64] | None = None
    held_out: Tensor | None = None


def best_first(values: Mapping[int, float]) -> list[int]:
    """Trial numbers by value, ties to the lower number."""
    return sorted(values, key=lambda number: (values[number], number))


def prepare(
    storage: Storage,
    artifacts: Artifacts,
    study: Stored,
    earlier: Sequence[Trial],
    fitted: Sequence[Fitted],
    keep: int,
) -> Swap:
    """Write the files of a round and say which change hands.

    Parameters
    ----------
    earlier
        Finished trials of earlier rounds.
    fitted
        COMPLETE trials of this round.
    keep
        Number of trials whose weights are kept.
    """
    swap = Swap()
    if not fitted:
        return swap
    files = kept_files(storage, study.study_id)
    complete = {
        t.number: t.value for t in earlier if t.state == TrialState.COMPLETE and t.value is not None
    }
    values = complete | {f.trial.number: f.value for f in fitted}
    chosen = set(best_first(values)[:keep])
    ids = {t.number: t.trial_id for t in earlier} | {
        f.trial.number: f.trial.trial_id for f in fitted
    }
    for number, file in files.items():
        if number is not None and number not in chosen:
            swap.gone.append(file.artifact_id)
            swap.detach.append((ids[number], f"artifacts:{file.artifact_id}"))
    for one in fitted:
        if one.trial.number in chosen:
            _keep_trial(swap, artifacts, study, one)
    _keep_units(swap, artifacts, study, fitted, files, complete)
    return swap


def _tensors(one: Fitted) -> Tensors:
    """What is kept of a trial."""
    tensors = one.parameters | {"unit_loss": torch.from_numpy(one.unit_loss)}
    return tensors if one.held_out is None else tensors | {HELD_OUT: one.held_out}


def _keep_trial(swap: Swap, artifacts: Artifacts, study: Stored, one: Fitted) -> None:
    tensors = _tensors(one)
    metadata = {"study": study.name, "trial": str(one.trial.number)}
    artifact_id, size = artifacts.write_tensors(
        tensors, metadata, identity(study.name, one.trial.number)
    )
    swap.rows.append(_row(study, artifact_id, one.trial.number, size))
    key, value = dashboard_attribute(artifact_id, "weights.safetensors", "application/octet-stream")
    swap.attach.append((one.trial.trial_id, key, value))


def _keep_units(
    swap: Swap,
    artifacts: Artifacts,
    study: Stored,
    fitted: Sequence[Fitted],
    files: Mapping[int | None, KeptFile],
    complete: Mapping[int, float],
) -> None:
    """Merge a round into the running best per unit."""
    before = files.get(None)
    best: Tensors | None = None
    changed = False
    if before is not None:
        try:
            best = before.read(artifacts)
        except UnreadableWeights as error:
            _log.warning("%s; its units' best are those of the trials that are kept", error)
            artifacts.set_aside(before.artifact_id)
            best = units_of_kept(artifacts, files, complete)
            changed = True
    for one in sorted(fitted, key=lambda f: f.trial.number):
        mine = _tensors(one)
        numbers = one.trial.number if one.numbers is None else one.numbers
        best, better = _merged(best, mine, numbers, one.value)
        changed |= better
    if best is None or not changed:
        return
    swap.rows.append(_write_units(artifacts, study, best))
    if before is not None:
        swap.gone.append(before.artifact_id)


def _merged(
    best: Tensors | None,
    mine: Mapping[str, torch.Tensor],
    numbers: int | NDArray[np.int64],
    value: float,
) -> tuple[Tensors, bool]:
    """The best of every unit with a further trial, and whether any unit is better in it; changes ``best``."""
    loss = mine["unit_loss"].clone()
    # A unit that this half says nothing about goes with the best trial of its study.
    loss[:, CHOICE] = loss[:, CHOICE].nan_to_num(value)
    trial = torch.from_numpy(np.broadcast_to(np.int64(numbers), (len(loss),)).copy())
    mine = {**mine, "unit_loss": loss, "trial": trial}
    if best is None:
        return {name: tensor.clone() for name, tensor in mine.items()}, True
    better = loss[:, CHOICE] < best["unit_loss"][:, CHOICE]
    if not bool(better.any()):
        return best, False
    for name, tensor in mine.items():
        which = (slice(None), better) if name == HELD_OUT else better
        best[name][which] = tensor[which]
    return best, True


def units_of_kept(
    artifacts: Artifacts, files: Mapping[int | None, KeptFile], values: Mapping[int, float]
) -> Tensors | None:
    """The best of every unit among the trials whose weights are kept and whole; None without any.

    Parameters
    ----------
    files
        Kept files by trial number, as `kept_files` returns them.
    values
        Value of each of those trials.
    """
    best: Tensors | None = None
    for number in sorted(number for number in files if number is not None):
        try:
            mine = files[number].read(artifacts)
        except UnreadableWeights:
            continue
        best, _ = _merged(best, mine, number, values[number])
    return best


def mend_units(
    storage: Storage, artifacts: Artifacts, study: Stored, values: Mapping[int, float]
) -> None:
    """Make the lost best of every unit anew, from the trials whose weights are kept; the claim is held."""
    files = kept_files(storage, study.study_id)
    swap = Swap(gone=[files[None].artifact_id])
    artifacts.set_aside(files[None].artifact_id)
    best = units_of_kept(artifacts, files, values)
    if best is not None:
        swap.rows.append(_write_units(artifacts, study, best))
    rounds.tell(storage, [Told(study, [], swap)])
    swap.finish(artifacts)


def _write_units(artifacts: Artifacts, study: Stored, best: Tensors) -> dict[str, object]:
    artifact_id, size = artifacts.write_tensors(
        best, {"study": study.name, "trial": "best of every unit"}, identity(study.name, None)
    )
    return _row(study, artifact_id, None, size)


def _row(study: Stored, artifact_id: str, number: int | None, size: int) -> dict[str, object]:
    return {
        "artifact_id": artifact_id,
        "study_id": study.study_id,
        "trial_number": number,
        "bytes": size,
    }
