"""All about one study, and what about it deserves attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from studies.config.experiment import Experiment
from studies.config.ranges import FloatRange, IntRange, Setting
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import Stored, stored_studies
from studies.database.summaries import closed_form_line, listing, no_better, summaries
from studies.database.trials import Trial
from studies.results.importance import importance
from tuner.errors import unknown

EDGE = 0.05
"""A best parameter this near an end of its range, as a share of the range, may lie beyond it."""


def describe(stores: Stores, name: str, experiment: Experiment) -> dict[str, Any]:
    """Facts, trials and warnings of one study.

    Raises
    ------
    InputError
        If there is no such study; the message lists those there are.
    """
    stored = stored_studies(stores.storage)
    if name not in stored:
        shown = list(stored)[:8] + (["..."] if len(stored) > 8 else [])
        raise unknown("study", name, shown)
    study = stored[name]
    (summary,) = summaries(stores.storage, [study])
    line = closed_form_line(stores.storage, stored.values())
    item = listing([summary], stores.claims, line)[0]
    loaded = trials.load(stores.storage, [study.study_id])[study.study_id]
    origins = trials.user_attribute(stores.storage, study.study_id, trials.ORIGIN)
    times = trials.durations(stores.storage, [study.study_id])[study.study_id]
    space = experiment.search.space.get(study.key.readout, {})
    facts: dict[str, Any] = dict(study.columns)
    facts |= {f"trials {state}": count for state, count in item["trials"].items()}
    best = item["best"]
    if best is not None:
        facts |= {"best trial": best["number"], "validation loss": best["value"]}
        facts |= {f"best {key}": value for key, value in best["params"].items()}
    if summary.encoder_loss is not None:
        facts["validation loss, every unit its own"] = summary.encoder_loss
    if item["below_smooth"] is not None:
        facts["loss above smooth"] = item["below_smooth"]
    if summary.settled is not None:
        facts["settled after trials"] = summary.settled["trials"]
        facts["expected gain of more"] = summary.settled["expected_gain"]
    facts["training time, s"] = times
    return {
        "study": name,
        "facts": facts,
        "importance": importance(loaded, space).shares,
        "trials": [_shown(trial, origins.get(trial.number)) for trial in _best_first(loaded)],
        "warnings": warnings(study, loaded, space),
        "fingerprint": study.fingerprint,
    }


def _best_first(loaded: Sequence[Trial]) -> list[Trial]:
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1}
    return sorted(
        loaded,
        key=lambda t: (order.get(t.state, 2), math.inf if t.value is None else t.value, t.number),
    )


def _shown(trial: Trial, origin: str | None) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trials.WORDS[trial.state],
        "value": trial.value,
        "last_step": max(trial.curve, default=None),
        "params": ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items()),
        "origin": origin,
    }


def warnings(study: Stored, loaded: Sequence[Trial], space: Mapping[str, Setting]) -> list[str]:
    """What deserves attention: fits no better than the mean, best parameters at an end of their range, divergence."""
    out = []
    if study.set_aside:
        out.append(f"set aside: {study.set_aside}")
    finished = [t for t in loaded if t.state in trials.FINISHED]
    complete = [t for t in finished if t.state == TrialState.COMPLETE and t.value is not None]
    diverged = [t for t in finished if t.value is not None and math.isinf(t.value)]
    if finished and 2 * len(diverged) > len(finished):
        out.append(
            f"{len(diverged)} of {len(finished)} trials diverged; lower the learning_rate range"
        )
    if not complete:
        return out
    best = min(complete, key=lambda t: (t.value, t.number))
    if best.value is not None and no_better(best.value):
        out.append("the best trial is no better than predicting every unit's mean")
    if len(finished) >= 20:
        out += [
            f"best {name} = {best.params[name]:.3g} lies at the {end} end of its range "
            f"({setting.low:g} to {setting.high:g}); widen it"
            for name, setting in space.items()
            if isinstance(setting, FloatRange | IntRange)
            and name in best.params
            and (end := edge(best.params[name], setting))
        ]
    return out


def edge(value: float, setting: FloatRange | IntRange) -> str | None:
    """``"lower"`` or ``"upper"`` where a value lies within 5 % of that end of its range, on its own scale."""
    low, high, at = float(setting.low), float(setting.high), float(value)
    if setting.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    if share < EDGE:
        return "lower"
    return "upper" if share > 1 - EDGE else None
