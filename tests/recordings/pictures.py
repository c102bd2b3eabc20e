"""Small images whose content tells which one they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(index: int, size: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Draw image number `index`: no two are alike."""
    rng = np.random.default_rng([seed, index])
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def pictures(count: int, first: int = 0, size: int = 8) -> NDArray[np.uint8]:
    """Draw images `first` to `first + count - 1`."""
    return np.stack([picture(first + index, size) for index in range(count)])


def write_pictures(
    folder: Path, names: Sequence[str], first: int = 0, size: int = 8
) -> NDArray[np.uint8]:
    """Write images of a lossless type under the given names, and return their pixels."""
    images = pictures(len(names), first, size)
    for name, image in zip(names, images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, format="BMP" if name.endswith(".bmp") else "PNG")
    return images
