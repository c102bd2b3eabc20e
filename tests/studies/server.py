"""A PostgreSQL server of one's own, from Debian's binaries, and a transaction pooler in front of it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PASSWORD = "s3cret-of-the-test"
USER = "tuner"


def binaries() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return Path(there).resolve().parent if there else None


def unprivileged() -> list[str] | None:
    """Words before a command that root has somebody else run; None where nobody is there for it."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        if shutil.which("runuser"):
            return ["runuser", "-u", name, "--"]
    return None


def why_not() -> str | None:
    """Why no server can be started here, or None."""
    if binaries() is None:
        return "no PostgreSQL server is installed (Debian: postgresql)"
    if unprivileged() is None:
        return "root cannot run PostgreSQL, and there is no other user"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server on a free port of 127.0.0.1; one database a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        where, who = binaries(), unprivileged()
        assert where is not None
        assert who is not None
        self._where, self._who = where, who
        if who:
            shutil.chown(folder, who[2])
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._call(
            "initdb", "-D", "data", "-U", USER, "--pwfile=password", "-A", "scram-sha-256", "-N"
        )
        self.start()

    def _call(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [*self._who, str(self._where / program), *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off "
            "-c max_connections=60 -c shared_buffers=16MB"
        )
        self._call("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._call("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def restart(self) -> None:
        """As after a crash: every connection breaks."""
        self.stop()
        self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def new_database(self, name: str) -> str:
        """Make a database; returns its address, password and all."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str, port: int | None = None) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{name}"

    @contextmanager
    def pooler(self, mode: str) -> Iterator[int]:
        """Run pgbouncer in front; yields its port."""
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        port = free_port()
        folder = Path(tempfile.mkdtemp(prefix="pooler-"))
        (folder / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.port}\n[pgbouncer]\n"
            f"listen_addr=127.0.0.1\nlisten_port={port}\nauth_type=scram-sha-256\n"
            f"auth_file={folder}/users\npool_mode={mode}\nunix_socket_dir=\n"
            "ignore_startup_parameters=extra_float_digits\n"
        )
        folder.chmod(0o755)
        process = subprocess.Popen(
            [*self._who, program, str(folder / "ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)
            shutil.rmtree(folder)


@contextmanager
def running() -> Iterator[Server]:
    """A server that is gone afterwards."""
    # Not below pytest's own folders, which only their owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
