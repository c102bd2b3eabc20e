"""Whose folder of kept files it is: one database's, and nobody else's.

A database has a random number of its own, and so has the file ``owner.json`` in the folder that it keeps weights in. Another
database that is pointed at the folder is refused: what one of them replaces, the other may still need. A copy of a database
file has the same number, so the place of the file is compared too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import own_tables
from studies.database.connection import Storage
from studies.database.weights import named_files
from tuner.atomic import write_bytes
from tuner.errors import EnvironmentFailure, InputError

OWNER = "owner.json"
_KEY = "database"

_REMEDY = (
    "name another folder as storage.artifacts; weights of this database that lie here are copied there by hand, all but "
    f"{OWNER}"
)


@dataclass(frozen=True)
class Owner:
    """What ``owner.json`` says.

    Attributes
    ----------
    database
        The database's number.
    address
        The database file as seen from the folder; empty on PostgreSQL.
    found
        Files that lay there, without a row, when the folder was taken: perhaps another's, so never deleted.
    """

    database: str
    address: str
    found: tuple[str, ...] = ()


def is_file_name(name: str) -> bool:
    """Whether files of this program are called so: 32 hexadecimal digits, or a part of one that was being written."""
    stem = name.lstrip(".").split(".")[0]
    return len(stem) == 32 and all(c in "0123456789abcdef" for c in stem)


def owner(folder: Path) -> Owner | None:
    """Whose the folder is; None where nobody's.

    Raises
    ------
    InputError
        If its record cannot be read.
    """
    path = folder / OWNER
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Owner(
            str(record["database"]), str(record["address"]), tuple(map(str, record["found"]))
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged: it says whose kept weights these are; if they are this experiment's, "
            "delete that one file"
        ) from None


def found_there(storage: Storage, folder: Path) -> tuple[str, ...] | None:
    """Files that may be another's in a folder of this database; None where it is not known whose the folder is."""
    there = owner(folder)
    if there is None or there.database != _number(storage) or _copied(storage, there, folder):
        return None
    return there.found


def refuse_foreign(storage: Storage, folder: Path) -> None:
    """Refuse a folder of another database; nothing is written.

    Raises
    ------
    InputError
        Naming the folder and the remedy.
    """
    there = owner(folder)
    if there is None:
        return
    if there.database != _number(storage):
        at = f" ({folder / there.address})" if there.address else ""
        raise InputError(
            f"storage.artifacts: {folder} holds the kept weights of another database{at}, not of "
            f"{storage.shown}; {_REMEDY}"
        )
    other = _copied(storage, there, folder)
    if other is not None:
        raise InputError(
            f"storage.artifacts: {folder} holds the kept weights of {other}, of which {storage.shown} is "
            "a copy; copy with 'tuner study copy', or name another folder and copy the weights there"
        )


def take(storage: Storage, folder: Path) -> None:
    """Make the folder this database's own, where it is nobody's.

    A folder of a release that did not write down whose it is becomes that of the database that names files in it.

    Raises
    ------
    InputError
        If it is another's, or holds kept weights of which this database names none.
    EnvironmentFailure
        If it cannot be written.
    """
    refuse_foreign(storage, folder)
    there = owner(folder)
    address = _address(storage, folder)
    if there is not None and there.address == address:
        return
    found: tuple[str, ...] = () if there is None else there.found
    if there is None and folder.is_dir():
        files = {path.name for path in folder.iterdir() if is_file_name(path.name)}
        mine = files & named_files(storage)
        if files and not mine:
            raise InputError(
                f"storage.artifacts: {folder} holds kept weights that {storage.shown} does not name, so "
                f"they are another's; {_REMEDY}"
            )
        found = tuple(sorted(files - mine))
    record = {"database": _number(storage, make=True), "address": address, "found": found}
    content = json.dumps(record, indent=1).encode()
    try:
        write_bytes(folder / OWNER, content, durable=True)
    except OSError as error:
        raise EnvironmentFailure(
            f"storage.artifacts: {folder} cannot be written: {error.strerror}; make the folder writable"
        ) from error


def _number(storage: Storage, *, make: bool = False) -> str | None:
    """The database's own number, made on request."""
    with storage.read() as connection:
        found = _read(connection)
    if found is None and make:
        with storage.begin() as connection:
            found = _read(connection)  # another process may have been first
            if found is None:
                found = secrets.token_hex(16)
                connection.execute(own_tables.meta.insert().values(key=_KEY, value=found))
    return found


def _read(connection: Connection) -> str | None:
    table = own_tables.meta.c
    return connection.execute(sa.select(table.value).where(table.key == _KEY)).scalar()


def _address(storage: Storage, folder: Path) -> str:
    if storage.path is None:
        return ""
    return os.path.relpath(storage.path.resolve(), folder.resolve())


def _copied(storage: Storage, there: Owner, folder: Path) -> Path | None:
    """The database file whose folder it is, where that is still there and is another file with the same number."""
    if storage.path is None or not there.address:
        return None
    before = folder.resolve() / there.address
    try:
        if before.samefile(storage.path):
            return None
    except OSError:
        return None  # it was moved
    query = str(sa.select(own_tables.meta.c.value).where(own_tables.meta.c.key == sa.literal(_KEY)))
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{before.as_uri()}?mode=ro", uri=True)) as connection,
    ):
        row = connection.execute(query, {"param_1": _KEY}).fetchone()
        if row is not None and row[0] == there.database:
            return before
    return None
