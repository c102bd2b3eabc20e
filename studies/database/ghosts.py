"""Studies that optuna no longer has: deleted through its own dashboard or functions, which know nothing of our tables.

What is left of one are our rows and its kept files. Its number may be another study's by now, so nothing of optuna's is
touched when it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import own_tables, tokens
from studies.database.artifacts import Artifacts
from studies.database.connection import Storage


@dataclass(frozen=True)
class Ghost:
    """What is left of a study.

    Attributes
    ----------
    files
        Its kept files and pictures.
    """

    name: str
    token: str
    files: tuple[str, ...]


def ghosts(storage: Storage) -> list[Ghost]:
    """What is left of studies that optuna no longer has, in order of creation."""
    with storage.read() as connection:
        return _find(connection)


def left_out(storage: Storage, names: Iterable[str]) -> tuple[set[str], str | None]:
    """Which of these studies optuna no longer has, and a line that says so."""
    gone = {ghost.name for ghost in ghosts(storage)}
    mine = [name for name in names if name in gone]
    if not mine:
        return set(), None
    more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
    return set(mine), (
        f"study {mine[0]}{more}: deleted through optuna's own tools, and left out; 'tuner study "
        "create' makes it anew, 'tuner doctor --fix' forgets it"
    )


def _find(connection: Connection) -> list[Ghost]:
    s = own_tables.studies
    alive = {row.token for row in connection.execute(tokens.living())}
    query = sa.select(s.c.study_id, s.c.name, s.c.token).order_by(s.c.study_id)
    return [
        Ghost(row.name, row.token, tuple(_files(connection, row.study_id)))
        for row in connection.execute(query).all()
        if row.token not in alive
    ]


def _files(connection: Connection, study_id: int) -> list[str]:
    return [
        artifact_id
        for table in (own_tables.weights, own_tables.pictures)
        for artifact_id in connection.execute(
            sa.select(table.c.artifact_id).where(table.c.study_id == study_id)
        ).scalars()
    ]


def forget(storage: Storage, artifacts: Artifacts, tokens: set[str] | None = None) -> list[str]:
    """Remove what is left of these studies, or of all that there are; returns their names."""
    with storage.begin() as connection:
        storage.one_at_a_time(connection, "studies")
        found = [g for g in _find(connection) if tokens is None or g.token in tokens]
        s = own_tables.studies
        for ghost in found:
            mine = sa.select(s.c.study_id).where(s.c.token == ghost.token).scalar_subquery()
            for table in (own_tables.weights, own_tables.pictures):
                connection.execute(table.delete().where(table.c.study_id == mine))
            connection.execute(s.delete().where(s.c.token == ghost.token))
    for ghost in found:
        for artifact_id in ghost.files:
            artifacts.delete(artifact_id)
    return [ghost.name for ghost in found]
