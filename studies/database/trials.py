"""Trials as the search handles them, and reading them in bulk: one query of each table, whatever there is of them.

How they are written: :mod:`studies.database.writes`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database.connection import Storage

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""What the states of trials are called in listings and figures."""

ORIGIN = "origin"
"""User attribute of a trial: where its parameters come from, where they were not drawn."""


@dataclass
class Trial:
    """A trial as the search handles it."""

    trial_id: int
    study_id: int
    number: int
    state: TrialState
    params: dict[str, float]
    value: float | None = None
    curve: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """Parameters for a trial that is to be made; ``note`` says where they come from."""

    params: Mapping[str, float]
    note: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    trial_id: int
    state: TrialState
    value: float | None
    curve: Mapping[int, float]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def running(storage: Storage) -> dict[int, int]:
    """Study to how many of its trials are RUNNING; studies without any are left out."""
    t = tables.trials.c
    query = (
        sa.select(t.study_id, sa.func.count())
        .where(t.state == TrialState.RUNNING)
        .group_by(t.study_id)
    )
    with storage.read() as connection:
        return {row.study_id: row[1] for row in connection.execute(query)}


def load(
    storage: Storage, study_ids: Sequence[int], *, curves: bool = True
) -> dict[int, list[Trial]]:
    """All trials of studies, by number, with parameters, values and (on request) reports."""
    by_study: dict[int, list[Trial]] = {study_id: [] for study_id in study_ids}
    with storage.read() as connection:
        _load(connection, by_study, curves=curves)
    return by_study


def _load(connection: Connection, by_study: dict[int, list[Trial]], *, curves: bool) -> None:
    found: dict[int, Trial] = {}
    for some in tables.chunks(list(by_study)):
        query = sa.select(
            tables.trials.c.trial_id,
            tables.trials.c.study_id,
            tables.trials.c.number,
            tables.trials.c.state,
        ).where(tables.trials.c.study_id.in_(some))
        for trial_id, study_id, number, state in connection.execute(
            query.order_by(tables.trials.c.number)
        ):
            trial = Trial(trial_id, study_id, number, state, {})
            found[trial_id] = trial
            by_study[study_id].append(trial)
        mine = sa.select(tables.trials.c.trial_id).where(tables.trials.c.study_id.in_(some))
        _put_params(connection, _PARAMS.where(tables.params.c.trial_id.in_(mine)), found)
        v, r = tables.values.c, tables.reports.c
        values = sa.select(v.trial_id, v.value, v.value_type).where(v.trial_id.in_(mine))
        for trial_id, value, kind in connection.execute(values):
            found[trial_id].value = tables.read_value(value, kind)
        if not curves:
            continue
        reports = sa.select(
            r.trial_id, r.step, r.intermediate_value, r.intermediate_value_type
        ).where(r.trial_id.in_(mine))
        for trial_id, step, value, kind in connection.execute(reports.order_by(r.step)):
            found[trial_id].curve[step] = tables.read_value(value, kind)


def user_attribute(storage: Storage, study_id: int, key: str) -> dict[int, Any]:
    """Trial number to a user attribute, of a study's trials that have it."""
    t, a = tables.trials.c, tables.user_attrs.c
    query = (
        sa.select(t.number, a.value_json)
        .join(tables.user_attrs, a.trial_id == t.trial_id)
        .where(t.study_id == study_id, a.key == key)
    )
    with storage.read() as connection:
        return {number: json.loads(value) for number, value in connection.execute(query)}


_PARAMS = sa.select(
    tables.params.c.trial_id,
    tables.params.c.param_name,
    tables.params.c.param_value,
    tables.params.c.distribution_json,
).order_by(tables.params.c.param_id)


def fill_params(connection: Connection, found: dict[int, Trial]) -> None:
    """Fill in the parameters of trials, by identifier."""
    for some in tables.chunks(list(found)):
        _put_params(connection, _PARAMS.where(tables.params.c.trial_id.in_(some)), found)


def _put_params(connection: Connection, query: sa.Select[Any], found: dict[int, Trial]) -> None:
    known: dict[str, BaseDistribution] = {}
    for trial_id, name, value, encoded in connection.execute(query):
        if encoded not in known:
            known[encoded] = json_to_distribution(encoded)
        found[trial_id].params[name] = known[encoded].to_external_repr(value)


def durations(storage: Storage, study_ids: Sequence[int]) -> dict[int, float]:
    """Seconds that rounds of each study took, rounds that ran together counted in each of their studies."""
    spans: dict[int, set[tuple[datetime, datetime]]] = {study_id: set() for study_id in study_ids}
    t = tables.trials.c
    with storage.read() as connection:
        for some in tables.chunks(study_ids):
            query = sa.select(t.study_id, t.datetime_start, t.datetime_complete).where(
                t.study_id.in_(some), t.datetime_complete.is_not(None)
            )
            for study_id, start, end in connection.execute(query):
                if start is not None:
                    spans[study_id].add((start.replace(microsecond=0), end.replace(microsecond=0)))
    return {
        study_id: sum(max((end - begin).total_seconds(), 0.0) for begin, end in mine)
        for study_id, mine in spans.items()
    }


def recently_finished(
    storage: Storage, study_ids: Sequence[int], window: float, *, running: bool
) -> tuple[int, float]:
    """Trials finished in the last ``window`` seconds, and the seconds since the first of them was begun.

    Where nothing is ``running`` the seconds end with the last of them: a search that is over gets no slower.
    """
    wanted = set(study_ids)
    now = tables.now()
    query = sa.select(
        tables.trials.c.study_id, tables.trials.c.datetime_start, tables.trials.c.datetime_complete
    ).where(
        tables.trials.c.datetime_complete >= now - timedelta(seconds=window),
        tables.trials.c.state.in_(FINISHED),
    )
    with storage.read() as connection:
        spans = [
            (start or end, end)
            for study_id, start, end in connection.execute(query)
            if study_id in wanted
        ]
    if not spans:
        return 0, 0.0
    end = now if running else max(end for _, end in spans)
    return len(spans), (end - min(start for start, _ in spans)).total_seconds()


def frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """The trial as optuna's samplers read it."""
    value = trial.value if trial.state == TrialState.COMPLETE else None
    curve = {step: (math.inf if math.isnan(v) else v) for step, v in trial.curve.items()}
    return create_trial(
        state=trial.state,
        value=value,
        params={name: trial.params[name] for name in space},
        distributions=dict(space),
        intermediate_values=curve,
    )
