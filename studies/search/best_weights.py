"""Which weights of a study are kept: those of its best trials, and the best of every unit.

Both are decided among COMPLETE trials on validation loss. The per-unit choice is made on one half of the validation images,
so that the other half can report it without the optimism of having been chosen on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.database.artifacts import Artifacts, Tensors, dashboard_attribute
from studies.database.connection import Storage
from studies.database.studies import Stored
from studies.database.trials import Trial
from studies.database.weights import Swap, kept_files

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
    """

    trial: Trial
    value: float
    parameters: Tensors
    unit_loss: NDArray[np.float64]
    numbers: NDArray[np.int64] | None = None


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
    for number, artifact_id in files.items():
        if number is not None and number not in chosen:
            swap.gone.append(artifact_id)
            swap.detach.append((ids[number], f"artifacts:{artifact_id}"))
    for one in fitted:
        if one.trial.number in chosen:
            _keep_trial(swap, artifacts, study, one)
    _keep_units(swap, artifacts, study, fitted, files.get(None))
    return swap


def _keep_trial(swap: Swap, artifacts: Artifacts, study: Stored, one: Fitted) -> None:
    tensors = one.parameters | {"unit_loss": torch.from_numpy(one.unit_loss)}
    metadata = {"study": study.name, "trial": str(one.trial.number)}
    artifact_id, size = artifacts.write_tensors(
        tensors, metadata, f"{study.name}/{one.trial.number}"
    )
    swap.rows.append(_row(study, artifact_id, one.trial.number, size))
    key, value = dashboard_attribute(artifact_id, "weights.safetensors", "application/octet-stream")
    swap.attach.append((one.trial.trial_id, key, value))


def _keep_units(
    swap: Swap,
    artifacts: Artifacts,
    study: Stored,
    fitted: Sequence[Fitted],
    before: str | None,
) -> None:
    """Merge a round into the running best per unit."""
    best: Tensors | None = None if before is None else artifacts.read_tensors(before)
    changed = False
    for one in sorted(fitted, key=lambda f: f.trial.number):
        loss = torch.from_numpy(one.unit_loss).clone()
        # A unit that this half says nothing about goes with the best trial of its study.
        loss[:, CHOICE] = loss[:, CHOICE].nan_to_num(one.value)
        if one.numbers is None:
            number = torch.full((len(loss),), one.trial.number, dtype=torch.int64)
        else:
            number = torch.from_numpy(one.numbers)
        mine = one.parameters | {"unit_loss": loss, "trial": number}
        if best is None:
            best, changed = {name: value.clone() for name, value in mine.items()}, True
            continue
        better = loss[:, CHOICE] < best["unit_loss"][:, CHOICE]
        if bool(better.any()):
            changed = True
            for name, value in mine.items():
                best[name][better] = value[better]
    if best is None or not changed:
        return
    artifact_id, size = artifacts.write_tensors(
        best, {"study": study.name, "trial": "best of every unit"}, f"{study.name}/units"
    )
    if before is not None:
        swap.gone.append(before)
    swap.rows.append(_row(study, artifact_id, None, size))


def _row(study: Stored, artifact_id: str, number: int | None, size: int) -> dict[str, object]:
    return {
        "artifact_id": artifact_id,
        "study_id": study.study_id,
        "trial_number": number,
        "bytes": size,
    }
