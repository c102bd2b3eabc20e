"""Exit codes, and the one line on standard error."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import typer

from cli import errors, main, options
from tuner.errors import EnvironmentFailure, InputError, TunerError


def code_and_line(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = errors.conclude(error)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err.rstrip("\n")


class OutOfMemoryError(RuntimeError):
    """Stands for torch's own, which only a GPU raises."""


OutOfMemoryError.__module__ = "torch.cuda"


class OperationalError(Exception):
    """Stands for psycopg's own."""


OperationalError.__module__ = "psycopg"


def caused_by(inner: Exception) -> Exception:
    try:
        raise RuntimeError("the storage failed") from inner
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code", "start"),
    [
        (InputError("tuner.toml: data.path: wrong"), 2, "error: tuner.toml: data.path: wrong"),
        (InputError("two\nlines\tand \x1b[31mcolour"), 2, "error: two lines and \\x1b[31mcolour"),
        (EnvironmentFailure("cache/: disk full"), 3, "error: cache/: disk full"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.npy"),
            3,
            "error: x.npy: No space left on device; free space on that disk",
        ),
        (OSError("HDF5: errno = 28, 'No space left on device'"), 3, "error: HDF5"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            3,
            "error: out: Permission denied; change",
        ),
        (OSError(errno.EROFS, "Read-only file system"), 3, "error: Read-only file system"),
        (MemoryError(), 3, "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, "error: out of memory"),
        (ImportError("libtorch.so: failed to map segment"), 3, "error: out of memory"),
        (OutOfMemoryError("CUDA out of memory"), 3, "error: the device is out of memory"),
        (RuntimeError("CUDA error: device lost"), 3, "error: the device failed"),
        (sqlite3.OperationalError("disk I/O error"), 3, "error: the database cannot be used"),
        (
            caused_by(sqlite3.OperationalError("attempt to write a readonly database")),
            3,
            "error: the database cannot be used: attempt to write",
        ),
        (caused_by(OperationalError("connection refused")), 3, "error: the database cannot be r"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "f/x"), 2, "error: f/x: Not a dir"),
        (FileExistsError(errno.EEXIST, "File exists", "out"), 2, "error: out: File exists"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xx"), 2, "error: xx: File name too"),
        (typer.BadParameter("no"), 2, "error: invalid value: no; see 'tuner --help'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (errors.Terminated(), 143, "terminated"),
        (TunerError("2 studies were set aside"), 1, "error: 2 studies were set aside"),
        (KeyError("x"), 1, "error: defect: KeyError: 'x' (run it again with --verbose"),
        (sqlite3.OperationalError("no such table: trials"), 1, "error: defect: "),
        (AssertionError(), 1, "error: defect: AssertionError"),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else "",
)
def test_every_end_has_its_code_and_its_line(error, code, start, capsys):
    found, line = code_and_line(error, capsys)
    assert (found, line[: len(start)]) == (code, start)


def test_exits_pass_through(capsys):
    assert errors.conclude(typer.Exit(5)) == 5
    assert errors.conclude(SystemExit(4)) == 4
    assert errors.conclude(SystemExit(None)) == 0
    assert errors.conclude(SystemExit("no")) == 1
    assert capsys.readouterr().err == ""


def test_no_password_reaches_standard_error(capsys, monkeypatch):
    monkeypatch.setenv("TUNER_TRACEBACK", "1")
    url = "postgresql+psycopg://ann:hunter2@host/db"

    def fail() -> None:
        raise KeyError(url)

    with pytest.raises(KeyError) as caught:
        fail()
    assert errors.conclude(caught.value) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ann:***@host" in err
    assert "hunter2" not in err


def test_a_traceback_is_shown_when_asked_for(run, monkeypatch):
    monkeypatch.setitem(main.COMMANDS, "init", main.Entry(__name__, "broken", ""))
    plain = run("init")
    assert (plain.code, plain.err.count("\n")) == (1, 1)
    verbose = run("init", "--verbose")
    assert verbose.code == 1
    assert "Traceback" in verbose.err
    assert verbose.err.splitlines()[-1] == "error: defect: ZeroDivisionError: division by zero"


def broken() -> None:
    """Fail."""
    print(1 / 0)


def test_sigterm_is_told_apart_from_ctrl_c_and_the_handler_put_back():
    before = signal.getsignal(signal.SIGTERM)

    def terminated() -> None:
        with errors.sigterm_raises():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(errors.Terminated):
        terminated()
    assert signal.getsignal(signal.SIGTERM) is before


def test_commands_run_in_other_threads_too():
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main.main(["--version"])))
    thread.start()
    thread.join()
    assert codes == [0]


WAITING = """
import sys, time
import cli.main, typer
def wait() -> None:
    "Wait."
    print("ready", flush=True)
    time.sleep(60)
sys.modules["waiting"] = type(sys)("waiting")
sys.modules["waiting"].wait = wait
cli.main.COMMANDS["init"] = cli.main.Entry("waiting", "wait", "")
sys.exit(cli.main.main(["init"]))
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGHUP, 143, "terminated\n"),
    ],
)
def test_a_signal_ends_a_command_at_once(number, code, line):
    with subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell runs in the background inherit that Ctrl-C is ignored, and under nohup a dropped connection.
        preexec_fn=lambda: [
            signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)
        ],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, line)


@pytest.mark.parametrize("words", [["--help"], ["backbone", "list"]])
def test_a_closed_pipe_ends_quietly(words):
    many = f"import cli.main, sys; sys.exit(cli.main.main({words + ['-q'] * (len(words) > 1)}))"
    with subprocess.Popen(
        [sys.executable, "-c", many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (errors.CLOSED_PIPE, "")


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams_are_no_defect(closed):
    words = "import cli.main, sys; sys.exit(cli.main.main(['--help']))"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}>&-', sys.executable, words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_do_not_leak_from_one_command_to_the_next(run, folder):
    assert run("init", "a", "--quiet", "-c", "other.toml").code == 0
    assert options.settings().quiet
    assert run("init", "b").err != ""
    assert options.settings() == options.Settings()
