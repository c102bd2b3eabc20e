"""Small random displacements of an image while it is optimised, by name.

What an image gains from a pattern that works only at one exact place is lost on any real eye and is
mostly the network's own quirk. All draws come from numpy's global generator, which the loop seeds
by (seed, step), and every image of the batch gets the same draw: an image's fate never depends on
its company.

The published sets run through lucent's own functions, with three corrections that a receptive field
of definite place and size asks for. The result is cropped or padded about its centre to the frame,
where lucent squeezes it to the frame; the mean displacement is taken off again, since lucent's
jitter only pushes right and down; and borders are filled with the background's grey, not black.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.errors import unknown
from tuner.synthesis.lucent_bridge import Transform, lucent

Recipe = Callable[[int], tuple[list[Transform], float]]
"""Image size to transforms, and to their mean displacement (px, right and down)."""


def _none(size: int) -> tuple[list[Transform], float]:
    return [], 0.0


def _jitter(size: int) -> tuple[list[Transform], float]:
    """Shift by up to size / 32 pixels either way."""
    return [shift(max(1, size // 32))], 0.0


def _lucent(size: int) -> tuple[list[Transform], float]:
    """Use lucent's standard: pad 12, jitter 8, scale .9 to 1.1, rotate to 10 degrees, jitter 4."""
    t = lucent().transform
    scales = [1 + (i - 5) / 50.0 for i in range(11)]
    angles = [*range(-10, 11), *[0] * 5]
    return [
        t.pad(12, mode="constant", constant_value=0.0),
        t.jitter(8),
        t.random_scale(scales),
        t.random_rotate(angles),
        t.jitter(4),
    ], _mean_jitter(8, 4)


def _predecessor(size: int) -> tuple[list[Transform], float]:
    """Follow the batch scripts of Roelfsema-Lab (2023): jitter 10."""
    return [lucent().transform.jitter(10)], _mean_jitter(10)


def _paolo(size: int) -> tuple[list[Transform], float]:
    """Follow the lab's notebook: jitter 8, scale .975 to 1.049, rotate -5 to 4, jitter 4."""
    t = lucent().transform
    return [
        t.jitter(8),
        t.random_scale([n / 1000 for n in range(975, 1050)]),
        t.random_rotate(list(range(-5, 5))),
        t.jitter(4),
    ], _mean_jitter(8, 4)


TRANSFORMS: dict[str, Recipe] = {
    "jitter": _jitter,
    "none": _none,
    "lucent": _lucent,
    "predecessor": _predecessor,
    "paolo": _paolo,
}


def build(name: str, size: int, background: float) -> list[Transform]:
    """Build the transforms called ``name`` for images of ``size`` pixels on a grey ``background``.

    Returns
    -------
    list of Transform
        Images ``(B, 3, size, size)`` to images of the same size.

    Raises
    ------
    InputError
        If there are none of that name; the message lists those there are.
    """
    if name not in TRANSFORMS:
        raise unknown("transforms", name, TRANSFORMS)
    recipe, displacement = TRANSFORMS[name](size)
    if not recipe:
        return []

    def remove(images: Tensor) -> Tensor:
        return images - background

    def add(images: Tensor) -> Tensor:
        return images + background

    return [remove, *recipe, _frame(size, displacement), add]


def _mean_jitter(*widths: int) -> float:
    return sum((width - 1) / 2 for width in widths)


def shift(reach: int) -> Transform:
    """Shift by whole pixels, each of both axes uniform in [-reach, reach]; filled with 0."""

    def inner(images: Tensor) -> Tensor:
        dy, dx = np.random.randint(-reach, reach + 1, size=2)
        height, width = images.shape[2:]
        padded = functional.pad(images, [reach] * 4)
        return padded[:, :, reach - dy : reach - dy + height, reach - dx : reach - dx + width]

    return inner


def _frame(size: int, displacement: float) -> Transform:
    """Crop or pad to ``(size, size)`` about the centre moved right and down by ``displacement``.

    What is left of a pixel is rounded at random, so that there is no displacement on average.
    """

    def inner(images: Tensor) -> Tensor:
        axes = []
        for axis in (2, 3):
            exact = (images.shape[axis] - size) / 2 + displacement
            start = int(np.floor(exact + np.random.rand()))
            before, after = max(0, -start), max(0, start + size - images.shape[axis])
            axes.append((start + before, before, after))
        (top, above, below), (left, ahead, behind) = axes
        padded = functional.pad(images, [ahead, behind, above, below])
        return padded[:, :, top : top + size, left : left + size]

    return inner


def apply(transforms: list[Transform], images: Tensor) -> Tensor:
    """Apply transforms one after the other."""
    for transform in transforms:
        images = transform(images)
    return torch.as_tensor(images)
