"""Features on disk, named by what determines them, bounded in size, safe to share and to kill.

A finished entry is a folder ``<key>/`` with ``entry.json`` and one ``.npy`` file per set of images,
half precision. It appears by renaming ``<key>.partial/``, in which the extraction keeps its
progress. One process extracts an entry at a time (a lock file); whoever reads one pins it by a
shared lock that dies with the process, and only entries that nobody has pinned are evicted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.features.disk import disk, readable
from tuner.features.entry import Entry, describe, open_pinned, read_entry, record_check
from tuner.features.partial import PartialEntry

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, which refuses to delete a mapped file anyway
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("tuner")

_verified: dict[Path, tuple[tuple[str, int, int, int], ...]] = {}
"""Entries that this process has read from end to end, and what their files were then."""

Half = NDArray[np.float16]


@dataclass(frozen=True)
class Listed:
    """An entry as a listing shows it."""

    key: str
    bytes: int
    used: float  # seconds since the epoch
    partial: bool
    description: str


class FeatureCache:
    """A folder of features.

    Parameters
    ----------
    folder
        Where; made when first written to.
    limit_bytes
        How much it may hold; None for no limit.
    """

    def __init__(self, folder: Path | str, limit_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes

    # -- reading ------------------------------------------------------------------------------

    def open(self, key: str) -> Entry | None:
        """Return an entry, pinned for as long as its arrays live; None where there is none.

        An entry that is damaged or half-written is removed, said once, and counts as none.
        """
        path = self.folder / key / "entry.json"
        handle = open_pinned(path)
        if handle is None:
            return None
        try:
            entry = read_entry(path.parent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            os.close(handle)
            _log.warning(
                "features in %s are damaged (%s); they will be extracted again", path.parent, error
            )
            with disk(self.folder, 0):
                self._remove(path.parent)
            return None
        # the lock lasts as long as any of the arrays, or of the views on them
        for array in entry.arrays.values():
            weakref.finalize(array._mmap, os.close, os.dup(handle))  # type: ignore[attr-defined]
        os.close(handle)
        with suppress(OSError):  # the last use; a folder that may only be read keeps its order
            os.utime(path)
        return entry

    def entries(self) -> list[Listed]:
        """List what the folder holds, least recently used first."""
        found = []
        for folder in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            partial = folder.name.endswith(".partial")
            record = folder / ("progress.json" if partial else "entry.json")
            hidden = folder.name.startswith(".")
            if hidden or not folder.is_dir() or not (partial or record.exists()):
                continue
            try:
                size = sum(file.stat().st_size for file in folder.iterdir())
                used = (record if record.exists() else folder).stat().st_mtime
            except FileNotFoundError:  # evicted by another process meanwhile
                continue
            key = folder.name.removesuffix(".partial")
            found.append(Listed(key, size, used, partial, describe(record)))
        return sorted(found, key=lambda stored: (stored.used, stored.key))

    def holds(self, size: int) -> bool:
        """Whether so many bytes of features are within the limit, were there nothing else."""
        return self.limit_bytes is None or size <= self.limit_bytes

    def used_bytes(self) -> int:
        """Return the size of all entries, finished or not."""
        return sum(stored.bytes for stored in self.entries())

    def verify(self, key: str) -> str | None:
        """Read an entry from end to end; return what is wrong with it, or None."""
        try:
            read_entry(self.folder / key, deep=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return str(error) or type(error).__name__
        return None

    def verify_once(self, key: str) -> str | None:
        """Read an entry from end to end, unless this process did so since its files were last written; else as `verify`."""
        state = []
        for path in sorted((self.folder / key).glob("*.npy")):
            with suppress(FileNotFoundError):
                status = path.stat()
                state.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
        now = tuple(state)
        if not now or _verified.get(self.folder / key) == now:
            return None
        problem = self.verify(key)
        if problem is None:
            _verified[self.folder / key] = now
        return problem

    def remove(self, key: str, *, partial: bool = False) -> bool:
        """Remove an entry, or its unfinished extraction; False where it is in use or not there."""
        if partial:
            with disk(self.folder, 0):
                lock = self._lock(key)
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    return False
            try:
                with disk(self.folder, 0):
                    return self._remove(self.folder / f"{key}.partial")
            finally:
                lock.release()
        with disk(self.folder, 0):
            return self._evict(key)

    # -- writing ------------------------------------------------------------------------------

    @contextmanager
    def extracting(self, keys: Sequence[str]) -> Iterator[None]:
        """Hold the right to extract some entries; waits while another process extracts them."""
        held: list[filelock.BaseFileLock] = []
        try:
            for key in sorted(set(keys)):  # one order for all, so that nobody waits in a circle
                with disk(self.folder, 0):
                    (self.folder / "locks").mkdir(parents=True, exist_ok=True)
                    lock = self._lock(key)
                    try:
                        lock.acquire(timeout=0)
                    except filelock.Timeout:
                        _log.info("waiting for another process that extracts the same features")
                        lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in reversed(held):
                lock.release()

    def begin(
        self,
        key: str,
        meta: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        chunk: int,
        waits: tuple[int, int, int, int] | None = None,
    ) -> PartialEntry:
        """Start an entry, or go on where an interrupted extraction of it stopped.

        Parameters
        ----------
        key
            Name of the entry.
        meta
            What it will say about itself; an unfinished entry that says otherwise is discarded.
        shapes
            Name of a set of images to the shape of its features.
        chunk
            Images per chunk, the unit of progress.
        waits
            Shape of what the layer returns for all images, where that waits for its statistics.

        Raises
        ------
        EnvironmentFailure
            If the disk is full or the folder cannot be written.
        """
        folder = self.folder / f"{key}.partial"
        need = sum(2 * int(np.prod(shape)) for shape in shapes.values())
        with disk(self.folder, need):
            for doomed in self.folder.glob(".*.removed"):  # a kill came between the two steps
                shutil.rmtree(doomed, ignore_errors=True)
            return PartialEntry(folder, meta, shapes, chunk, waits)

    def finish(self, key: str, entry: PartialEntry, meta: Mapping[str, Any]) -> None:
        """Turn a complete partial entry into a finished one."""
        with disk(self.folder, 0):
            record = {**entry.record(), "meta": {**entry.meta, **meta}}
            record["check"] = record_check(record)
            entry.close(json.dumps(record))
            final = self.folder / key
            if final.exists():
                self._remove(final)
            entry.folder.rename(final)
            (final / "progress.json").unlink(missing_ok=True)

    def writing(self, need: int = 0) -> Any:
        """Return a context that turns a full or read-only disk into an `EnvironmentFailure`."""
        return disk(self.folder, need)

    def reserve(self, need: int, keep: Sequence[str] = ()) -> None:
        """Evict the least recently used entries until `need` more bytes are within the limit.

        Raises
        ------
        InputError
            If the limit cannot be kept, even without every entry that is not in use.
        """
        if self.limit_bytes is None:
            return
        stored = self.entries()
        total = sum(entry.bytes for entry in stored)
        for entry in stored:
            if total + need <= self.limit_bytes:
                return
            if entry.key not in keep and self.remove(entry.key, partial=entry.partial):
                _log.info("evicted %s from the feature cache", entry.description or entry.key)
                total -= entry.bytes
        if total + need > self.limit_bytes:
            raise InputError(
                f"storage.cache_limit of {readable(self.limit_bytes)} is too small: "
                f"{readable(need)} of features are to be stored in {self.folder} beside "
                f"{readable(total)} in use; raise it, or lower max_grid"
            )

    def room(self, need: int) -> int:
        """Return the bytes that are left for what is only needed for a while, beside `need` bytes of features.

        Within the limit, no entry being evicted for it, and at most half of what the disk has free.
        """
        folder = next(f for f in (self.folder, *self.folder.absolute().parents) if f.is_dir())
        with disk(self.folder, 0):
            free = (shutil.disk_usage(folder).free - need) // 2
        if self.limit_bytes is None:
            return max(0, free)
        return max(0, min(free, self.limit_bytes - self.used_bytes() - need))

    def _lock(self, key: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / "locks" / f"{key}.lock")

    def _evict(self, key: str) -> bool:
        path = self.folder / key / "entry.json"
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                        return False
            return self._remove(path.parent)
        finally:
            os.close(handle)

    def _remove(self, folder: Path) -> bool:
        # renamed first, so that nobody sees half an entry
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True
