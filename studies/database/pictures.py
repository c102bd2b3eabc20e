"""Pictures that the dashboard shows with a study's best trial: which there are, and how new ones take their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from studies.database import notes, own_tables, writes
from studies.database import optuna_tables as tables
from studies.database.artifacts import Artifacts, dashboard_attribute, identity
from studies.database.connection import Storage
from studies.database.fences import writing
from studies.database.killpoints import reach
from studies.database.studies import Stored
from studies.database.trials import Trial

SCORED_AFTER = "scored_after_trials"
"""Attribute of a study beside its scores: how many finished trials there were when they were computed."""


def drawn(storage: Storage, filename: str) -> dict[int, tuple[int, int]]:
    """Study to the trial that its picture of this name shows, and how many finished trials there were then."""
    t = own_tables.pictures.c
    query = sa.select(t.study_id, t.trial_number, t.finished).where(t.filename == filename)
    with storage.read() as connection:
        return {row.study_id: (row.trial_number, row.finished) for row in connection.execute(query)}


def attach(
    storage: Storage,
    artifacts: Artifacts,
    study: Stored,
    trial: Trial,
    finished: int,
    files: Mapping[str, bytes],
    note: str = "",
    scores: Mapping[str, Any] | None = None,
) -> None:
    """Show PNG files with a trial in the dashboard, in place of those of the same name in its study; the claim is held.

    Parameters
    ----------
    finished
        Trials that the study had when they were made.
    files
        Name to content.
    note
        What is said of the study, in Markdown; a note that a person wrote stays.
    scores
        What the trial is worth, shown as attributes of the study.

    Raises
    ------
    Fenced
        If study or claim are no longer the caller's.
    """
    new = {
        name: artifacts.write(content, f"{identity(study.name, trial.number)}/{name}")
        for name, content in files.items()
    }
    reach("pictures written")
    table = own_tables.pictures
    gone: list[str] = []
    with writing(storage, [study]) as connection:
        old = connection.execute(
            sa.select(table).where(table.c.study_id == study.study_id, table.c.filename.in_(new))
        ).all()
        for row in old:
            connection.execute(table.delete().where(table.c.artifact_id == row.artifact_id))
            writes.remove_system_attributes(
                connection, [(row.trial_id, f"artifacts:{row.artifact_id}")]
            )
            if row.artifact_id not in new.values():
                gone.append(row.artifact_id)
        for name, artifact_id in new.items():
            connection.execute(
                table.insert().values(
                    artifact_id=artifact_id,
                    study_id=study.study_id,
                    trial_id=trial.trial_id,
                    trial_number=trial.number,
                    finished=finished,
                    filename=name,
                )
            )
            key, value = dashboard_attribute(artifact_id, name, "image/png")
            writes.set_system_attributes(connection, trial.trial_id, {key: value})
        if scores:
            after = {SCORED_AFTER: finished}
            writes.set_attributes(
                connection, tables.study_user_attrs, study.study_id, {**scores, **after}
            )
        if note:
            notes.write_note(connection, study.study_id, note)
    reach("pictures attached")
    for artifact_id in gone:
        artifacts.delete(artifact_id)
