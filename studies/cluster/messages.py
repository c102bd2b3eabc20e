"""What travels between coordinator and workers: JSON and tensors in safetensors' format, under a hash of both.

Nothing of ours is pickled: a round is settings, trials and numbers, and what comes back is taken apart and compared with
what was asked before anything of it is stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from studies.database.studies import Stored
from studies.database.trials import FINISHED, Outcome, Trial
from studies.names import StudyKey
from studies.search.best_weights import Fitted
from tuner.errors import TunerError

if TYPE_CHECKING:
    from torch import Tensor

    from studies.config.experiment import Experiment
    from studies.grid import Spec
    from studies.search.training import Ended

_DIGEST = 16


class Garbled(TunerError):  # noqa: N818 - what it is about, as in tuner.errors
    """A message is not what it should be."""


@dataclass(frozen=True)
class Message:
    """What one message says."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]


def pack(header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """Write a message: hash, length of the header, header, tensors."""
    from safetensors.torch import save

    text = json.dumps(header).encode()
    body = b"" if not tensors else save({k: v.contiguous() for k, v in tensors.items()})
    content = len(text).to_bytes(8, "little") + text + body
    return hashlib.blake2b(content, digest_size=_DIGEST).digest() + content


def unpack(message: bytes) -> Message:
    """Read a message.

    Raises
    ------
    Garbled
        If it is not as it was written.
    """
    from safetensors.torch import load

    digest, content = message[:_DIGEST], message[_DIGEST:]
    if hashlib.blake2b(content, digest_size=_DIGEST).digest() != digest:
        raise Garbled("a message between coordinator and worker arrived damaged")
    length = int.from_bytes(content[:8], "little")
    body = content[8 + length :]
    return Message(json.loads(content[8 : 8 + length]), load(body) if body else {})


# -- the experiment ---------------------------------------------------------------------------------


def document(experiment: Experiment) -> dict[str, Any]:
    """The experiment as a worker reads it: without the database's address, which it has no use for."""
    left_out: Any = {"storage": {"url"}, "cluster": True}
    out = experiment.model_dump(mode="json", exclude=left_out, exclude_none=True)
    out["storage"]["cache_limit"] = f"{experiment.storage.cache_limit}B"
    if isinstance(memory := experiment.training.memory, int):
        out["training"]["memory"] = f"{memory}B"
    return {
        "tables": out,
        "file": str(experiment.file),
        "cache": experiment.cluster.cache,
        # What a table stands for that the file does not write: which draw of random weights.
        "backbones": [dict(table.__pydantic_private__ or {}) for table in experiment.backbone],
    }


def experiment_of(plain: Mapping[str, Any]) -> Experiment:
    """The experiment that was sent, with the worker's own cache where it is to have one."""
    from studies.config.experiment import parse_experiment

    tables = dict(plain["tables"])
    if plain["cache"] is not None:
        folder = Path(os.path.expandvars(plain["cache"])).expanduser()
        tables["storage"] = {**tables["storage"], "cache": str(folder)}
    experiment = parse_experiment(tables, plain["file"])
    for table, private in zip(experiment.backbone, plain["backbones"], strict=True):
        for name, value in private.items():
            setattr(table, name, value)
    return experiment


def plain_study(study: Stored) -> dict[str, Any]:
    """A study as it is stored, to be sent."""
    key = study.key
    return {
        "key": [key.backbone, key.layer, key.region, key.readout],
        "layer_index": study.layer_index,
        "fingerprint": study.fingerprint,
        "plan": study.plan,
        "study_id": study.study_id,
        "seal": study.seal,
    }


def study_of(plain: Mapping[str, Any]) -> Stored:
    """The study that was sent."""
    return Stored(
        StudyKey(*plain["key"]),
        plain["layer_index"],
        plain["fingerprint"],
        plain["plan"],
        plain["study_id"],
        None,
        plain["seal"],
    )


# -- trials, and how they ended ---------------------------------------------------------------------


def plain_trials(some: Sequence[Trial]) -> list[list[Any]]:
    """Trials, to be sent."""
    return [
        [t.trial_id, t.study_id, t.number, t.state.name, t.params, t.value, list(t.curve.items())]
        for t in some
    ]


def trials_of(plain: Sequence[Sequence[Any]]) -> list[Trial]:
    """The trials that were sent."""
    return [
        Trial(trial_id, study_id, number, TrialState[state], params, value, dict(curve))
        for trial_id, study_id, number, state, params, value, curve in plain
    ]


def pack_ended(results: Mapping[str, Ended]) -> bytes:
    """How the trials of each study ended, with the weights of those that are complete."""
    header: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, (outcomes, fitted) in results.items():
        rows = []
        for one in fitted:
            at = f"{len(tensors)}/"
            tensors |= {f"{at}{key}": value for key, value in _tensors(one).items()}
            rows.append({"trial_id": one.trial.trial_id, "value": one.value, "at": at})
        header[name] = {
            "outcomes": [
                [o.trial_id, o.state.name, o.value, list(o.curve.items()), dict(o.attributes)]
                for o in outcomes
            ],
            "fitted": rows,
        }
    return pack(header, tensors)


def _tensors(one: Fitted) -> dict[str, Tensor]:
    import torch

    out = {f"parameters/{name}": value for name, value in one.parameters.items()}
    out["unit_loss"] = torch.from_numpy(one.unit_loss)
    if one.numbers is not None:
        out["numbers"] = torch.from_numpy(one.numbers)
    if one.held_out is not None:
        out["held_out"] = one.held_out
    return out


def ended_of(
    message: bytes, asked: Mapping[str, Sequence[Trial]], specs: Mapping[str, Spec]
) -> dict[str, Ended]:
    """How a round ended, once it is certain that it is the round that was asked.

    Parameters
    ----------
    asked
        Its trials, by study.
    specs
        Its studies.

    Raises
    ------
    Garbled
        If a trial is missing or another's, has ended in no way that trials do, or has weights of another number of units.
    """
    arrived = unpack(message)
    out: dict[str, Ended] = {}
    if set(arrived.header) != set(asked):
        raise Garbled("a worker sent back other studies than it was given")
    for name, mine in asked.items():
        plain = arrived.header[name]
        outcomes = [
            Outcome(trial_id, TrialState[state], value, dict(curve), attributes)
            for trial_id, state, value, curve, attributes in plain["outcomes"]
        ]
        by_id = {trial.trial_id: trial for trial in mine}
        complete = {o.trial_id for o in outcomes if o.state == TrialState.COMPLETE}
        if sorted(by_id) != sorted(o.trial_id for o in outcomes):
            raise Garbled(f"{name}: a worker sent back other trials than it was given")
        if any(o.state not in FINISHED or o.value is None or o.value != o.value for o in outcomes):
            raise Garbled(f"{name}: a worker sent back a trial without a value")
        fitted = []
        for row in plain["fitted"]:
            one = _fitted(arrived.tensors, by_id[row["trial_id"]], row["value"], row["at"])
            lengths = {len(one.unit_loss), *(len(value) for value in one.parameters.values())}
            if row["trial_id"] not in complete or lengths != {len(specs[name].units)}:
                raise Garbled(f"{name}: a worker sent back weights that are not those of the trial")
            fitted.append(one)
        out[name] = (outcomes, fitted)
    return out


def _fitted(tensors: Mapping[str, Tensor], trial: Trial, value: float, at: str) -> Fitted:
    mine = {key.removeprefix(at): t for key, t in tensors.items() if key.startswith(at)}
    numbers = mine.get("numbers")
    return Fitted(
        trial,
        value,
        {
            key.removeprefix("parameters/"): tensor
            for key, tensor in mine.items()
            if key.startswith("parameters/")
        },
        mine["unit_loss"].numpy(),
        None if numbers is None else numbers.numpy(),
        mine.get("held_out"),
    )
