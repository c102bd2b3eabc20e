"""Crops of the photographs that ship inside scikit-image.

Each photograph is cut into a grid of blocks and every crop lies within one block. Some blocks of
each photograph are kept for the test crops; the others are the groups of the training crops. So no
pixel is on both sides of a cut, and every photograph is on each side.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import EnvironmentFailure, InputError
from tuner.recordings.images import resize
from tuner.recordings.sources import decode

PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
"""Files in scikit-image's data folder: portraits, objects, scenes and textures."""

GRID = 5
"""Blocks along each side of a photograph."""

TEST_BLOCKS = 5
"""Blocks of each photograph that only test crops are taken from."""

SMALLEST_CROP = 0.5
"""Side of the smallest crop, relative to the shorter side of its block."""

_TRIES = 4
_FLAT = 8.0


@dataclass(frozen=True)
class Crops:
    """Square crops of photographs, resized to one size.

    Parameters
    ----------
    images
        (n, size, size, 3) uint8.
    block
        Code of the block that each crop lies in, shape (n,): photograph times ``GRID ** 2`` plus
        the block's place in its photograph.
    box
        Left, top and side of each crop in its photograph, pixels, shape (n, 3).
    """

    images: NDArray[np.uint8]
    block: NDArray[np.int64]
    box: NDArray[np.int64]


def crops(n_train: int, n_test: int, size: int, seed: int) -> tuple[Crops, Crops]:
    """Cut training and test crops from the photographs.

    Parameters
    ----------
    n_train, n_test
        How many of each; they are spread evenly over the photographs and their blocks.
    size
        Side of the images, pixels, to which crops of varied size are resized.
    seed
        The same seed gives the same crops.

    Returns
    -------
    train, test

    Raises
    ------
    InputError
        If a number or the size is not positive.
    EnvironmentFailure
        If scikit-image or one of its photographs is missing.
    """
    for key, value in (("n_train", n_train), ("n_test", n_test), ("image_size", size)):
        if value < 1:
            raise InputError(f"data.{key} must be at least 1, not {value}")
    photographs = [decode(path) for path in _files()]
    rng = np.random.default_rng([0xC20B, seed])
    of_test = []
    of_train = []
    for number in range(len(photographs)):
        order = rng.permutation(GRID**2) + number * GRID**2
        of_test.append(order[:TEST_BLOCKS])
        of_train.append(order[TEST_BLOCKS:])
    train = _cut(photographs, np.array(of_train), n_train, size, rng)
    test = _cut(photographs, np.array(of_test), n_test, size, rng)
    return train, test


def _files() -> list[Path]:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise EnvironmentFailure(
            "scikit-image is not installed, and the simulated recording shows its photographs; "
            "run pip install scikit-image"
        )
    folder = Path(found.submodule_search_locations[0]) / "data"
    missing = [name for name in PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        raise EnvironmentFailure(
            f"scikit-image lacks its photographs {', '.join(missing)} in {folder}; reinstall it"
        )
    return [folder / name for name in PHOTOGRAPHS]


def _cut(
    photographs: list[NDArray[np.uint8]],
    blocks: NDArray[np.int64],
    count: int,
    size: int,
    rng: np.random.Generator,
) -> Crops:
    """Cut ``count`` crops from blocks of shape (photographs, blocks of each), in random order."""
    # Column by column, so that the first crops already come from every photograph.
    cycle = np.resize(blocks.T.ravel(), count)
    block = cycle[rng.permutation(count)]
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    box = np.empty((count, 3), dtype=np.int64)
    for index, code in enumerate(block):
        photograph = photographs[code // GRID**2]
        images[index], box[index] = _crop(photograph, int(code) % GRID**2, size, rng)
    return Crops(images, block, box)


def _crop(
    photograph: NDArray[np.uint8], place: int, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Draw a crop inside a block, half of them mirrored; a flat one is drawn again a few times."""
    height, width = photograph.shape[0] // GRID, photograph.shape[1] // GRID
    top, left = place // GRID * height, place % GRID * width
    for _ in range(_TRIES):
        longest = min(height, width)
        side = int(rng.integers(round(SMALLEST_CROP * longest), longest + 1))
        y = top + int(rng.integers(height - side + 1))
        x = left + int(rng.integers(width - side + 1))
        crop = photograph[y : y + side, x : x + side]
        if crop.std() >= _FLAT:
            break
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    # Cut first: a resizer that sees the whole photograph would blend in pixels beyond the crop.
    return resize(np.ascontiguousarray(crop), size), (x, y, side)
