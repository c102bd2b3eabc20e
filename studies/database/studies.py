"""The studies in the database: made from the grid, looked up, checked, copied, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection

from studies.database import optuna_tables as tables
from studies.database import trials
from studies.database.artifacts import Artifacts
from studies.database.connection import Storage, pictures_table, studies_table, weights_table
from studies.fingerprint import Fingerprint
from studies.names import StudyKey
from tuner.errors import InputError


@dataclass(frozen=True)
class Stored:
    """A study as the database has it.

    Attributes
    ----------
    plan
        How its rounds are run, fixed when it was created: ``compiled``, ``memory``, ``device``.
    set_aside
        Why no more trials are run, or None.
    """

    study_id: int
    key: StudyKey
    layer_index: int
    fingerprint: Fingerprint
    plan: dict[str, Any]
    set_aside: str | None

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.key.name


def stored_studies(storage: Storage) -> dict[str, Stored]:
    """All studies by name, in order of creation."""
    with storage.read() as connection:
        rows = connection.execute(sa.select(studies_table).order_by(studies_table.c.study_id))
        return {
            row.name: Stored(
                row.study_id,
                StudyKey(row.backbone, row.layer, row.region, row.readout),
                row.layer_index,
                json.loads(row.fingerprint),
                json.loads(row.plan),
                row.set_aside,
            )
            for row in rows
        }


@dataclass(frozen=True)
class NewStudy:
    """A study to be made."""

    key: StudyKey
    layer_index: int
    fingerprint: Fingerprint
    plan: dict[str, Any]


def add(storage: Storage, new: Iterable[NewStudy]) -> int:
    """Make studies, all or none; one that another process made meanwhile is left as it is."""
    count = 0
    with storage.begin() as connection:
        storage.one_at_a_time(connection, "studies")
        present = set(connection.execute(sa.select(trials.studies.c.study_name)).scalars())
        for study in new:
            if study.key.name in present:
                continue
            result = connection.execute(trials.studies.insert().values(study_name=study.key.name))
            study_id = int(result.inserted_primary_key[0])  # type: ignore[index]
            connection.execute(
                tables.directions.insert().values(
                    study_id=study_id, direction=StudyDirection.MINIMIZE, objective=0
                )
            )
            connection.execute(
                studies_table.insert().values(
                    study_id=study_id,
                    name=study.key.name,
                    backbone=study.key.backbone,
                    layer=study.key.layer,
                    layer_index=study.layer_index,
                    region=study.key.region,
                    readout=study.key.readout,
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
            mine = sa.select(trials.trials.c.trial_id).where(trials.trials.c.study_id == study_id)
            files += connection.execute(
                sa.select(weights_table.c.artifact_id).where(weights_table.c.study_id == study_id)
            ).scalars()
            files += _attached(connection, mine)
            for table in tables.OF_TRIALS:
                connection.execute(table.delete().where(table.c.trial_id.in_(mine)))
            for table in (
                tables.trials,
                weights_table,
                pictures_table,
                studies_table,
                *tables.OF_STUDIES,
                tables.studies,
            ):
                connection.execute(table.delete().where(table.c.study_id == study_id))
    for artifact_id in set(files):
        artifacts.delete(artifact_id)


def _attached(connection: sa.engine.Connection, trial_ids: sa.Select[Any]) -> list[str]:
    """Artifacts that the dashboard shows for trials."""
    table = trials.system_attrs
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
            studies_table.update()
            .where(studies_table.c.study_id == study_id)
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
