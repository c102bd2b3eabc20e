"""Reading and writing optuna's trials in bulk: many rows in one transaction instead of a transaction a value.

optuna's own calls take a transaction each; a trial with 20 reports costs some 30 of them. This module writes the same
rows, and is used only where the schema's revision is one it knows; tests hold that optuna reads back equal trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    distribution_to_json,
    json_to_distribution,
)
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

_CHUNK = 500
"""Identifiers in one IN (...) list."""


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


def create(
    connection: Connection,
    study_id: int,
    proposals: Sequence[Proposal],
    space: Mapping[str, BaseDistribution],
) -> list[Trial]:
    """Insert RUNNING trials with their parameters; numbers go on from the study's last."""
    first = connection.execute(
        sa.select(sa.func.count())
        .select_from(tables.trials)
        .where(tables.trials.c.study_id == study_id)
    ).scalar_one()
    now = _now()
    encoded = {name: distribution_to_json(d) for name, d in space.items()}
    made = []
    for offset, proposal in enumerate(proposals):
        result = connection.execute(
            tables.trials.insert().values(
                number=first + offset,
                study_id=study_id,
                state=TrialState.RUNNING,
                datetime_start=now,
            )
        )
        trial_id = int(result.inserted_primary_key[0])  # type: ignore[index]
        made.append(
            Trial(trial_id, study_id, first + offset, TrialState.RUNNING, dict(proposal.params))
        )
        if proposal.note:
            _attributes(connection, tables.user_attrs, trial_id, {ORIGIN: proposal.note})
    rows = [
        {
            "trial_id": trial.trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(trial.params[name]),
            "distribution_json": encoded[name],
        }
        for trial in made
        for name, distribution in space.items()
    ]
    if rows:
        connection.execute(tables.params.insert(), rows)
    return made


def start(connection: Connection, chosen: Iterable[Trial]) -> None:
    """Put WAITING trials to RUNNING."""
    for trial in chosen:
        connection.execute(
            tables.trials.update()
            .where(tables.trials.c.trial_id == trial.trial_id)
            .values(state=TrialState.RUNNING, datetime_start=_now())
        )
        trial.state = TrialState.RUNNING


def report(connection: Connection, rows: Iterable[tuple[int, int, float]]) -> None:
    """Insert intermediate values ``(trial_id, step, value)``, in place of what an earlier attempt wrote there."""
    rows = list(rows)
    steps = {step for _, step, _ in rows}
    for some in _chunks(sorted({trial_id for trial_id, _, _ in rows})):
        connection.execute(
            tables.reports.delete().where(
                tables.reports.c.trial_id.in_(some), tables.reports.c.step.in_(steps)
            )
        )
    _insert_reports(connection, rows)


def _insert_reports(connection: Connection, rows: Iterable[tuple[int, int, float]]) -> None:
    encoded = []
    for trial_id, step, value in rows:
        stored, type_ = tables.stored_report(value)
        encoded.append(
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored,
                "intermediate_value_type": type_,
            }
        )
    if encoded:
        connection.execute(tables.reports.insert(), encoded)


def tell(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Write how trials ended: state, value and all reports."""
    for some in _chunks([outcome.trial_id for outcome in outcomes]):
        connection.execute(tables.reports.delete().where(tables.reports.c.trial_id.in_(some)))
    _insert_reports(
        connection,
        (
            (outcome.trial_id, step, value)
            for outcome in outcomes
            for step, value in outcome.curve.items()
        ),
    )
    rows = []
    for outcome in outcomes:
        connection.execute(
            tables.trials.update()
            .where(tables.trials.c.trial_id == outcome.trial_id)
            .values(state=outcome.state, datetime_complete=_now())
        )
        if outcome.value is not None:
            stored, type_ = tables.stored_value(outcome.value)
            rows.append(
                {
                    "trial_id": outcome.trial_id,
                    "objective": 0,
                    "value": stored,
                    "value_type": type_,
                }
            )
        _attributes(connection, tables.user_attrs, outcome.trial_id, outcome.attributes)
    if rows:
        connection.execute(tables.values.insert(), rows)


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


def requeue(connection: Connection, study_ids: Sequence[int]) -> list[int]:
    """Put RUNNING trials back to WAITING under their own numbers, with their parameters, without their reports.

    Returns
    -------
    list of int
        Identifiers of the trials.
    """
    orphans: list[int] = []
    for some in _chunks(study_ids):
        query = sa.select(tables.trials.c.trial_id).where(
            tables.trials.c.study_id.in_(some), tables.trials.c.state == TrialState.RUNNING
        )
        orphans += connection.execute(query).scalars()
    _put_back(connection, orphans)
    return orphans


def run_again(connection: Connection, study_id: int, number: int | None) -> None:
    """Put a COMPLETE trial, or all, back to WAITING under its number, with its parameters: what it came to is lost."""
    query = sa.select(tables.trials.c.trial_id).where(
        tables.trials.c.study_id == study_id, tables.trials.c.state == TrialState.COMPLETE
    )
    if number is not None:
        query = query.where(tables.trials.c.number == number)
    _put_back(connection, list(connection.execute(query).scalars()))


def _put_back(connection: Connection, trial_ids: Sequence[int]) -> None:
    for some in _chunks(trial_ids):
        connection.execute(tables.reports.delete().where(tables.reports.c.trial_id.in_(some)))
        connection.execute(tables.values.delete().where(tables.values.c.trial_id.in_(some)))
        connection.execute(
            tables.trials.update()
            .where(tables.trials.c.trial_id.in_(some))
            .values(state=TrialState.WAITING, datetime_start=None, datetime_complete=None)
        )


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
    for some in _chunks(list(by_study)):
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
    for some in _chunks(list(found)):
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
        for some in _chunks(study_ids):
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
    storage: Storage, study_ids: Sequence[int], window: float
) -> tuple[int, float]:
    """Trials finished in the last ``window`` seconds, and the seconds since the first of them was begun."""
    wanted = set(study_ids)
    now = _now()
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
    return len(spans), (now - min(start for start, _ in spans)).total_seconds()


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


def set_system_attributes(
    connection: Connection, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    """Set system attributes of a trial, replacing those of the same name."""
    _attributes(connection, tables.system_attrs, trial_id, attributes)


def remove_system_attributes(connection: Connection, keys: Iterable[tuple[int, str]]) -> None:
    """Remove system attributes ``(trial_id, key)``."""
    for trial_id, key in keys:
        connection.execute(
            tables.system_attrs.delete().where(
                tables.system_attrs.c.trial_id == trial_id, tables.system_attrs.c.key == key
            )
        )


def _attributes(
    connection: Connection, table: sa.Table, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    if not attributes:
        return
    connection.execute(
        table.delete().where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes)))
    )
    connection.execute(
        table.insert(),
        [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ],
    )


def _now() -> datetime:
    """UTC without a zone, as optuna stores it since version 5."""
    return datetime.now(UTC).replace(tzinfo=None)


def _chunks(items: Sequence[int]) -> Iterable[Sequence[int]]:
    for begin in range(0, len(items), _CHUNK):
        yield items[begin : begin + _CHUNK]
