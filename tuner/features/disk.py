"""What a full, read-only or failing disk means for features."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.errors import EnvironmentFailure


@contextmanager
def disk(folder: Path, need: int) -> Iterator[None]:
    """Say what a full, read-only or failing disk means for features."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            wanted = f"; {readable(need)} are needed" if need else ""
            raise EnvironmentFailure(
                f"the disk of the feature cache {folder} is full{wanted}; free space, lower "
                "storage.cache_limit so that older features go first, or set storage.cache to "
                "another disk"
            ) from error
        raise EnvironmentFailure(
            f"the feature cache {folder} cannot be used: {error.strerror or error}; mend it, or "
            "set storage.cache to another folder"
        ) from error


def readable(count: float) -> str:
    """Return a number of bytes as a person would write it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
