"""How large a layer's features are, known before any image has been seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuner.backbones.backbone import Backbone
from tuner.features.normalize import pooling

#: part of every key: raised when the numbers that extraction gives for equal input change
REVISION = 1


class Images(Protocol):
    """Images as a backbone sees them: of one size, readable in any order."""

    @property
    def size(self) -> int:
        """Side of the images, px."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Return (n, size, size, 3)."""

    def digest(self) -> str:
        """Return a hash of the content of all images, in order, and of how they were resized."""


@dataclass(frozen=True)
class Layout:
    """Shape of one layer's features.

    Attributes
    ----------
    channels, height, width
        What the layer returns for one image.
    kernel
        Side of the pooling window, cells.
    grid
        (h, w) after pooling.
    rectified
        Whether the layer is rectified already.
    signed
        Whether it keeps its sign: neither rectified already nor to be.
    """

    channels: int
    height: int
    width: int
    kernel: int
    grid: tuple[int, int]
    rectified: bool
    signed: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's features."""
        return (self.channels, *self.grid)

    @property
    def features(self) -> int:
        """Features per image."""
        return self.channels * self.grid[0] * self.grid[1]

    def cached_bytes(self, n_images: int) -> int:
        """Return the size of the half-precision features of so many images."""
        return 2 * self.features * n_images

    def raw_shape(self, n_images: int) -> tuple[int, int, int, int]:
        """Return the shape of what the layer returns for so many images."""
        return n_images, self.channels, self.height, self.width

    def raw_bytes(self, n_images: int) -> int:
        """Return the size of that, in float32."""
        return 4 * math.prod(self.raw_shape(n_images))


def layouts(
    backbone: Backbone, layers: Sequence[str], image_size: int, max_grid: int
) -> dict[str, Layout]:
    """Return the layout of each layer, in depth order.

    Raises
    ------
    InputError
        For a layer that the backbone does not have or that images of this size do not reach.
    """
    found = {}
    for info in backbone.describe(layers, image_size):
        kernel, grid = pooling(info.height, info.width, max_grid)
        rectified = info.rectified and backbone.rectify is not True
        signed = not info.rectified and backbone.rectify is False
        found[info.name] = Layout(
            info.channels, info.height, info.width, kernel, grid, rectified, signed
        )
    return found


def feature_key(
    backbone: Backbone,
    layer: str,
    images: Images,
    max_grid: int,
    test_images: Images | None = None,
) -> str:
    """Return the name of a layer's features in the cache: a hash of all that determines them.

    The weights and preprocessing (the backbone's digest), the layer, the pooling, and the content,
    size and resizing of the images.
    """
    layout = layouts(backbone, [layer], images.size, max_grid)[layer]
    parts = {
        "revision": REVISION,
        "backbone": backbone.digest,
        "layer": layer,
        "image_size": images.size,
        "kernel": layout.kernel,
        "rectified": layout.rectified,
        "images": images.digest(),
        "n_images": len(images),
        "test_images": None if test_images is None else test_images.digest(),
        "n_test_images": None if test_images is None else len(test_images),
    }
    if layout.signed:
        parts["signed"] = True
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def chunk_images(image_size: int) -> int:
    """Return how many images go through a backbone together.

    Fixed by the image size alone: a network may round differently in batches of another size, and
    features must depend neither on the machine nor on where an extraction was interrupted.
    """
    pixels = 16 * 224 * 224  # about half a gigabyte of activations in VGG-19
    count = 1
    while count < 32 and 2 * count * image_size * image_size <= pixels:
        count *= 2
    return count
