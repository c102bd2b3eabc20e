"""Locks that die with their holder: who works on a cohort.

On SQLite a claim is an operating-system lock on a file beside the database, which vanishes with its process, however
that ends. On PostgreSQL it is an advisory lock of a session, which the server frees when the connection ends; all that is
written under a claim goes through that connection. Trials that are RUNNING in a cohort that nobody holds are orphans.

Whoever takes a lock writes into the database that he did, and with which epoch: see :mod:`studies.database.fences`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from studies.database import own_tables, postgres
from studies.database.sqlite import lock_folder, make_folder
from studies.database.tokens import Claim, claim_key
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from studies.database.connection import Storage


WAIT_SECONDS = 0.5
"""How often it is looked whether what is waited for has become free."""


class Locks(Protocol):
    """Exclusive locks on cohorts, by name, that die with their holder."""

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        ...

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        ...


class FileLocks:
    """Locks by files, for one machine.

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
        make_folder(self.folder)
        return FileLock(self.folder / f"{name}.lock", thread_local=False)

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        lock = self._lock(cohort)
        try:
            self._acquire(lock)
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

    @staticmethod
    def _acquire(lock: FileLock) -> None:
        for attempt in range(3):
            try:
                # Not at once: held() of another process takes the lock for a moment.
                lock.acquire(timeout=0.3, poll_interval=0.02)
                return
            except FileNotFoundError:
                # Somebody cleared the folder away just now; it is made anew with the lock.
                if attempt == 2:
                    raise

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
            return Path(lock.lock_file).exists()  # or somebody cleared it away just now
        lock.release()
        return False


class SessionLocks:
    """Advisory locks of a PostgreSQL session, for any number of machines.

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
        before, self._storage.claimed = self._storage.claimed, claimed
        try:
            yield True
        finally:
            self._storage.claimed = before
            claimed.give_back()

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        with self._storage.read() as connection:
            return postgres.held(connection, postgres.lock_key(cohort))


def open_claims(storage: Storage) -> Claims:
    """Claims in a database, by the locks of its kind."""
    path = storage.path
    return Claims(storage, SessionLocks(storage) if path is None else FileLocks(path))


class Claims:
    """Exclusive claims on cohorts, by name: a lock, and an epoch in the database that grows whenever the lock is taken.

    Parameters
    ----------
    storage
        The database; all that it writes while a claim is held is refused once somebody else has taken the claim.
    locks
        The locks.
    """

    def __init__(self, storage: Storage, locks: Locks) -> None:
        self._storage = storage
        self._locks = locks

    @contextlib.contextmanager
    def claim(self, cohort: str) -> Iterator[bool]:
        """Hold the cohort while inside; yields False where somebody else holds it."""
        with self._locks.claim(cohort) as mine:
            if not mine:
                yield False
                return
            claim = self._enter(cohort)
            self._storage.claims.append(claim)
            try:
                yield True
            finally:
                self._storage.claims.remove(claim)

    def held(self, cohort: str) -> bool:
        """Whether a living process, this one or another, holds the cohort now."""
        return self._locks.held(cohort)

    def _enter(self, cohort: str) -> Claim:
        """Write that the cohort is claimed, and by whom."""
        table, key = own_tables.claims, claim_key(cohort)
        shown = cohort.replace("\0", "/")
        who = {"cohort": shown, "host": socket.gethostname(), "pid": os.getpid()}
        with self._storage.begin() as connection:
            epoch = connection.execute(
                sa.select(table.c.epoch).where(table.c.claim == key)
            ).scalar()
            if epoch is None:
                epoch = 0
                connection.execute(table.insert().values(claim=key, epoch=1, **who))
            else:
                connection.execute(
                    table.update().where(table.c.claim == key).values(epoch=epoch + 1, **who)
                )
        return Claim(key, shown, epoch + 1)

    def holder(self, cohort: str) -> str:
        """Who holds a cohort that is held, to be shown: process and host."""
        t = own_tables.claims.c
        with self._storage.read() as connection:
            row = connection.execute(
                sa.select(t.host, t.pid).where(t.claim == claim_key(cohort))
            ).one_or_none()
        return "another process" if row is None else f"process {row.pid} on {row.host}"

    @contextlib.contextmanager
    def all(
        self,
        wanted: Mapping[str, str],
        *,
        wait: bool = False,
        say: Callable[[str], None] = lambda message: None,
    ) -> Iterator[None]:
        """Hold cohorts while inside, all of them.

        Parameters
        ----------
        wanted
            Cohort to what is to be done there, such as "study a/b/c/full cannot be deleted".
        wait
            Whether those that others hold are waited for.
        say
            Told what is waited for.

        Raises
        ------
        InputError
            If somebody else holds one and it is not waited for, naming who.
        """
        with contextlib.ExitStack() as held:
            for cohort in sorted(
                wanted
            ):  # in one order everywhere: nobody waits for somebody who waits
                told = False
                while not held.enter_context(self.claim(cohort)):
                    who = self.holder(cohort)
                    if not wait:
                        raise InputError(
                            f"{wanted[cohort]} while {who} works on it; stop that first, or say "
                            "--wait to wait for it"
                        )
                    if not told:
                        say(f"{wanted[cohort]} while {who} works on it; waiting")
                    told = True
                    time.sleep(WAIT_SECONDS)
            yield
