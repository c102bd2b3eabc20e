"""What is written beside a study for people to see: optuna's user attributes of studies, which its dashboard shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from studies.database import optuna_tables as tables
from studies.database.connection import Storage
from studies.database.fences import writing
from studies.database.studies import Stored
from studies.database.writes import set_attributes

SETTLED = "settled"
"""That further trials are not expected to gain anything: after how many trials, and how much they would."""

_MANY = 500


def mark(storage: Storage, study: Stored, key: str, value: Any) -> None:
    """Write a study's mark in place of the one of that name; None takes it away.

    Raises
    ------
    StudyGone
        If the study is no longer the one that was read.
    """
    if marks(storage, [study], key)[key].get(study.study_id) == value:
        return
    table = tables.study_user_attrs
    with writing(storage, [study]) as connection:
        if value is not None:
            set_attributes(connection, table, study.study_id, {key: value})
            return
        connection.execute(
            table.delete().where(table.c.study_id == study.study_id, table.c.key == key)
        )


def marks(storage: Storage, studies: Sequence[Stored], *keys: str) -> dict[str, dict[int, Any]]:
    """For each key, study identifier to that mark, of those studies that have it."""
    table = tables.study_user_attrs.c
    wanted = {study.study_id for study in studies}
    query = sa.select(table.key, table.study_id, table.value_json).where(table.key.in_(keys))
    if len(wanted) <= _MANY:
        query = query.where(table.study_id.in_(wanted))
    with storage.read() as connection:
        rows = connection.execute(query).all()
    found: dict[str, dict[int, Any]] = {key: {} for key in keys}
    for key, study_id, text in rows:
        if study_id in wanted:
            found[key][study_id] = json.loads(text)
    return found
