"""The database: optuna's tables and ours in one file, opened so that readers never block the writer.

Trials are written through :mod:`studies.database.trials`; here are the connection, its pragmas, and the few tables of our
own. Study attributes of optuna stay empty but for two: optuna-dashboard reads all of them to show a list.
"""

from __future__ import annotations

import contextlib
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, make_url

from studies.config.values import redact
from studies.database import migration, optuna_tables, own_tables, postgres, tokens
from studies.database.filesystems import refuse_network
from studies.database.sqlite import BUSY_SECONDS, lock_folder, make_folder, pragmas
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class Storage:
    """The experiment's database.

    Parameters
    ----------
    url
        SQLAlchemy address; may hold a password, which no message shows.
    create
        Whether a database that does not exist is made.
    called
        What says where it is, in messages: a key of ``tuner.toml``, or an argument.

    Raises
    ------
    InputError
        If it was written by a newer version, or does not exist and is not to be made.
    EnvironmentFailure
        If it cannot be reached or written.
    """

    _called: str = "storage.url"

    def __init__(self, url: str, *, create: bool = False, called: str = "storage.url") -> None:
        self.url = make_url(url)
        self.shown = redact(url)
        self._called = called
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        self.claimed: postgres.Claimed | None = None
        """Where a claim is held by a connection, all is written through that one."""
        self.claims: list[tokens.Claim] = []
        """Claims that are held here; every write makes sure of them."""
        self.at_close: list[Callable[[], None]] = []
        if self.path is not None:
            refuse_network(self.path)
            if not self.path.exists():
                if not create:
                    raise InputError(
                        f"{self.path}: no studies yet; make them with 'tuner study create'"
                    )
                make_folder(self.path.parent, called)
        with self.failures(), self._alone(create):
            self.engine = self._open_engine()
            try:
                if create and not self._has(optuna_tables.revision):
                    _ = self.optuna  # makes its tables
                self._refuse_unknown()
                self._prepare(create)
            except BaseException:
                self.close()
                raise
        self._identity = self._file()

    @contextlib.contextmanager
    def _alone(self, create: bool) -> Iterator[None]:
        """Let one process at a time make the tables: two at once make each other fail."""
        if self.path is None:
            with postgres.opening(self.url):
                yield
        elif create:
            folder = lock_folder(self.path)
            make_folder(folder)
            with FileLock(folder / "opening.lock", timeout=BUSY_SECONDS):
                yield
        else:
            yield

    def _options(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"connect_args": {"timeout": BUSY_SECONDS}}
        return {"pool_pre_ping": True, "connect_args": dict(postgres.CONNECT)}

    @property
    def _at_connect(self) -> Callable[[Any, Any], None]:
        return pragmas if self.is_sqlite else postgres.session_settings

    def _open_engine(self) -> Engine:
        engine = sa.create_engine(self.url, **self._options())
        event.listen(engine, "connect", self._at_connect)
        return engine

    @cached_property
    def optuna(self) -> RDBStorage:
        """Optuna's own storage on the same database; opened when first asked for, which takes a while."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.failures(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            event.listen(Engine, "connect", self._at_connect)
            try:
                storage = optuna.storages.RDBStorage(
                    self.url.render_as_string(hide_password=False), engine_kwargs=self._options()
                )
            finally:
                # From here on the engine itself is listened to, not every engine of the process.
                event.remove(Engine, "connect", self._at_connect)
            event.listen(storage.engine, "connect", self._at_connect)
            storage.engine.dispose()
            return storage

    def _prepare(self, create: bool) -> None:
        if not create and not self._has(own_tables.meta):
            raise InputError(
                f"storage.url: {self.shown} holds no studies yet; make them with 'tuner study "
                "create'"
            )
        with self.engine.connect() as connection:
            found = migration.schema(connection)
            if found is not None and found > own_tables.SCHEMA:
                raise InputError(
                    f"storage.url: {self.shown} was written by a newer tuner (schema {found}, this "
                    f"one knows {own_tables.SCHEMA}); upgrade cortex-tuner"
                )
            complete = migration.complete(connection)
        if not complete:
            with self._transaction() as connection:
                migration.bring_up(connection)

    def _has(self, table: sa.Table) -> bool:
        return sa.inspect(self.engine).has_table(table.name)

    def _refuse_unknown(self) -> None:
        """Refuse tables of optuna's that are of another kind than is described in :mod:`optuna_tables`."""
        if not self._has(optuna_tables.revision):
            return
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(optuna_tables.revision.c.version_num)).scalar()
            if found is None or found in optuna_tables.KNOWN_REVISIONS:
                return
            by = None
            with contextlib.suppress(sa.exc.DBAPIError):
                by = connection.execute(sa.select(optuna_tables.version.c.library_version)).scalar()
        raise InputError(
            f"storage.url: {self.shown} holds tables of optuna's revision {found}"
            f"{'' if by is None else f', written by optuna {by}'}, and this tuner knows "
            f"{', '.join(optuna_tables.KNOWN_REVISIONS)} only; upgrade cortex-tuner, or use another "
            f"database and pip install 'optuna{optuna_tables.KNOWN_OPTUNA}'"
        )

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """One write transaction; on SQLite the write lock is taken at once, never upgraded.

        Raises
        ------
        ClaimLost
            If somebody else has taken a claim that is held here.
        EnvironmentFailure
            If the database fails, was moved or replaced, or a claim was lost together with its connection.
        """
        self._refuse_moved()
        with self.failures():
            claimed = None if self.claimed is None else self.claimed.transaction()
            with claimed or self._transaction() as connection:
                for claim in self.claims:
                    tokens.refuse_taken(connection, claim)
                yield connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def one_at_a_time(self, connection: Connection, what: str) -> None:
        """Until the transaction ends no other process gets past here; on SQLite it holds the write lock already."""
        if not self.is_sqlite:
            key = postgres.lock_key(what)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def _file(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _refuse_moved(self) -> None:
        """What is written to a file that was moved, deleted or replaced meanwhile would be lost with it."""
        if self._file() != self._identity:
            raise EnvironmentFailure(
                f"storage.url: {self.path} was moved, deleted or replaced while it was in use; put "
                "it back (with the files beside it whose names begin alike) and run the command "
                "again"
            )

    def settle(self) -> None:
        """Move what was written into the database file itself, so that a copy of that one file is whole."""
        if not self.is_sqlite:
            return
        # Where others read just now it waits for the next time.
        with contextlib.suppress(sa.exc.DBAPIError), self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            try:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for reading: what others write meanwhile is seen by none of its queries."""
        with self.failures(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what the database's driver raises into one line that says what to do."""
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise EnvironmentFailure(self._explained(error)) from error
        except ImportError as error:
            if "psycopg" not in str(error) and self.is_sqlite:
                raise
            raise InputError(postgres.MISSING) from error
        except Exception as error:
            if type(error).__name__ != "StorageInternalError":
                raise
            raise EnvironmentFailure(self._explained(error.__cause__ or error)) from error

    def _explained(self, error: BaseException) -> str:
        return f"{self._called}: {self.shown}: {_explain(error)}"

    def close(self) -> None:
        """Let go of all connections."""
        for close in self.at_close:
            close()
        if "optuna" in self.__dict__:
            self.optuna.remove_session()
            self.optuna.engine.dispose()
        self.engine.dispose()


def _explain(error: BaseException) -> str:
    text = " ".join(redact(str(getattr(error, "orig", error))).split())
    remedy = "check that the database is there and can be reached"
    if "disk is full" in text:
        remedy = "free space on that disk and run the command again; finished trials are safe"
    elif "readonly" in text or "read-only" in text or "unable to open" in text:
        remedy = "check that it is there, and make the file and its folder writable"
    elif "malformed" in text or "not a database" in text:
        remedy = "restore it from a copy; the file is damaged or not a database"
    elif "locked" in text or "lock timeout" in text:
        remedy = "another program holds it; close that and run the command again"
    elif "disk I/O" in text:
        remedy = "check the disk (full, failing, or taken away) and run the command again"
    elif "no such table" in text:
        remedy = "the file holds no studies; make them with 'tuner study create'"
    return f"{text}; {remedy}"
