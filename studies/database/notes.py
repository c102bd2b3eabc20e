"""What optuna-dashboard says of a study beside its trials: what its value is called, and a note."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from studies.database import optuna_tables as tables
from studies.database.writes import set_attributes

METRIC_NAMES = "study:metric_names"
"""Where optuna keeps what values are called."""

NOTE, VERSION = "dashboard:note_str:", "dashboard:note_ver"
"""Where optuna-dashboard keeps the pieces of a study's note, and how often it was written."""

OURS = "tuner:note"
"""Digest of the note as it was last written here: one that a person has changed since is left alone."""

PIECE = 2045
"""Characters of a piece, as optuna-dashboard cuts them."""


def call_value(connection: Connection, study_id: int, name: str) -> None:
    """Say what the value of a study's trials is called."""
    set_attributes(connection, tables.study_system_attrs, study_id, {METRIC_NAMES: [name]})


def write_note(connection: Connection, study_id: int, text: str) -> bool:
    """Write the note of a study, unless a person has written one or changed ours; says whether it was written."""
    before = _attributes(connection, study_id)
    pieces = sorted((int(k.removeprefix(NOTE)), v) for k, v in before.items() if k.startswith(NOTE))
    body = "".join(piece for _, piece in pieces)
    if body and before.get(OURS) != _digest(body):
        return False
    if body == text:
        return True
    parts = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    parts += [""] * (len(pieces) - len(parts))  # what is left of a longer one
    new: dict[str, Any] = {f"{NOTE}{number}": part for number, part in enumerate(parts)}
    version = int(before.get(VERSION, 0)) + 1
    set_attributes(
        connection,
        tables.study_system_attrs,
        study_id,
        new | {VERSION: version, OURS: _digest(text)},
    )
    return True


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _attributes(connection: Connection, study_id: int) -> dict[str, Any]:
    table = tables.study_system_attrs
    query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id)
    return {row.key: json.loads(row.value_json) for row in connection.execute(query)}
