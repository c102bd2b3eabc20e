"""Whatever h5py raises as one line that names the file.

Every call into h5py that a damaged file can break happens under `guarded`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.errors import InputError


@contextmanager
def guarded(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of h5py inside the block into an `InputError` that names `what`."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: {what} needs more memory than there is (damaged?)") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        text = str(error).strip("'\" ")
        reason = text.splitlines()[0] if text else type(error).__name__
        raise InputError(
            f"{path}: {what} cannot be read ({reason}); the file is damaged, get it again"
        ) from error
