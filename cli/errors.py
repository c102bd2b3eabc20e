"""How a command ends: one line on standard error, and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from tuner.errors import TunerError

DEFECT, INPUT, ENVIRONMENT, INTERRUPTED, TERMINATED, CLOSED_PIPE = 1, 2, 3, 130, 143, 141

FAILING_SYSTEM = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EFBIG,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EADDRINUSE,
}
"""Errors of the operating system that no input of the user's explains."""

REMEDIES = {
    errno.ENOSPC: "free space on that disk, or name another",
    errno.EDQUOT: "free space within the quota, or name another disk",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk",
}
"""What to do about some of them."""

WRONG_NAMES = {errno.ENAMETOOLONG, errno.ELOOP}
"""Errors of the operating system that lie in a path as it was given."""

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "annot allocate memory",
    "not enough memory",
    "failed to map segment",
    "std::bad_alloc",
)
"""What libraries say where a limit of memory (``ulimit -v``, a container's) is reached."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a connection that dropped: handled like Ctrl-C everywhere, and told apart at the very end."""


def reopen_closed_streams() -> None:
    """Let what is printed go nowhere where a shell has closed standard output or error (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the end


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into :class:`Terminated` while the block runs, where signals may be set.

    What ignores SIGHUP, as under nohup, goes on ignoring it.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = {}
    try:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if number not in before and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def conclude(error: BaseException, *, verbose: bool = False) -> int:
    """Say how a command ended and return its exit code.

    Parameters
    ----------
    error
        What the command raised.
    verbose
        Whether to print the traceback too.

    Returns
    -------
    int
        The exit code.
    """
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return _closed_pipe()
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    code, line = classify(error)
    defect = code == DEFECT and not isinstance(error, TunerError)
    if verbose or (defect and os.environ.get("TUNER_TRACEBACK")):
        _say("".join(traceback.format_exception(error)).rstrip("\n"))
    elif defect:
        line += " (run it again with --verbose for the traceback, and please report it)"
    _say(one_line(line))
    return code


def classify(error: BaseException) -> tuple[int, str]:
    """Find the exit code of an error and the line that says what happened."""
    if isinstance(error, Terminated):
        return TERMINATED, "terminated"
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, TunerError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, typer.TyperException):
        return INPUT, f"error: {_usage(error)}"
    reason = _environment_reason(error)
    if reason:
        return ENVIRONMENT, f"error: {reason}"
    names_a_path = isinstance(error, OSError) and (
        isinstance(
            error, FileExistsError | FileNotFoundError | IsADirectoryError | NotADirectoryError
        )
        or error.errno in WRONG_NAMES
    )
    if isinstance(error, OSError) and names_a_path and error.filename is not None:
        return INPUT, f"error: {os.fsdecode(error.filename)}: {error.strerror}"
    return DEFECT, _defect(error)


def one_line(text: str) -> str:
    """Fit a message in one line of printable characters."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def _defect(error: BaseException) -> str:
    return f"error: defect: {type(error).__name__}: {error}"


def _usage(error: typer.TyperException) -> str:
    """Write what is wrong with the command line, and where to read on."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    message = message.replace("Input should be", "must be")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "tuner"
    return f"{message[:1].lower()}{message[1:]}; see '{path} --help'"


def _environment_reason(error: BaseException) -> str | None:
    """Tell what failed, if it was the machine, a device or the database."""
    for link in _chain(error):
        if isinstance(link, MemoryError) or any(part in str(link) for part in _OUT_OF_MEMORY):
            return "out of memory; lower training.memory or training.batch_size"
        if isinstance(link, OSError):
            reason = _system_reason(link)
            if reason:
                return reason
        kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(link).__mro__}
        if "sqlite3.OperationalError" in kinds and not str(link).startswith(("no such", "near ")):
            return f"the database cannot be used: {link}"
        if kinds & {"psycopg.OperationalError", "psycopg.errors.OperationalError"}:
            return f"the database cannot be reached: {link}"
        if any(kind.startswith("torch.") and "OutOfMemoryError" in kind for kind in kinds):
            return f"the device is out of memory; lower training.memory: {link}"
        if "torch.AcceleratorError" in kinds or str(link).startswith("CUDA error"):
            return f"the device failed: {link}"
    return None


def _system_reason(error: OSError) -> str | None:
    # HDF5 reports a full disk within its own text, without the number.
    if error.errno not in FAILING_SYSTEM and "No space left on device" not in str(error):
        return None
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    return f"{where}{error.strerror or error}{remedy}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _closed_pipe() -> int:
    """Leave quietly when whoever read the output is gone, as ``head`` does."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return CLOSED_PIPE


def _say(text: str) -> None:
    """Print on standard error, without any password that an address in it may hold."""
    from studies.config.values import redact

    print(redact(text), file=sys.stderr)
