"""Copying studies, with all their trials, to another database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import trials
from studies.database.connection import Storage, pictures_table, studies_table, weights_table
from studies.database.studies import Stored
from tuner.errors import InputError


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
            present = set(writing.execute(sa.select(trials.studies.c.study_name)).scalars())
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
    made = writing.execute(trials.studies.insert().values(study_name=study.name))
    new = int(made.inserted_primary_key[0])  # type: ignore[index]
    for table in tables.OF_STUDIES:
        _insert(writing, table, rows(table, table.c.study_id == old), study_id=new)
    for table in (studies_table, weights_table):
        for row in rows(table, table.c.study_id == old):
            writing.execute(table.insert().values(**row | {"study_id": new}))
    pictures = rows(pictures_table, pictures_table.c.study_id == old)
    for row in rows(trials.trials, trials.trials.c.study_id == old):
        before = row.pop("trial_id")
        made = writing.execute(trials.trials.insert().values(**row | {"study_id": new}))
        after = int(made.inserted_primary_key[0])  # type: ignore[index]
        for table in tables.OF_TRIALS:
            _insert(writing, table, rows(table, table.c.trial_id == before), trial_id=after)
        for picture in pictures:
            if picture["trial_id"] == before:
                changed = picture | {"study_id": new, "trial_id": after}
                writing.execute(pictures_table.insert().values(**changed))


def _insert(
    connection: Connection, table: sa.Table, rows: list[dict[str, Any]], **replaced: int
) -> None:
    """Insert rows under new keys: the table numbers its own rows anew."""
    (own,) = table.primary_key.columns.keys()
    plain = [{k: v for k, v in row.items() if k != own} | replaced for row in rows]
    if plain:
        connection.execute(table.insert(), plain)
