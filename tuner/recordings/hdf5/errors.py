"""Whatever h5py raises as one line that names the file.

Every call into h5py that a damaged file can break happens under ``guarded``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tuner.errors import InputError

LIBRARIES = ("h5py", "numpy")
"""Where an error must have been raised to be the file's: in these packages, not in ours."""


@contextmanager
def guarded(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of h5py inside the block into an ``InputError`` that names ``what``.

    What our own code raises there is a defect of ours, whatever its type, and passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: {what} needs more memory than there is (damaged?)") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        if not _of_library(error.__traceback__):
            raise
        text = str(error).strip("'\" ")
        reason = text.splitlines()[0] if text else type(error).__name__
        raise InputError(
            f"{path}: {what} cannot be read ({reason}); the file is damaged, get it again"
        ) from error


def _of_library(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame is one of the libraries'."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.split(".")[0] in LIBRARIES
