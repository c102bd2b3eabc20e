"""Copying studies, their trials and their kept files to another database."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import ghosts, own_tables, ownership, tokens
from studies.database import optuna_tables as tables
from studies.database.artifacts import Artifacts, UnreadableWeights, identity
from studies.database.claims import open_claims
from studies.database.connection import Storage
from studies.database.studies import Stored
from tuner.errors import InputError


@dataclass(frozen=True)
class Copied:
    """What copying did.

    Attributes
    ----------
    studies
        How many were copied.
    artifacts
        Folder that their kept files were copied to.
    lost
        What is wrong with kept files that could not be copied, a line each.
    """

    studies: int
    artifacts: Path
    lost: list[str]


def copy(
    source: Storage,
    artifacts: Artifacts,
    url: str,
    chosen: Sequence[Stored],
    folder: Path | None = None,
) -> Copied:
    """Copy studies and their kept files to another database, all or none; each database has files of its own.

    Parameters
    ----------
    source, artifacts
        Where they are.
    url
        Address of the other database; made if need be.
    folder
        Where its kept files lie; by default ``NAME-artifacts`` beside an SQLite file ``NAME.db``.

    Raises
    ------
    InputError
        If a study is there already, or the folder is another database's, or none is named for PostgreSQL.
    """
    target = Storage(url, create=True, called="URL")
    try:
        if folder is None:
            if target.path is None:
                raise InputError(
                    f"{target.shown}: say where its kept weights are to lie, with --artifacts FOLDER"
                )
            folder = target.path.with_name(f"{target.path.stem}-artifacts")
        copies = Artifacts(folder, partial(ownership.take, target, folder))
        with source.read() as reading:
            _refuse_present(target, chosen)
            ghosts.forget(target, copies)
            lost = _copy_files(reading, artifacts, copies, chosen)
            with target.begin() as writing:
                _refuse_present(target, chosen, writing)
                for study in chosen:
                    _copy_one(reading, writing, study)
    finally:
        target.close()
    return Copied(len(chosen), folder, lost)


def _refuse_present(
    target: Storage, chosen: Sequence[Stored], connection: Connection | None = None
) -> None:
    query = sa.select(tables.studies.c.study_name)
    with contextlib.nullcontext(connection) if connection is not None else target.read() as reading:
        present = set(reading.execute(query).scalars())
    claims = open_claims(target)
    for study in chosen:
        if study.name in present:
            held = claims.held(study.claim)
            by = f", and {claims.holder(study.claim)} works on it" if held else ""
            raise InputError(
                f"{target.shown}: study {study.name} is there already{by}; delete it there first, or "
                "name another database"
            )


def _copy_files(
    reading: Connection, source: Artifacts, target: Artifacts, chosen: Sequence[Stored]
) -> list[str]:
    """Copy kept weights and pictures, verified; returns what is wrong with those that are not there."""
    lost = []
    for study in chosen:
        w, p = own_tables.weights.c, own_tables.pictures.c
        weights = reading.execute(
            sa.select(w.artifact_id, w.trial_number).where(w.study_id == study.study_id)
        )
        files = [(row.artifact_id, identity(study.name, row.trial_number)) for row in weights]
        pictures = reading.execute(
            sa.select(own_tables.pictures).where(p.study_id == study.study_id)
        )
        files += [
            (row.artifact_id, f"{identity(study.name, row.trial_number)}/{row.filename}")
            for row in pictures
        ]
        for artifact_id, written_as in files:
            try:
                source.verify(artifact_id, written_as)
                target.write(source.path(artifact_id).read_bytes(), written_as)
            except UnreadableWeights as error:
                lost.append(f"study {study.name}: {error}")
    return lost


def _copy_one(reading: Connection, writing: Connection, study: Stored) -> None:
    def rows(table: sa.Table, condition: Any) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in reading.execute(sa.select(table).where(condition))]

    old = study.study_id
    made = writing.execute(tables.studies.insert().values(study_name=study.name))
    new = int(made.inserted_primary_key[0])  # type: ignore[index]
    for table in tables.OF_STUDIES:
        _insert(writing, table, rows(table, table.c.study_id == old), study_id=new)
    token = tokens.new_token()
    tokens.mark(writing, new, token)
    for row in rows(own_tables.studies, own_tables.studies.c.study_id == old):
        changed = row | {"study_id": new, "token": token}
        writing.execute(own_tables.studies.insert().values(**changed))
    for row in rows(own_tables.weights, own_tables.weights.c.study_id == old):
        writing.execute(own_tables.weights.insert().values(**row | {"study_id": new}))
    pictures = rows(own_tables.pictures, own_tables.pictures.c.study_id == old)
    for row in rows(tables.trials, tables.trials.c.study_id == old):
        before = row.pop("trial_id")
        made = writing.execute(tables.trials.insert().values(**row | {"study_id": new}))
        after = int(made.inserted_primary_key[0])  # type: ignore[index]
        for table in tables.OF_TRIALS:
            _insert(writing, table, rows(table, table.c.trial_id == before), trial_id=after)
        for picture in pictures:
            if picture["trial_id"] == before:
                moved = picture | {"study_id": new, "trial_id": after}
                writing.execute(own_tables.pictures.insert().values(**moved))


def _insert(
    connection: Connection, table: sa.Table, rows: list[dict[str, Any]], **replaced: int
) -> None:
    """Insert rows under new keys: the table numbers its own rows anew."""
    (own,) = table.primary_key.columns.keys()
    plain = [{k: v for k, v in row.items() if k != own} | replaced for row in rows]
    if plain:
        connection.execute(table.insert(), plain)
