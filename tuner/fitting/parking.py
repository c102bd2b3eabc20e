"""Where columns wait while others are trained: host memory beside an accelerator, a file where the host is the device."""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.errors import EnvironmentFailure

_PIECE = 1 << 26
"""Bytes that are written or read at once."""


class Parked(Protocol):
    """Tensors by name, out of the device's memory."""

    def load(self, name: str) -> Tensor:
        """One tensor, on the host."""
        ...

    def rows(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Some rows of one tensor, on the host."""
        ...

    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        ...


def park(tensors: Mapping[str, Tensor], folder: Path | None) -> Parked:
    """Take tensors out of the device's memory; the caller forgets his own.

    Parameters
    ----------
    tensors
        On one device.
    folder
        Where a file may be made; None for the system's temporary folder.

    Raises
    ------
    EnvironmentFailure
        If the disk is full or cannot be written.
    """
    device = next(iter(tensors.values())).device
    return _OnDisk(tensors, folder) if device.type == "cpu" else _OnHost(tensors)


class _OnHost:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.cpu() for name, tensor in tensors.items()}

    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def load(self, name: str) -> Tensor:
        return self._tensors[name]

    def rows(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        return self._tensors[name].index_select(0, torch.from_numpy(rows))


class _OnDisk:
    """In a file that has no name: whatever ends the process also ends the file."""

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path | None) -> None:
        self._places: dict[str, tuple[int, torch.Size, torch.dtype]] = {}
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        at = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            for name, tensor in tensors.items():
                self._places[name] = at, tensor.shape, tensor.dtype
                raw = _bytes(tensor.contiguous())
                for start in range(0, len(raw), _PIECE):
                    self._write(raw[start : start + _PIECE])
                at += len(raw)
        except OSError as error:
            total = sum(t.numel() * t.element_size() for t in tensors.values())
            reason = "is full" if error.errno == errno.ENOSPC else f"cannot be written ({error})"
            raise EnvironmentFailure(
                f"{self._folder}: {reason}; training needs {total / 1e9:.2f} GB there for columns "
                "that wait; free some space, or raise training.memory"
            ) from error

    def _write(self, piece: memoryview) -> None:
        while len(piece):
            piece = piece[self._file.write(piece) :]

    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def load(self, name: str) -> Tensor:
        at, shape, dtype = self._places[name]
        tensor = torch.empty(shape, dtype=dtype)
        self._read(at, _bytes(tensor))
        return tensor

    def rows(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        at, shape, dtype = self._places[name]
        tensor = torch.empty(len(rows), *shape[1:], dtype=dtype)
        size = tensor[:1].numel() * tensor.element_size()
        into = _bytes(tensor)
        # Rows of a trial lie together: one read for each run of neighbours.
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(np.arange(len(rows)), breaks):
            if len(run):
                self._read(
                    at + int(rows[run[0]]) * size, into[run[0] * size : (run[-1] + 1) * size]
                )
        return tensor

    def _read(self, at: int, into: memoryview) -> None:
        self._file.seek(at)
        done = 0
        while done < len(into):
            count = self._file.readinto(into[done : done + _PIECE])  # type: ignore[attr-defined]
            if not count:
                raise EnvironmentFailure(
                    f"{self._folder}: a file of columns that wait was cut short"
                )
            done += count


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.numpy().reshape(-1).view(np.uint8).data
