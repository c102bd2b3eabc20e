"""A finished entry of the feature cache: read, checked, pinned while it is read."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import EnvironmentFailure
from tuner.features.partial import read_rows

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, which refuses to delete a mapped file anyway
    fcntl = None  # type: ignore[assignment]

Half = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Entry:
    """One layer's features, mapped from disk.

    Attributes
    ----------
    meta
        What the entry says about itself, the normalisation among it.
    arrays
        Name of a set of images to its features (n, C, h, w), read-only.
    """

    meta: dict[str, Any]
    arrays: dict[str, Half]


def open_pinned(path: Path) -> int | None:
    """Open an entry's record under a shared lock; None where it is not there (any more)."""
    for _ in range(100):
        try:
            handle = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: readable, but not pinned
                fcntl.flock(handle, fcntl.LOCK_SH)
        # it may have been evicted, or replaced, between opening and locking
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)
    return None


def read_entry(folder: Path, *, deep: bool = False) -> Entry:
    """Map an entry's arrays; raises ValueError and its like for anything out of place."""
    record = json.loads((folder / "entry.json").read_text())
    if not isinstance(record, dict) or record.get("check") != record_check(record):
        raise ValueError("its record does not match its checksum")
    arrays = {}
    for name, file in record["files"].items():
        path = folder / f"{name}.npy"
        if path.stat().st_size != file["bytes"]:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {file['bytes']}")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.float16 or list(array.shape) != file["shape"]:
            raise ValueError(f"{path.name} holds {array.dtype} {array.shape}")
        checks: Sequence[int] = file["checks"]
        count = len(checks)
        # the two ends by default: what was never written to the disk is missing there
        for index in range(count) if deep else {0, count - 1} if count else set():
            rows = read_rows(array, index, record["chunk"])
            if zlib.crc32(rows) != checks[index]:
                raise ValueError(f"{path.name} does not match its checksum in chunk {index}")
        arrays[name] = array
    return Entry(record["meta"], arrays)


def record_check(record: Mapping[str, Any]) -> str:
    """Return the checksum of an entry's record."""
    content = {key: value for key, value in record.items() if key != "check"}
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def describe(record: Path) -> str:
    """Return what an entry holds, in words; empty where its record cannot be read."""
    try:
        meta = json.loads(record.read_text())["meta"]
        return f"{meta['backbone']} {meta['layer']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
