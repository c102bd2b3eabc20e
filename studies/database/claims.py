"""Locks that die with their holder: who works on a cohort.

On SQLite a claim is an operating-system lock on a file beside the database, which vanishes with its process, however
that ends. On PostgreSQL it is an advisory lock of a session, which the server frees when the connection ends; all that is
written under a claim goes through that connection. Trials that are RUNNING in a cohort that nobody holds are orphans.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from studies.database import postgres
from studies.database.connection import lock_folder
from tuner.errors import EnvironmentFailure

if TYPE_CHECKING:
    from studies.database.connection import Storage


class Claims(Protocol):
    """Exclusive claims on cohorts, by name."""

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        ...

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        ...


class FileClaims:
    """Claims by file locks, for one machine.

    Parameters
    ----------
    database
        The SQLite file; its real path names the locks, so that two ways to it meet.
    """

    def __init__(self, database: Path) -> None:
        self.folder = lock_folder(database)
        self._mine: set[str] = set()

    def _lock(self, cohort: str) -> FileLock:
        name = hashlib.blake2b(cohort.encode(), digest_size=12).hexdigest()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise EnvironmentFailure(
                f"{self.folder}: cannot be made: {error.strerror}; make the database's folder writable"
            ) from error
        return FileLock(self.folder / f"{name}.lock", thread_local=False)

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        lock = self._lock(cohort)
        try:
            # Not at once: held() of another process takes the lock for a moment.
            lock.acquire(timeout=0.3, poll_interval=0.02)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise EnvironmentFailure(
                f"{self.folder}: cannot lock: {error.strerror or error}"
            ) from error
        self._mine.add(cohort)
        try:
            yield True
        finally:
            self._mine.discard(cohort)
            lock.release()

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        if cohort in self._mine:
            return True
        if not self.folder.exists():
            return False
        lock = self._lock(cohort)
        if not Path(lock.lock_file).exists():
            return False
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return True
        lock.release()
        return False


class PostgresClaims:
    """Claims by advisory locks of a session, for any number of machines.

    Parameters
    ----------
    storage
        The database; while a claim is held it writes through the connection that holds it.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._connection: Connection | None = None
        storage.at_close.append(self.close)

    def close(self) -> None:
        """Let go of the connection, and with it of what it holds."""
        if self._connection is not None:
            with contextlib.suppress(DBAPIError):
                self._connection.close()
            self._connection = None

    def _open(self) -> Connection:
        """The connection that holds claims: made when first needed, made anew when it broke."""
        if self._connection is not None and self._connection.invalidated:
            self.close()
        if self._connection is None:
            self._connection = self._storage.engine.connect()
        return self._connection

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        with self._storage.failures():
            claimed = postgres.Claimed(
                self._open(), postgres.lock_key(cohort), cohort.replace("\0", "/")
            )
            mine = claimed.take()
        if not mine:
            yield False
            return
        self._storage.claimed = claimed
        try:
            yield True
        finally:
            self._storage.claimed = None
            claimed.give_back()

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        with self._storage.read() as connection:
            return postgres.held(connection, postgres.lock_key(cohort))
