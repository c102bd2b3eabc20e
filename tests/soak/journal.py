"""Who asked, put back and told which trial, written down in the transactions that did it.

A table beside the others, so that what stands in it has happened, in its order; a process that is stopped or killed between
a write and saying so leaves nothing out. A trial is known by its study's token and its own number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import own_tables, writes
from studies.database.connection import Storage
from studies.database.trials import Outcome, Trial

_metadata = sa.MetaData()

journal = sa.Table(
    "chaos_journal",
    _metadata,
    sa.Column("entry", sa.Integer, primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("what", sa.String(8), nullable=False),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
)


def begin(storage: Storage) -> None:
    """Make the table, before anybody searches."""
    with storage.begin() as connection:
        _metadata.create_all(connection)


def install() -> None:
    """Have every write of trials in this process and its children written down."""
    create, start, tell, put_back = writes.create, writes.start, writes.tell, writes._put_back

    def created(connection: Connection, *given: Any) -> list[Trial]:
        made = create(connection, *given)
        _write(connection, "ask", [t.trial_id for t in made])
        return made

    def started(connection: Connection, chosen: Iterable[Trial]) -> None:
        chosen = list(chosen)
        start(connection, chosen)
        _write(connection, "ask", [t.trial_id for t in chosen])

    def told(connection: Connection, outcomes: Sequence[Outcome]) -> None:
        tell(connection, outcomes)
        _write(connection, "tell", [o.trial_id for o in outcomes])

    def back(connection: Connection, trial_ids: Sequence[int]) -> None:
        put_back(connection, trial_ids)
        _write(connection, "back", trial_ids)

    writes.create, writes.start, writes.tell, writes._put_back = created, started, told, back  # type: ignore[assignment]


def _write(connection: Connection, what: str, trial_ids: Sequence[int]) -> None:
    s, t = own_tables.studies.c, tables.trials.c
    rows = (
        sa.select(sa.literal(os.getpid()), sa.literal(what), s.token, t.number)
        .join_from(own_tables.studies, tables.trials, s.study_id == t.study_id)
        .where(t.trial_id.in_(trial_ids))
    )
    columns = ["pid", "what", "token", "number"]
    connection.execute(journal.insert().from_select(columns, rows))


def problems(storage: Storage) -> list[str]:
    """Trials that two had at a time, or that were told by somebody who had not asked them, or lost them since."""
    with storage.read() as connection:
        entries = connection.execute(sa.select(journal).order_by(journal.c.entry)).all()
    found = []
    holder: dict[tuple[str, int], int | None] = {}
    for entry in entries:
        trial = (entry.token, entry.number)
        has = holder.get(trial)
        if entry.what == "ask":
            if has is not None:
                found.append(f"trial {trial}: {entry.pid} asked for what {has} had")
            holder[trial] = entry.pid
        else:
            if entry.what == "tell" and has != entry.pid:
                found.append(f"trial {trial}: {entry.pid} told what {has} had")
            holder[trial] = None
    return found
