"""Bringing our own tables, as an older version made them, to what this one knows."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import own_tables, tokens


def schema(connection: Connection) -> int | None:
    """Version of our tables; None where they were never finished."""
    meta = own_tables.meta.c
    if not sa.inspect(connection).has_table(own_tables.meta.name):
        return None
    found = connection.execute(sa.select(meta.value).where(meta.key == "schema")).scalar()
    return None if found is None else int(found)


def complete(connection: Connection) -> bool:
    """Whether our tables are all there, of this version."""
    present = set(sa.inspect(connection).get_table_names())
    return set(own_tables.metadata.tables) <= present and schema(connection) == own_tables.SCHEMA


def bring_up(connection: Connection) -> None:
    """Make or complete our tables in the transaction of `connection`; done already, it changes nothing."""
    own_tables.metadata.create_all(connection)
    columns = {c["name"] for c in sa.inspect(connection).get_columns(own_tables.studies.name)}
    if "token" not in columns:  # schema 1
        connection.exec_driver_sql(
            "ALTER TABLE tuner_studies ADD COLUMN token VARCHAR(32) NOT NULL DEFAULT ''"
        )
    _give_tokens(connection)
    meta = own_tables.meta
    connection.execute(meta.delete().where(meta.c.key == "schema"))
    connection.execute(meta.insert().values(key="schema", value=str(own_tables.SCHEMA)))


def _give_tokens(connection: Connection) -> None:
    s, o = own_tables.studies, tables.studies
    there = {
        (row.study_id, row.study_name)
        for row in connection.execute(sa.select(o.c.study_id, o.c.study_name))
    }
    for row in connection.execute(sa.select(s.c.study_id, s.c.name).where(s.c.token == "")).all():
        token = tokens.new_token()
        connection.execute(s.update().where(s.c.study_id == row.study_id).values(token=token))
        # A study that optuna no longer has stays without: it is found by that.
        if (row.study_id, row.name) in there:
            tokens.mark(connection, row.study_id, token)
