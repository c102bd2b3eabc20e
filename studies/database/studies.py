"""The studies in the database: made from the grid, looked up, checked, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from sqlalchemy.engine import Connection

from studies.database import fences, notes, own_tables, tokens
from studies.database import optuna_tables as tables
from studies.database.artifacts import Artifacts
from studies.database.connection import Storage
from studies.fingerprint import Fingerprint
from studies.names import Combination, StudyKey
from tuner.errors import InputError

VALUE = "validation loss"
"""What the dashboard calls the value of a trial."""


@dataclass(frozen=True)
class NewStudy(Combination):
    """A study to be made.

    Attributes
    ----------
    plan
        How its rounds are run, fixed when it was created: ``compiled``, ``memory``, ``device``.
    """

    fingerprint: Fingerprint
    plan: dict[str, Any]


@dataclass(frozen=True)
class Stored(NewStudy):
    """A study as the database has it.

    Attributes
    ----------
    set_aside
        Why no more trials are run, or None.
    seal
        Hash of its token and fingerprint: what is written to it must find it unchanged.
    """

    study_id: int
    set_aside: str | None
    seal: str


def stored_studies(storage: Storage) -> dict[str, Stored]:
    """All studies by name, in order of creation; without those that optuna no longer has, see :mod:`ghosts`."""
    with storage.read() as connection:
        rows = connection.execute(tokens.living().order_by(own_tables.studies.c.study_id))
        return {
            row.name: Stored(
                StudyKey(row.backbone, row.layer, row.region, row.readout),
                row.layer_index,
                json.loads(row.fingerprint),
                json.loads(row.plan),
                row.study_id,
                row.set_aside,
                tokens.seal(row.token, row.fingerprint),
            )
            for row in rows
        }


def add(storage: Storage, new: Iterable[NewStudy]) -> int:
    """Make studies, all or none; one that another process made meanwhile is left as it is.

    Raises
    ------
    InputError
        If optuna has a study of that name that was not made here.
    """
    count = 0
    with storage.begin() as connection:
        storage.one_at_a_time(connection, "studies")
        present = set(connection.execute(sa.select(tables.studies.c.study_name)).scalars())
        ours = {row.name for row in connection.execute(tokens.living())}
        for study in new:
            if study.name in ours:
                continue
            if study.name in present:
                raise InputError(
                    f"{storage.shown}: optuna has a study {study.name} that tuner did not make; rename "
                    "or delete it with optuna's own tools, or use another storage.url"
                )
            result = connection.execute(tables.studies.insert().values(study_name=study.name))
            study_id = int(result.inserted_primary_key[0])  # type: ignore[index]
            connection.execute(
                tables.directions.insert().values(
                    study_id=study_id, direction=StudyDirection.MINIMIZE, objective=0
                )
            )
            token = tokens.new_token()
            tokens.mark(connection, study_id, token)
            notes.call_value(connection, study_id, VALUE)
            connection.execute(
                own_tables.studies.insert().values(
                    study_id=study_id,
                    name=study.name,
                    token=token,
                    **study.columns,
                    fingerprint=json.dumps(study.fingerprint),
                    plan=json.dumps(study.plan),
                )
            )
            count += 1
    return count


def delete(storage: Storage, artifacts: Artifacts, chosen: Sequence[Stored]) -> None:
    """Delete studies, their trials, and then their kept files; their claims are held."""
    ids = [study.study_id for study in chosen]
    files: list[str] = []
    with fences.writing(storage, chosen, alone=True) as connection:
        for study_id in ids:
            mine = sa.select(tables.trials.c.trial_id).where(tables.trials.c.study_id == study_id)
            files += connection.execute(
                sa.select(own_tables.weights.c.artifact_id).where(
                    own_tables.weights.c.study_id == study_id
                )
            ).scalars()
            files += _attached(connection, mine)
            for table in tables.OF_TRIALS:
                connection.execute(table.delete().where(table.c.trial_id.in_(mine)))
            for table in (
                tables.trials,
                own_tables.weights,
                own_tables.pictures,
                own_tables.studies,
                *tables.OF_STUDIES,
                tables.studies,
            ):
                connection.execute(table.delete().where(table.c.study_id == study_id))
    for artifact_id in set(files):
        artifacts.delete(artifact_id)


def _attached(connection: Connection, trial_ids: sa.Select[Any]) -> list[str]:
    """Artifacts that the dashboard shows for trials."""
    table = tables.system_attrs
    keys = connection.execute(
        sa.select(table.c.key).where(
            table.c.trial_id.in_(trial_ids), table.c.key.like("artifacts:%")
        )
    ).scalars()
    return [key.removeprefix("artifacts:") for key in keys]


def take_up(storage: Storage, study: Stored) -> None:
    """Run trials again of a study that was set aside."""
    with fences.writing(storage, [study]) as connection:
        set_aside(connection, study, None)


def set_aside(connection: Connection, study: Stored, message: str | None) -> None:
    """Run no more trials of a study, and say why; None takes it up again."""
    connection.execute(
        own_tables.studies.update()
        .where(own_tables.studies.c.study_id == study.study_id)
        .values(set_aside=message)
    )


def require(stored: dict[str, Stored], names: Sequence[str], config: object) -> list[Stored]:
    """Return the studies with these names.

    Raises
    ------
    InputError
        If one was not created.
    """
    missing = [name for name in names if name not in stored]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{config}: study {missing[0]} was not created{more}; run 'tuner study create' first, or select what was "
            "(--backbone, --layer, --region, --readout)"
        )
    return [stored[name] for name in names]
