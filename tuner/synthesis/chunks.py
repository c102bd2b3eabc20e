"""How many images share a batch.

The last bits of a convolution depend on the size of its batch (measured: batches of 1 and of 2
differ on every network tried), but neither on an image's position in the batch nor on the images
beside it. So every batch of a layer and image size has the same size, the last one filled up, and
an image's bytes depend on nothing but its own unit, variant and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

LARGEST = {"cpu": 8, "cuda": 64}
_REFERENCE_SIZE = 64
"""Image side up to which the largest batch pays on a CPU; beyond, it falls out of the caches."""


def chunk_size(image_size: int, device_type: str) -> int:
    """Images per batch: a power of two, at least 1; depends on no clock and no free memory."""
    largest = LARGEST.get(device_type, LARGEST["cpu"])
    reference = _REFERENCE_SIZE if device_type == "cpu" else 224
    chunk = largest
    while chunk > 1 and chunk * image_size**2 > largest * reference**2:
        chunk //= 2
    return chunk


def chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Cut into pieces of ``size``, the last one filled up with its own first item."""
    pieces = [list(items[start : start + size]) for start in range(0, len(items), size)]
    return [piece + [piece[0]] * (size - len(piece)) for piece in pieces]
