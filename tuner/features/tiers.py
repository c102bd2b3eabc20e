"""Features as training asks for them: a batch of images at a time, wherever they are kept.

From fastest to slowest: on the device, in host memory, mapped from disk, computed anew from the
images. All give the same numbers, those of the half-precision file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.backbones.backbone import Backbone
from tuner.errors import InputError
from tuner.features.layout import Images, chunk_images
from tuner.features.normalize import Normalization
from tuner.features.sweeps import as_images, to_half

A = TypeVar("A")
B = TypeVar("B")

Tier = Literal["device", "host", "mmap", "recompute"]
TIERS: tuple[Tier, ...] = ("device", "host", "mmap", "recompute")


def choose_tier(
    feature_bytes: int,
    *,
    device_bytes: int,
    host_bytes: int,
    disk_bytes: int,
    accelerator: bool = True,
) -> Tier:
    """Return the fastest tier that holds features of a given size.

    Depends on sizes and budgets alone, never on what happens to be free.

    Parameters
    ----------
    feature_bytes
        Size of the half-precision features.
    device_bytes, host_bytes, disk_bytes
        What features may take on the device, in host memory and in the cache folder.
    accelerator
        False where the device is the host itself: its memory is then counted once, as the host's.
    """
    if accelerator and feature_bytes <= device_bytes:
        return "device"
    if feature_bytes <= host_bytes:
        return "host"
    return "mmap" if feature_bytes <= disk_bytes else "recompute"


class FeatureStore(ABC):
    """Features of some images, read in batches.

    Attributes
    ----------
    tier
        Where the features are kept: one of the tiers.
    device
        The device that batches are brought to.
    shape
        (C, h, w) per image.
    """

    tier: Tier

    def __init__(self, shape: tuple[int, int, int], device: torch.device | str) -> None:
        self.shape = shape
        self.device = torch.device(device)

    @property
    def features(self) -> int:
        """Features per image, C * h * w."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """Return features (B, C * h * w), float32 and contiguous, of images by index (B,) int64."""

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return one batch after the other, the next one being read while one is in use."""
        yield from map(self.batch, indices)


def open_store(
    array: NDArray[np.float16],
    tier: Literal["device", "host", "mmap"] = "host",
    device: torch.device | str = "cpu",
) -> FeatureStore:
    """Return a store over extracted features (n, C, h, w), in memory or mapped from disk.

    Parameters
    ----------
    array
        Half precision; mapped from disk or in memory.
    tier
        Where the store keeps them: see ``choose_tier``.
    device
        Where batches are wanted.
    """
    if array.ndim != 4 or array.dtype != np.float16:
        raise InputError(
            f"features must be half precision (n, C, h, w), not {array.dtype} {array.shape}"
        )
    return _MappedStore(array, device) if tier == "mmap" else _HeldStore(array, tier, device)


class _HeldStore(FeatureStore):
    """Half precision in the memory of the device or of the host."""

    def __init__(
        self,
        array: NDArray[np.float16],
        tier: Literal["device", "host"],
        device: torch.device | str,
    ) -> None:
        super().__init__((array.shape[1], array.shape[2], array.shape[3]), device)
        self.tier = tier
        rows = torch.from_numpy(_in_memory(array.reshape(len(array), -1)))
        if self.device.type == "cuda" and tier == "host":
            rows = rows.pin_memory()
        self._rows = rows.to(self.device) if tier == "device" else rows

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor) -> Tensor:
        picked = self._rows.index_select(0, indices.to(self._rows.device))
        return picked.to(self.device).float()


def _in_memory(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """Return rows that can be written to, copied only where they are mapped from a file."""
    if rows.flags.writeable and rows.flags.c_contiguous and not isinstance(rows, np.memmap):
        return rows
    copy = np.empty(rows.shape, dtype=np.float16)
    for start in range(0, len(rows), 256):  # in pieces, so that the mapping need not stay whole
        copy[start : start + 256] = rows[start : start + 256]
    return copy


class _MappedStore(FeatureStore):
    """Half precision on disk, read row by row."""

    tier: Tier = "mmap"

    def __init__(self, array: NDArray[np.float16], device: torch.device | str) -> None:
        super().__init__((array.shape[1], array.shape[2], array.shape[3]), device)
        self._rows = array.reshape(len(array), -1)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor) -> Tensor:
        return self._read(indices).to(self.device).float()

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        yield from (half.to(self.device).float() for half in _ahead(self._read, indices))

    def _read(self, indices: Tensor) -> Tensor:
        wanted = indices.cpu().numpy()
        order = np.argsort(wanted, kind="stable")  # the disk is read in one direction
        rows = np.empty((len(wanted), self.features), dtype=np.float16)
        for at in order:
            rows[at] = self._rows[wanted[at]]
        return torch.from_numpy(rows)


class RecomputeStore(FeatureStore):
    """Features computed from the images for each batch, rounded exactly like extracted ones.

    The backbone runs on as many images at a time as in extraction, filled up if need be.

    Parameters
    ----------
    backbone, layer, normalization
        What turns images into features.
    images
        Where indices point to.
    """

    tier: Tier = "recompute"

    def __init__(
        self,
        backbone: Backbone,
        layer: str,
        normalization: Normalization,
        images: Images,
        device: torch.device | str,
    ) -> None:
        channels = len(normalization.mean)
        super().__init__((channels, *normalization.grid), device)
        self._backbone = backbone.to(self.device)
        self._layer = layer
        self._normalization = normalization.to(self.device)
        self._images = images
        self._chunk = chunk_images(images.size)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Tensor) -> Tensor:
        """Return features (B, C * h * w) of images by index."""
        return self._compute(self._read(indices))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return one batch after the other, images being read ahead."""
        yield from map(self._compute, _ahead(self._read, indices))

    def _read(self, indices: Tensor) -> NDArray[np.uint8]:
        return self._images.read(indices.cpu().numpy().astype(np.int64))

    def _compute(self, pixels: NDArray[np.uint8]) -> Tensor:
        parts = []
        for start in range(0, len(pixels), self._chunk):
            part = pixels[start : start + self._chunk]
            count = len(part)
            if count < self._chunk:
                part = np.concatenate([part, np.repeat(part[-1:], self._chunk - count, axis=0)])
            with torch.no_grad():
                kept = self._backbone.capture(
                    as_images(part, self.device), [self._layer], lambda _, raw: self._half(raw)
                )
            parts.append(kept[self._layer][:count])
        if not parts:
            return torch.empty((0, self.features), device=self.device)
        return torch.cat(parts).float().flatten(1)

    def _half(self, raw: Tensor) -> Tensor:
        return to_half(self._normalization.apply(raw))


def _ahead(read: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield ``read(item)`` for each item, the next one under way while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        pending: Future[B] | None = None
        for item in items:
            following = reader.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
