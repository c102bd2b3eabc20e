"""What an SQLite file needs besides SQL: pragmas, the folder of its locks."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from tuner.errors import EnvironmentFailure

BUSY_SECONDS = 60
"""How long a writer waits for another."""


def lock_folder(database: Path) -> Path:
    """Folder of the locks of an SQLite file; from its real path, so that two ways to it meet."""
    return Path(f"{database.resolve()}.locks")


def pragmas(connection: Any, record: Any) -> None:
    """Set a new connection to WAL: readers and the writer do not wait; a lost power supply may cost the last commits."""
    if not isinstance(connection, sqlite3.Connection):
        return
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    # Two processes that switch a new file to WAL at the same moment are refused, whatever the timeout.
    for attempt in range(50):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if attempt == 49:
                raise
            time.sleep(0.1)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def make_folder(folder: Path, called: str = "storage.url") -> None:
    """Make a folder that the database needs, or say why not."""
    for attempt in range(3):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except OSError as error:
            # Somebody cleared it away between the attempt to make it and the look whether it is there.
            cleared = isinstance(error, FileExistsError) and not folder.exists()
            if cleared and attempt < 2:
                continue
            raise EnvironmentFailure(
                f"{called}: cannot make the folder {folder}: {error.strerror}; make the folder "
                "around it writable"
            ) from error
