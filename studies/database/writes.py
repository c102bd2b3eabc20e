"""Writing optuna's trials in bulk: many rows in one transaction instead of a transaction a value.

optuna's own calls take a transaction each; a trial with 20 reports costs some 30 of them. This module writes the same
rows, and is used only where the schema's revision is one it knows; tests hold that optuna reads back equal trials. Whether
they may be written is seen to in :mod:`studies.database.rounds`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database.trials import ORIGIN, Outcome, Proposal, Trial


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
    begun = tables.now()
    encoded = {name: distribution_to_json(d) for name, d in space.items()}
    made = []
    for offset, proposal in enumerate(proposals):
        result = connection.execute(
            tables.trials.insert().values(
                number=first + offset,
                study_id=study_id,
                state=TrialState.RUNNING,
                datetime_start=begun,
            )
        )
        trial_id = int(result.inserted_primary_key[0])  # type: ignore[index]
        made.append(
            Trial(trial_id, study_id, first + offset, TrialState.RUNNING, dict(proposal.params))
        )
        if proposal.note:
            set_attributes(connection, tables.user_attrs, trial_id, {ORIGIN: proposal.note})
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
            .values(state=TrialState.RUNNING, datetime_start=tables.now())
        )
        trial.state = TrialState.RUNNING


def report(connection: Connection, rows: Iterable[tuple[int, int, float]]) -> None:
    """Insert intermediate values ``(trial_id, step, value)``, in place of what an earlier attempt wrote there."""
    rows = list(rows)
    steps = {step for _, step, _ in rows}
    for some in tables.chunks(sorted({trial_id for trial_id, _, _ in rows})):
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
    for some in tables.chunks([outcome.trial_id for outcome in outcomes]):
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
            .values(state=outcome.state, datetime_complete=tables.now())
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
        set_attributes(connection, tables.user_attrs, outcome.trial_id, outcome.attributes)
    if rows:
        connection.execute(tables.values.insert(), rows)


def requeue(connection: Connection, study_ids: Sequence[int]) -> list[int]:
    """Put RUNNING trials back to WAITING under their own numbers, with their parameters, without their reports.

    Returns
    -------
    list of int
        Identifiers of the trials.
    """
    orphans: list[int] = []
    for some in tables.chunks(study_ids):
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
    for some in tables.chunks(trial_ids):
        connection.execute(tables.reports.delete().where(tables.reports.c.trial_id.in_(some)))
        connection.execute(tables.values.delete().where(tables.values.c.trial_id.in_(some)))
        connection.execute(
            tables.trials.update()
            .where(tables.trials.c.trial_id.in_(some))
            .values(state=TrialState.WAITING, datetime_start=None, datetime_complete=None)
        )


def set_system_attributes(
    connection: Connection, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    """Set system attributes of a trial, replacing those of the same name."""
    set_attributes(connection, tables.system_attrs, trial_id, attributes)


def remove_system_attributes(connection: Connection, keys: Iterable[tuple[int, str]]) -> None:
    """Remove system attributes ``(trial_id, key)``."""
    for trial_id, key in keys:
        connection.execute(
            tables.system_attrs.delete().where(
                tables.system_attrs.c.trial_id == trial_id, tables.system_attrs.c.key == key
            )
        )


def set_attributes(
    connection: Connection, table: sa.Table, owner: int, attributes: Mapping[str, Any]
) -> None:
    """Write attributes of a study or a trial, in one of optuna's four tables of them, in place of those of these names."""
    if not attributes:
        return
    name = "trial_id" if "trial_id" in table.c else "study_id"
    connection.execute(
        table.delete().where(table.c[name] == owner, table.c.key.in_(list(attributes)))
    )
    connection.execute(
        table.insert(),
        [
            {name: owner, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ],
    )
