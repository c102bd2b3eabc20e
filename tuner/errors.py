"""Errors that a person can mend, each with the exit code it ends a command with."""

from __future__ import annotations

from collections.abc import Iterable


class TunerError(Exception):
    """Base of all errors raised on purpose; the message is one line."""

    exit_code = 1


class InputError(TunerError):
    """The user's input was wrong: names the file, key or unit and the remedy (exit code 2)."""

    exit_code = 2


class EnvironmentFailure(TunerError):  # noqa: N818 - not an error of the user or of ours
    """Disk full, database unreachable, device lost (exit code 3)."""

    exit_code = 3


def unknown(kind: str, value: object, valid: Iterable[object], where: str = "") -> InputError:
    """Build the error for a name that does not exist, listing the names that do.

    Parameters
    ----------
    kind
        What the name stands for, such as ``"layer"``.
    value
        The name that was given.
    valid
        The names that exist.
    where
        What they belong to, such as ``"backbone vgg19"``.
    """
    names = ", ".join(str(name) for name in valid) or "none"
    place = f" of {where}" if where else ""
    return InputError(f"unknown {kind} {str(value)!r}{place}; valid: {names}")
