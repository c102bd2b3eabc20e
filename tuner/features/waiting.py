"""What layers return, waiting on disk until its statistics are known, so that images go through a network once.

Features are normalised by means and sds over all images, which are known only after the last of them. So what a layer
returned for the first image either waits, exactly as it was returned, or is computed a second time; the numbers are the
same. Waiting is cheap where a layer is deep and its map small; the first layers' maps are large and soon computed again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.features.layout import Layout

Half = NDArray[np.float16]

_MACS_PER_BYTE = {"cpu": 20.0}
"""Multiply-adds that take as long as writing and reading a byte, in early layers, which have few for the bytes they move:
with 100 EfficientNet-Lite0 computed its first blocks again and took 1.85 passes."""
_MACS_PER_BYTE_OF_ACCELERATORS = 5000.0
"""The same where they are ten to a hundred times as many, and the byte is moved from the device and back besides."""
SMALL = (
    256 << 20
)  # bytes that always wait where there is room: they never leave the memory of the machine
_PIECE = (
    4 << 20
)  # bytes that are worked on at a time: more would be fetched from the system and given back each time


@dataclass(frozen=True)
class Waiting:
    """Which layers' outputs wait.

    Attributes
    ----------
    layers
        Layers that do; the others are computed a second time.
    n_bytes
        What they take on disk meanwhile.
    again
        What waiting and computing a second time take, as a share of one pass up to the deepest layer.
    """

    layers: tuple[str, ...]
    n_bytes: int
    again: float


def waiting(
    layouts: Mapping[str, Layout],
    macs: Mapping[str, int],
    n_images: int,
    room: float,
    device: str,
) -> Waiting:
    """Choose the layers whose outputs wait: the deepest, down to where computing the rest again is cheaper.

    Parameters
    ----------
    layouts
        Layer to its sizes.
    macs
        Layer to the multiply-adds of an image up to it.
    n_images
        Images that statistics are taken over.
    room
        Bytes that there are for it.
    device
        Type of the device that the network runs on.

    Returns
    -------
    Waiting
        Depends on sizes and room alone.
    """
    price = _MACS_PER_BYTE.get(device, _MACS_PER_BYTE_OF_ACCELERATORS)
    order = sorted(layouts, key=lambda layer: macs[layer], reverse=True)
    whole = max(1, macs[order[0]])
    total = sum(layout.raw_bytes(n_images) for layout in layouts.values())
    if total <= min(SMALL, room):
        return Waiting(tuple(order), total, price * total / max(1, n_images) / whole)
    best = Waiting((), 0, 1.0)
    taken = 0
    for count, layer in enumerate(order, start=1):
        taken += layouts[layer].raw_bytes(n_images)
        if taken > room:
            break
        rest = macs[order[count]] if count < len(order) else 0
        again = (price * taken / max(1, n_images) + rest) / whole
        if again < best.again:
            best = Waiting(tuple(order[:count]), taken, again)
    return best


def in_pieces(raw: Tensor, made: Callable[[Tensor], Half]) -> Half:
    """Apply a map of single images to a few of them at a time, on a CPU; elsewhere to all."""
    if raw.device.type != "cpu":
        return made(raw)
    return np.concatenate([made(piece) for piece in torch.split(raw, _rows(raw[0].numel()))])


def _rows(numbers: int) -> int:
    return max(1, _PIECE // max(1, 4 * numbers))


class InMemory:
    """Outputs that wait in memory."""

    def __init__(self) -> None:
        self._raw: dict[int, Tensor] = {}

    def put(self, index: int, raw: Tensor) -> None:
        """Take in a chunk."""
        self._raw[index] = raw.to("cpu", copy=True)

    def holds(self, index: int) -> bool:
        """Tell whether a chunk is there."""
        return index in self._raw

    def take(self, index: int, made: Callable[[Tensor], Half]) -> Half | None:
        """Return what becomes of a chunk, which is then gone; None where it is not there."""
        raw = self._raw.pop(index, None)
        return None if raw is None else in_pieces(raw, made)


class OnDisk:
    """Outputs that wait in a file, each chunk with its checksum.

    Parameters
    ----------
    path
        The file.
    shape
        (n, C, H, W) of all.
    chunk
        Images per chunk.
    known
        What :meth:`record` returned before an interruption.

    Raises
    ------
    OSError
        If the disk has no room for it.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        chunk: int,
        known: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.path, self._shape, self._chunk = path, shape, chunk
        self._row = int(np.prod(shape[1:]))
        # by chunk: checksum, and whether channels come last
        self._known = {int(k): (int(v[0]), bool(v[1])) for k, v in (known or {}).items()}
        self._doubted = set(self._known)  # written before an interruption
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            size = 4 * shape[0] * self._row
            if os.fstat(self._file).st_size != size:
                self._known = {}
                os.ftruncate(self._file, 0)
                # claimed now: a disk that fills up later would kill, not complain
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._file, 0, size)
                else:  # pragma: no cover - not Linux
                    os.ftruncate(self._file, size)
        except OSError:
            self.remove()
            raise

    def put(self, index: int, raw: Tensor) -> None:
        """Write a chunk, in the order in which it lies in memory; what is not float32 or not whole is left away."""
        expected = min(self._chunk, self._shape[0] - index * self._chunk)
        if raw.dtype != torch.float32 or tuple(raw.shape) != (expected, *self._shape[1:]):
            return
        last = raw.stride(1) == 1
        check, at = 0, 4 * index * self._chunk * self._row
        for piece in torch.split(raw, _rows(self._row)):
            ordered = piece.permute(0, 2, 3, 1) if last else piece
            view = memoryview(cast("Any", ordered.contiguous().cpu().numpy())).cast("B")
            check = zlib.crc32(view, check)
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        self._known[index] = check, last
        self._doubted.discard(index)

    def holds(self, index: int) -> bool:
        """Tell whether a chunk was written."""
        return index in self._known

    def take(self, index: int, made: Callable[[Tensor], Half]) -> Half | None:
        """Return what becomes of a chunk; None where it is not there or not as it was written."""
        if index not in self._known:
            return None
        check, last = self._known[index]
        channels, height, width = self._shape[1:]
        shape = (-1, height, width, channels) if last else (-1, channels, height, width)
        left = min(self._chunk, self._shape[0] - index * self._chunk)
        found, at, out = 0, 4 * index * self._chunk * self._row, []
        while left:
            rows = min(left, _rows(self._row))
            data = np.empty(rows * self._row, dtype=np.float32)
            view = memoryview(cast("Any", data)).cast("B")
            count = self._fill(view, at)
            if index in self._doubted:
                found = zlib.crc32(view[:count], found)
            piece = torch.from_numpy(data).view(shape)
            out.append(made(piece.permute(0, 3, 1, 2) if last else piece))
            left, at = left - rows, at + len(view)
        return None if index in self._doubted and found != check else np.concatenate(out)

    def _fill(self, view: memoryview, at: int) -> int:
        filled = 0
        while filled < len(view):
            count = os.preadv(self._file, [view[filled:]], at + filled)
            if not count:
                break
            filled += count
        return filled

    def record(self) -> dict[str, list[int]]:
        """Return what is known of the chunks, for the progress record."""
        return {str(index): [check, int(last)] for index, (check, last) in self._known.items()}

    def close(self) -> None:
        """Close the file and leave it where it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        with suppress(FileNotFoundError):
            self.path.unlink()
