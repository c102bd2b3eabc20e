"""What the releases before did where ``tuner.toml`` had no key for it, so that their experiments go on as they were made.

A study's fingerprint without a key counts as what was then done. And where the database holds such studies, a key that
``tuner.toml`` does not write has the value of then, not today's default; written with another value it is refused like
every mismatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.config.experiment import Experiment

BEFORE: Mapping[str, Any] = {
    "training.center": False,
    "training.folds": 1,
    "training.start": "readout",
    "training.relative": False,
    "training.size_invariant": False,
    "search.rungs": "reports",
    "search.proposals": "optuna",
    "search.space.full.weight_decay": 0.0,
    "data.duplicates": "ignore",
}
"""Key to what was done before there was the key; a new one that changes results is a line here."""

JUDGED_BEFORE: Mapping[str, Any] = {
    "data.test_duplicates": "allow",
    "data.min_explainable": 0.0,
    "data.repeats": "exchangeable",
    "data.intervals": "images",
    "data.reliability": "recorded",
}
"""The same of keys that change how results are judged and not the results: free to change, so in no fingerprint. They go
with `data.duplicates`, which is as old as they are."""

OF_BACKBONES_BEFORE: Mapping[str, Any] = {
    "backbone.tokens": "grid",
    "backbone.rectify": "auto",
    "backbone.precision": "float32",
}
"""The same of keys of ``[[backbone]]``, whose defaults are what was done before there were the keys."""

READOUTS_BEFORE = ("full", "factorized")
"""Readouts that were tried where ``search.space`` named none."""

NEIGHBOUR = "neighbour"
"""What ``search.warm_start`` was where it was true."""

_WARM = "search.warm_start"
_SPACE = "search.space."


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fingerprint with every key that its study was made without.

    Parameters
    ----------
    stored
        As the database has it.
    """
    out = {**OF_BACKBONES_BEFORE, **stored}
    if out.get(_WARM) is True:
        out[_WARM] = NEIGHBOUR
    for key in _absent(stored):
        table, _, name = key.rpartition(".")
        if key.startswith(_SPACE):
            out[table] = {**out[table], name: BEFORE[key]}
        else:
            out[key] = BEFORE[key]
    return out


def _absent(stored: Mapping[str, Any]) -> list[str]:
    """Keys that a fingerprint is without; of hyperparameters those of its own readout."""
    out = []
    for key in BEFORE:
        table, _, name = key.rpartition(".")
        if key.startswith(_SPACE):
            if table in stored and name not in stored[table]:
                out.append(key)
        elif key not in stored and "training.steps" in stored:  # no closed form: there were none
            out.append(key)
    return out


def as_made(experiment: Experiment, fingerprints: Iterable[Mapping[str, Any]]) -> Experiment:
    """Return the experiment under which studies that are there go on as they were made.

    Parameters
    ----------
    experiment
        What the config file says.
    fingerprints
        Of the studies in its database, as stored.

    Returns
    -------
    Experiment
        The same one where no study was made by a release before.
    """
    made = list(fingerprints)
    if any("backbone.tokens" not in stored for stored in made):
        experiment = _with_assumed_input(experiment)
    absent = {key for stored in made for key in _absent(stored)}
    if not absent:
        return experiment
    tables: dict[str, dict[str, Any]] = {"data": {}, "training": {}, "search": {}}
    space = dict(experiment.search.space)
    if not any(key.startswith(_SPACE) for key in experiment.written):
        space = {readout: space[readout] for readout in READOUTS_BEFORE}
    for key in sorted(absent - experiment.written):
        table, _, name = key.rpartition(".")
        if table in tables:
            tables[table][name] = BEFORE[key]
        elif (readout := table.removeprefix(_SPACE)) in space:
            space[readout] = {**space[readout], name: BEFORE[key]}
    if _WARM not in experiment.written and any(stored.get(_WARM) is True for stored in made):
        tables["search"]["warm_start"] = NEIGHBOUR
    if "data.duplicates" in absent:
        judged = {
            key: value for key, value in JUDGED_BEFORE.items() if key not in experiment.written
        }
        tables["data"] |= {key.removeprefix("data."): value for key, value in judged.items()}
    return experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update=tables["data"]),
            "training": experiment.training.model_copy(update=tables["training"]),
            "search": experiment.search.model_copy(update={**tables["search"], "space": space}),
        }
    )


def _with_assumed_input(experiment: Experiment) -> Experiment:
    """Give weights from files the mean and std that were assumed before they had to be written."""
    if all(table.weights in ("imagenet", "random") or table.mean for table in experiment.backbone):
        return experiment
    from tuner.backbones.registry import assumed_before

    tables = []
    for table in experiment.backbone:
        if table.weights not in ("imagenet", "random") and table.mean is None and table.std is None:
            assumed = assumed_before(table.name)
            table = table.model_copy(update={"mean": assumed.mean, "std": assumed.std})
        tables.append(table)
    return experiment.model_copy(update={"backbone": tuple(tables)})
