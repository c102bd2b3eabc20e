"""What a PostgreSQL database needs besides SQL: keepalives, one opener at a time, the connection that holds a claim."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from tuner.errors import EnvironmentFailure, InputError

MISSING = "storage.url: PostgreSQL needs another package; pip install 'cortex-tuner[postgres]'"

CONNECT: dict[str, Any] = {
    # Statements prepared on the server make an address with a pooler fail before it can be told why.
    "prepare_threshold": None,
    "connect_timeout": 15,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""How the driver connects: a machine that vanishes is noticed after a minute, by either side."""

_SETTINGS = (
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)


def session_settings(connection: Any, record: Any) -> None:
    """Have the server look for clients that are gone as often: a dead machine's claims must become free."""
    with connection.cursor() as cursor:
        for setting in _SETTINGS:
            cursor.execute(setting)
        cursor.execute("SELECT current_setting('idle_session_timeout', true)")
        (limit,) = cursor.fetchone()
        if limit not in (None, "", "0"):
            # The connection that holds a claim is idle while its round is trained.
            cursor.execute("SET idle_session_timeout = 0")
    connection.commit()


def lock_key(name: str) -> int:
    """Key of an advisory lock, a signed 64-bit number."""
    digest = hashlib.blake2b(f"tuner\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@contextlib.contextmanager
def opening(url: URL) -> Iterator[None]:
    """Hold the lock under which tables are made, on a connection of its own.

    Raises
    ------
    InputError
        If the address leads to a transaction pooler.
    """
    engine = sa.create_engine(url, connect_args=dict(CONNECT), poolclass=sa.NullPool)
    try:
        refuse_pooler(engine)
        with engine.connect() as connection:
            connection.execute(sa.text("SET lock_timeout = '60s'"))
            connection.execute(sa.select(sa.func.pg_advisory_lock(lock_key("opening"))))
            connection.commit()
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(lock_key("opening"))))
                connection.commit()
    finally:
        engine.dispose()


_HELD = sa.text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid::bigint = :high AND objid::bigint = :low"
)
_MINE = sa.text(f"{_HELD.text} AND pid = pg_backend_pid()")


def _halves(key: int) -> dict[str, int]:
    """A lock's key as the server's table of locks shows it."""
    unsigned = key % 2**64
    return {"high": unsigned >> 32, "low": unsigned & 0xFFFFFFFF}


def held(connection: Connection, key: int) -> bool:
    """Whether any session of this database holds an advisory lock."""
    return bool(connection.execute(_HELD, _halves(key)).scalar_one())


class Claimed:
    """The connection that holds a claim, and that everything under the claim is written through.

    The server frees the lock when the connection ends, however it ends; a transaction on that same connection can
    therefore not be committed after the lock is lost.
    """

    def __init__(self, connection: Connection, key: int, what: str) -> None:
        self.connection = connection
        self.key = key
        self.what = what

    def take(self) -> bool:
        """Try to take the lock; at once."""
        got = self.connection.execute(sa.select(sa.func.pg_try_advisory_lock(self.key))).scalar()
        self.connection.commit()
        return bool(got)

    def give_back(self) -> None:
        """Let go of the lock; one that was lost with its connection is free already."""
        with contextlib.suppress(sa.exc.DBAPIError):
            self.connection.rollback()
            self.connection.execute(sa.select(sa.func.pg_advisory_unlock(self.key)))
            self.connection.commit()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, begun by making sure that the lock is still held by this very connection.

        Raises
        ------
        EnvironmentFailure
            If it is not: somebody else may hold it by now.
        """
        connection = self.connection
        try:
            # A connection that broke is silently made anew here, and then holds nothing.
            mine = connection.execute(_MINE, _halves(self.key)).scalar_one()
            if not mine:
                raise self._lost()
            yield connection
            connection.commit()
        except sa.exc.DBAPIError as error:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.rollback()
            if error.connection_invalidated:
                raise self._lost() from error
            raise
        except BaseException:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.rollback()
            raise

    def _lost(self) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"storage.url: the connection to the database was lost, and with it the claim on "
            f"{self.what}; nothing of that round was written and its trials run again: run the "
            "command again when the database can be reached"
        )


def refuse_pooler(engine: Engine) -> None:
    """Refuse an address behind which connections change hands between transactions: no lock of a session holds there.

    Raises
    ------
    InputError
        If two connections of ours meet the same server process, or one of them meets two.
    """
    pid = sa.select(sa.func.pg_backend_pid())
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(engine.connect()) for _ in range(3)]
        seen: list[set[int]] = [set() for _ in ours]
        for _ in range(3):
            for i, connection in enumerate(ours):
                seen[i].add(int(connection.execute(pid).scalar_one()))
                connection.commit()
            # One of them inside a transaction, the others have to do without its server process.
            ours[0].execute(pid)
            for i, connection in enumerate(ours[1:], start=1):
                seen[i].add(int(connection.execute(pid).scalar_one()))
                connection.commit()
            ours[0].commit()
    if any(len(mine) > 1 for mine in seen) or len(set.union(*seen)) < len(ours):
        raise InputError(
            "storage.url: leads to a transaction pooler (such as pgbouncer with pool_mode = "
            "transaction), behind which claims do not hold; give the address of the database "
            "server itself, or of a pool with pool_mode = session"
        )
