"""Kept weights in the database: which file belongs to which trial, and how files change hands."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import optuna_tables, own_tables, writes
from studies.database.artifacts import Artifacts, Tensors, identity
from studies.database.connection import Storage


@dataclass
class Swap:
    """Files that become part of the search, and files that leave it, in one transaction."""

    rows: list[dict[str, object]] = field(default_factory=list)
    attach: list[tuple[int, str, str]] = field(default_factory=list)
    detach: list[tuple[int, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def apply(self, connection: Connection) -> None:
        """Write the change of hands, in the transaction of ``connection``."""
        for artifact_id in self.gone:
            connection.execute(
                own_tables.weights.delete().where(own_tables.weights.c.artifact_id == artifact_id)
            )
        for row in self.rows:
            connection.execute(
                own_tables.weights.delete().where(
                    own_tables.weights.c.artifact_id == row["artifact_id"]
                )
            )
            connection.execute(own_tables.weights.insert().values(**row))
        # The dashboard shows the files that are kept, and no others.
        writes.remove_system_attributes(connection, self.detach)
        for trial_id, key, value in self.attach:
            writes.set_system_attributes(connection, trial_id, {key: value})

    def finish(self, artifacts: Artifacts) -> None:
        """Delete the files that left; after the transaction."""
        kept = {row["artifact_id"] for row in self.rows}
        for artifact_id in self.gone:
            if artifact_id not in kept:
                artifacts.delete(artifact_id)


@dataclass(frozen=True)
class KeptFile:
    """A kept weights file; ``trial_number`` is None for the best of every unit, ``study`` where there is no such study."""

    artifact_id: str
    study_id: int
    study: str | None
    trial_number: int | None

    def read(self, artifacts: Artifacts) -> Tensors:
        """Its tensors, verified; raises as ``Artifacts.read_tensors`` does."""
        return artifacts.read_tensors(self.artifact_id, self.identity)

    @property
    def identity(self) -> str:
        """What it was written as."""
        return identity(self.study or "", self.trial_number)


def kept_files(storage: Storage, study_id: int) -> dict[int | None, KeptFile]:
    """Trial number (None: the best of every unit) to the file that holds its weights."""
    return {
        file.trial_number: file
        for file in _files(storage, own_tables.weights.c.study_id == study_id)
    }


def all_files(storage: Storage) -> list[KeptFile]:
    """Every kept weights file that the database names."""
    return _files(storage, sa.true())


def is_named(storage: Storage, file: KeptFile) -> bool:
    """Whether the database still names a file: a search replaces those of trials that are no longer the best."""
    return bool(_files(storage, own_tables.weights.c.artifact_id == file.artifact_id))


def _files(storage: Storage, condition: sa.ColumnElement[bool]) -> list[KeptFile]:
    t, s = own_tables.weights.c, own_tables.studies.c
    query = (
        sa.select(t.artifact_id, t.study_id, s.name, t.trial_number)
        .join(own_tables.studies, s.study_id == t.study_id, isouter=True)
        .where(condition)
    )
    with storage.read() as connection:
        return [KeptFile(*row) for row in connection.execute(query)]


def forget(connection: Connection, file: KeptFile) -> None:
    """Take a kept file out of the database, in the transaction of ``connection``."""
    t, a, w = optuna_tables.trials.c, optuna_tables.system_attrs, own_tables.weights
    mine = sa.select(t.trial_id).where(t.study_id == file.study_id)
    connection.execute(w.delete().where(w.c.artifact_id == file.artifact_id))
    connection.execute(
        a.delete().where(a.c.trial_id.in_(mine), a.c.key == f"artifacts:{file.artifact_id}")
    )


def named_files(storage: Storage) -> set[str]:
    """Artifacts that the database names, as kept weights or with a trial for the dashboard."""
    a = optuna_tables.system_attrs.c
    with storage.read() as connection:
        known = set(connection.execute(sa.select(own_tables.weights.c.artifact_id)).scalars())
        keys = connection.execute(sa.select(a.key).where(a.key.like("artifacts:%"))).scalars()
        return known | {key.removeprefix("artifacts:") for key in keys}
