"""The database: optuna's tables and ours in one file, opened so that readers never block the writer.

Everything that is written in bulk goes through :mod:`studies.trials`; here are the connection, its pragmas, and the few
tables of our own. Study attributes of optuna stay empty but for two: optuna-dashboard reads all of them to show a list.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, make_url

from studies.config_values import redact
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

SCHEMA = 1
"""Version of our own tables."""

KNOWN_REVISIONS = ("v3.2.0.a",)
"""Revisions of optuna's schema that :mod:`studies.trials` writes in bulk."""

BUSY_SECONDS = 60

metadata = sa.MetaData()

meta_table = sa.Table(
    "tuner_meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

studies_table = sa.Table(
    "tuner_studies",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(512), nullable=False, unique=True),
    sa.Column("backbone", sa.String(512), nullable=False),
    sa.Column("layer", sa.String(512), nullable=False),
    sa.Column("layer_index", sa.Integer, nullable=False),
    sa.Column("region", sa.String(512), nullable=False),
    sa.Column("readout", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("set_aside", sa.Text, nullable=True),
)
"""One row a study: its combination, the fingerprint of all that changes results, how its rounds are run."""

weights_table = sa.Table(
    "tuner_weights",
    metadata,
    sa.Column("artifact_id", sa.String(64), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("trial_number", sa.Integer, nullable=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
"""One row a kept weights file; ``trial_number`` is empty for the per-unit best."""


class Storage:
    """The experiment's database.

    Parameters
    ----------
    url
        SQLAlchemy address; may hold a password, which no message shows.
    create
        Whether a database that does not exist is made.

    Raises
    ------
    InputError
        If it was written by a newer version, or does not exist and is not to be made.
    EnvironmentFailure
        If it cannot be reached or written.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = make_url(url)
        self.shown = redact(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        if self.path is not None and not self.path.exists():
            if not create:
                raise InputError(
                    f"{self.path}: no studies yet; make them with 'tuner study create'"
                )
            _make_folder(self.path.parent)
        with self.failures():
            self.optuna = self._open_optuna()
            self._prepare()
        self.bulk = self._revision() in KNOWN_REVISIONS

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, shared with optuna."""
        return self.optuna.engine

    def _open_optuna(self) -> RDBStorage:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        options: dict[str, Any] = {"pool_pre_ping": not self.is_sqlite}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": BUSY_SECONDS}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            event.listen(Engine, "connect", _pragmas)
            try:
                return optuna.storages.RDBStorage(
                    self.url.render_as_string(hide_password=False), engine_kwargs=options
                )
            finally:
                # From here on the engine itself is listened to, not every engine of the process.
                event.remove(Engine, "connect", _pragmas)

    def _prepare(self) -> None:
        if self.is_sqlite:
            event.listen(self.engine, "connect", _pragmas)
            self.engine.dispose()
        metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            row = connection.execute(
                sa.select(meta_table.c.value).where(meta_table.c.key == "schema")
            ).scalar()
            if row is None:
                with contextlib.suppress(sa.exc.IntegrityError):  # another process was first
                    connection.execute(meta_table.insert().values(key="schema", value=str(SCHEMA)))
            elif int(row) > SCHEMA:
                raise InputError(
                    f"storage.url: {self.shown} was written by a newer tuner (schema {row}, this "
                    f"one knows {SCHEMA}); upgrade cortex-tuner"
                )

    def _revision(self) -> str:
        with self.failures():
            return str(self.optuna.get_current_version())

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """One write transaction; on SQLite the write lock is taken at once, never upgraded."""
        with self.failures(), self.engine.connect() as connection:
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

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for reading."""
        with self.failures(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what the database's driver raises into one line that says what to do."""
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise EnvironmentFailure(_explain(self.shown, error)) from error
        except Exception as error:
            if type(error).__name__ != "StorageInternalError":
                raise
            raise EnvironmentFailure(_explain(self.shown, error.__cause__ or error)) from error

    def close(self) -> None:
        """Let go of all connections."""
        self.optuna.remove_session()
        self.engine.dispose()


def _pragmas(connection: Any, record: Any) -> None:
    """WAL, so that readers and the writer do not wait for each other; a lost power supply may cost the last commits."""
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(
            f"storage.url: cannot make the folder {folder}: {error.strerror}"
        ) from error


def _explain(shown: str, error: BaseException) -> str:
    text = " ".join(redact(str(getattr(error, "orig", error))).split())
    remedy = "check that the database is there and can be reached"
    if "disk is full" in text:
        remedy = "free space on that disk and run the command again; finished trials are safe"
    elif "readonly" in text or "read-only" in text:
        remedy = "make the file and its folder writable"
    elif "malformed" in text or "not a database" in text:
        remedy = "restore it from a copy; the file is damaged or not a database"
    elif "locked" in text:
        remedy = "another program holds it; close that and run the command again"
    elif "disk I/O" in text:
        remedy = "check the disk (full, failing, or taken away) and run the command again"
    elif "no such table" in text:
        remedy = "the file holds no studies; make them with 'tuner study create'"
    return f"storage.url: {shown}: {text}; {remedy}"
