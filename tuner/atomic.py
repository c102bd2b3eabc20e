"""Files that are whole or not there: written under another name, which takes the place of the old one at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to; when the block ends well it becomes ``path``, else it is deleted.

    A reader sees the old file or the new one, never a part, and two writers never share a file.

    Parameters
    ----------
    path
        The file that is to be; its folder must exist.
    durable
        Whether the content is brought to the disk first, so that a power cut cannot leave an empty file.
    """
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if durable:
            _to_disk(partial)
        partial.replace(path)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) == partial:
            error.filename = str(path)  # the name that its reader knows
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> Path:
    """Write a file whole, in a folder that is made if need be; see ``replacing``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content)
    return path


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
