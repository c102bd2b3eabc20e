"""The studies in the database: made from the grid, looked up, checked, copied, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import own_tables
from studies.database.artifacts import Artifacts
from studies.database.connection import Storage
from studies.fingerprint import Fingerprint
from studies.names import Combination, StudyKey
from tuner.errors import InputError


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
    """

    study_id: int
    set_aside: str | None


def stored_studies(storage: Storage) -> dict[str, Stored]:
    """All studies by name, in order of creation."""
    with storage.read() as connection:
        rows = connection.execute(
            sa.select(own_tables.studies).order_by(own_tables.studies.c.study_id)
        )
        return {
            row.name: Stored(
                StudyKey(row.backbone, row.layer, row.region, row.readout),
                row.layer_index,
                json.loads(row.fingerprint),
                json.loads(row.plan),
                row.study_id,
                row.set_aside,
            )
            for row in rows
        }


def add(storage: Storage, new: Iterable[NewStudy]) -> int:
    """Make studies, all or none; one that another process made meanwhile is left as it is."""
    count = 0
    with storage.begin() as connection:
        storage.one_at_a_time(connection, "studies")
        present = set(connection.execute(sa.select(tables.studies.c.study_name)).scalars())
        for study in new:
            if study.name in present:
                continue
            result = connection.execute(tables.studies.insert().values(study_name=study.name))
            study_id = int(result.inserted_primary_key[0])  # type: ignore[index]
            connection.execute(
                tables.directions.insert().values(
                    study_id=study_id, direction=StudyDirection.MINIMIZE, objective=0
                )
            )
            connection.execute(
                own_tables.studies.insert().values(
                    study_id=study_id,
                    name=study.name,
                    **study.columns,
                    fingerprint=json.dumps(study.fingerprint),
                    plan=json.dumps(study.plan),
                )
            )
            count += 1
    return count


def delete(storage: Storage, artifacts: Artifacts, chosen: Sequence[Stored]) -> None:
    """Delete studies, their trials, and then their kept files."""
    ids = [study.study_id for study in chosen]
    files: list[str] = []
    with storage.begin() as connection:
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


def set_aside(storage: Storage, study_id: int, message: str | None) -> None:
    """Run no more trials of a study, and say why; None takes it up again."""
    with storage.begin() as connection:
        connection.execute(
            own_tables.studies.update()
            .where(own_tables.studies.c.study_id == study_id)
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
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{config}: study {missing[0]}{more} was not created; run 'tuner study create' first"
        )
    return [stored[name] for name in names]


def copy(source: Storage, url: str, chosen: Sequence[Stored]) -> int:
    """Copy studies to another database, all or none; kept files are shared, not copied.

    Parameters
    ----------
    source
        Where they are.
    url
        Address of the other database; made if need be.

    Raises
    ------
    InputError
        If a study is there already.
    """
    target = Storage(url, create=True)
    try:
        with source.read() as reading, target.begin() as writing:
            present = set(writing.execute(sa.select(tables.studies.c.study_name)).scalars())
            for study in chosen:
                if study.name in present:
                    raise InputError(
                        f"{target.shown}: study {study.name} is there already; delete it there "
                        "first, or name another database"
                    )
                _copy_one(reading, writing, study)
    finally:
        target.close()
    return len(chosen)


def _copy_one(reading: Connection, writing: Connection, study: Stored) -> None:
    def rows(table: sa.Table, condition: Any) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in reading.execute(sa.select(table).where(condition))]

    old = study.study_id
    made = writing.execute(tables.studies.insert().values(study_name=study.name))
    new = int(made.inserted_primary_key[0])  # type: ignore[index]
    for table in tables.OF_STUDIES:
        _insert(writing, table, rows(table, table.c.study_id == old), study_id=new)
    for table in (own_tables.studies, own_tables.weights):
        for row in rows(table, table.c.study_id == old):
            writing.execute(table.insert().values(**row | {"study_id": new}))
    pictures = rows(own_tables.pictures, own_tables.pictures.c.study_id == old)
    for row in rows(tables.trials, tables.trials.c.study_id == old):
        before = row.pop("trial_id")
        made = writing.execute(tables.trials.insert().values(**row | {"study_id": new}))
        after = int(made.inserted_primary_key[0])  # type: ignore[index]
        for table in tables.OF_TRIALS:
            _insert(writing, table, rows(table, table.c.trial_id == before), trial_id=after)
        for picture in pictures:
            if picture["trial_id"] == before:
                changed = picture | {"study_id": new, "trial_id": after}
                writing.execute(own_tables.pictures.insert().values(**changed))


def _insert(
    connection: Connection, table: sa.Table, rows: list[dict[str, Any]], **replaced: int
) -> None:
    """Insert rows under new keys: the table numbers its own rows anew."""
    (own,) = table.primary_key.columns.keys()
    plain = [{k: v for k, v in row.items() if k != own} | replaced for row in rows]
    if plain:
        connection.execute(table.insert(), plain)
