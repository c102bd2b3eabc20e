"""An entry of the feature cache while it is being extracted: arrays, progress, checksums.

Every chunk's checksum is in the progress record. Whoever goes on after a kill or a power cut reads
the chunks back and trusts those that match, so nothing needs to be forced to disk on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.atomic import write_bytes
from tuner.features.normalize import Moments
from tuner.features.waiting import InMemory, OnDisk

_SAVE_EVERY = 2.0  # seconds
_RAW = "train.raw"


class Sink(ABC):
    """One layer's features being filled, chunk by chunk and in order.

    Parameters
    ----------
    shapes
        Name of a set of images to the shape (n, C, h, w) of its features.
    chunk
        Images per chunk.

    Attributes
    ----------
    raw
        Where what the layer returned waits until its statistics are known; None where it does not.
    """

    raw: InMemory | OnDisk | None = None

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], chunk: int) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.chunk = chunk
        channels = next(iter(self.shapes.values()))[1]
        # one object, so that an interrupt falls before or after a chunk and never into one
        self._statistics = (Moments.none(channels), 0)

    @property
    def moments(self) -> Moments:
        """Statistics over the first chunks."""
        return self._statistics[0]

    @property
    def moments_done(self) -> int:
        """Over how many chunks the statistics are."""
        return self._statistics[1]

    def add_moments(self, moments: Moments) -> None:
        """Take in the statistics of the next chunk."""
        self._statistics = (self.moments.merge(moments), self.moments_done + 1)

    @abstractmethod
    def done(self, name: str) -> int:
        """Return how many chunks of a set of images have been written."""

    @abstractmethod
    def write(self, name: str, features: NDArray[np.float16]) -> None:
        """Write the next chunk of a set of images."""

    @abstractmethod
    def save(self, *, now: bool = False) -> None:
        """Record the progress, at most every few seconds unless ``now``."""


class MemoryEntry(Sink):
    """Features in memory, gone with the process.

    Parameters
    ----------
    shapes, chunk
        As of every sink.
    waits
        Whether what the layer returns waits for its statistics.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], chunk: int, *, waits: bool = False
    ) -> None:
        super().__init__(shapes, chunk)
        self.raw = InMemory() if waits else None
        self.arrays = {n: np.empty(s, dtype=np.float16) for n, s in self.shapes.items()}
        self._done = dict.fromkeys(self.shapes, 0)

    def done(self, name: str) -> int:
        """Return how many chunks of a set of images have been written."""
        return self._done[name]

    def write(self, name: str, features: NDArray[np.float16]) -> None:
        """Take in the next chunk of a set of images."""
        start = self._done[name] * self.chunk
        self.arrays[name][start : start + len(features)] = features
        self._done[name] += 1

    def save(self, *, now: bool = False) -> None:
        """Do nothing: there is nowhere to go on from."""


class PartialEntry(Sink):
    """Features on disk, to go on with after an interruption.

    Parameters
    ----------
    folder
        Made if it is not there.
    meta
        What the finished entry will say about itself.
    shapes
        Name of a set of images to the shape (n, C, h, w) of its features.
    chunk
        Images per chunk.
    waits
        (n, C, H, W) of what the layer returns, where that is to wait for its statistics, beside the features; a disk
        without room for it does without.
    """

    def __init__(
        self,
        folder: Path,
        meta: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        chunk: int,
        waits: tuple[int, int, int, int] | None = None,
    ) -> None:
        super().__init__(shapes, chunk)
        self.folder = folder
        self.meta = dict(meta)
        self._checks: dict[str, list[int]] = {name: [] for name in self.shapes}
        self._saved = time.monotonic()
        self._headers = {name: _header(shape) for name, shape in self.shapes.items()}
        self._files: dict[str, int] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in self.shapes:
                self._files[name] = self._open(name)
            held = self._resume()
            if waits is not None:
                with suppress(OSError):
                    self.raw = OnDisk(self.folder / _RAW, waits, chunk, held)
            else:
                (self.folder / _RAW).unlink(missing_ok=True)
        except BaseException:
            self.abandon()
            self.discard_unless_begun()
            raise

    def _open(self, name: str) -> int:
        handle = os.open(self.folder / f"{name}.npy", os.O_RDWR | os.O_CREAT, 0o644)
        size = len(self._headers[name]) + 2 * int(np.prod(self.shapes[name]))
        if os.fstat(handle).st_size != size:
            os.ftruncate(handle, 0)
            # claimed now: a disk that fills up later would kill, not complain
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:  # pragma: no cover - not Linux
                os.ftruncate(handle, size)
        os.pwrite(handle, self._headers[name], 0)
        return handle

    def _resume(self) -> dict[str, list[int]]:
        """Take the progress up; return what is known of what waits."""
        try:
            record = json.loads((self.folder / "progress.json").read_text())
            if record["meta"] != self.meta or record["chunk"] != self.chunk:
                return {}
            moments = record["moments"]
            restored = Moments(
                int(moments["count"]),
                np.array(moments["mean"], dtype=np.float64),
                np.array(moments["deviations"], dtype=np.float64),
            )
            done = int(moments["chunks"])
            if restored.mean.shape != self.moments.mean.shape or not restored.finite():
                return {}
            checks = {n: [int(c) for c in record["files"][n]["checks"]] for n in self.shapes}
            held = dict(record.get("raw", {}))
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # nothing usable: from the start
        self._statistics = (restored, done)
        for name, values in checks.items():
            for index, value in enumerate(values):
                if zlib.crc32(self._read(name, index)) != value:
                    break
                self._checks[name].append(value)
        return held

    def done(self, name: str) -> int:
        """Return how many chunks of a set of images have been written."""
        return len(self._checks[name])

    def write(self, name: str, features: NDArray[np.float16]) -> None:
        """Write the next chunk of a set of images."""
        data = np.ascontiguousarray(features).tobytes()
        at = self._position(name, self.done(name))
        view = memoryview(data)
        while view:
            written = os.pwrite(self._files[name], view, at)
            view, at = view[written:], at + written
        self._checks[name].append(zlib.crc32(data))

    def save(self, *, now: bool = False) -> None:
        """Record the progress, at most every few seconds unless ``now``."""
        if not now and time.monotonic() - self._saved < _SAVE_EVERY:
            return
        record = self.record()
        record["moments"] = {
            "chunks": self.moments_done,
            "count": self.moments.count,
            "mean": self.moments.mean.tolist(),
            "deviations": self.moments.deviations.tolist(),
        }
        if isinstance(self.raw, OnDisk):
            record["raw"] = self.raw.record()
        write_bytes(self.folder / "progress.json", json.dumps(record).encode(), durable=True)
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Close and delete the files."""
        self.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_unless_begun(self) -> None:
        """Give back the space that was claimed, where there is nothing to go on with."""
        if not (self.folder / "progress.json").exists():
            self.discard()

    def record(self) -> dict[str, Any]:
        """Return what is known of the files: shapes, sizes, checksums."""
        return {
            "meta": self.meta,
            "chunk": self.chunk,
            "files": {
                name: {
                    "shape": list(shape),
                    "bytes": len(self._headers[name]) + 2 * int(np.prod(shape)),
                    "checks": self._checks[name],
                }
                for name, shape in self.shapes.items()
            },
        }

    def close(self, record: str) -> None:
        """Force everything to disk and write the final record."""
        for handle in self._files.values():
            os.fsync(handle)
        if isinstance(self.raw, OnDisk):
            self.raw.remove()
        self.abandon()
        write_bytes(self.folder / "entry.json", record.encode(), durable=True)

    def abandon(self) -> None:
        """Close the files and leave them where they are."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if isinstance(self.raw, OnDisk):
            self.raw.close()

    def _position(self, name: str, index: int) -> int:
        row = 2 * int(np.prod(self.shapes[name][1:]))
        return len(self._headers[name]) + index * self.chunk * row

    def _read(self, name: str, index: int) -> bytes:
        total = len(self._headers[name]) + 2 * int(np.prod(self.shapes[name]))
        start = self._position(name, index)
        end = min(self._position(name, index + 1), total)
        blocks = []
        while start < end:
            block = os.pread(self._files[name], end - start, start)
            if not block:
                break
            blocks.append(block)
            start += len(block)
        return b"".join(blocks)


def read_rows(array: NDArray[np.float16], index: int, chunk: int) -> bytes:
    """Return the bytes of one chunk of an array of images."""
    return array[index * chunk : (index + 1) * chunk].tobytes()


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    description = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
