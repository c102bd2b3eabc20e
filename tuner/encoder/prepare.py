"""Images of any size as an encoder reads them: resized as those that it was fitted on were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.errors import InputError
from tuner.recordings.sources import combined_digest, decode, stored_size

if TYPE_CHECKING:
    from tuner.recordings.images import Fit

Picture = NDArray[np.uint8] | str | os.PathLike[str]
"""``(height, width, 3)`` uint8, or the name of an image file."""

Pictures = Picture | Sequence[Picture]
"""``(n, height, width, 3)`` uint8, one name of a file, or several pictures of any size."""


def as_batch(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """``(B, S, S, 3)`` 8-bit images to ``(B, 3, S, S)`` float32 in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255).contiguous()


class Several:
    """Images of different sizes, arrays or files wherever they lie; a :class:`tuner.recordings.recording.ImageSource`.

    Raises
    ------
    InputError
        If one of them is neither ``(height, width, 3)`` uint8 nor a file.
    """

    def __init__(self, images: Sequence[Picture]) -> None:
        self._images = [
            self._checked(image, f"images[{index}]") for index, image in enumerate(images)
        ]
        self.names: Sequence[str] = [
            str(image) if isinstance(image, Path) else f"images[{index}]"
            for index, image in enumerate(self._images)
        ]

    @staticmethod
    def _checked(image: Picture, name: str) -> Path | NDArray[np.uint8]:
        if isinstance(image, str | os.PathLike):
            if not Path(image).is_file():
                raise InputError(f"{image}: no such image file")
            return Path(image)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            what = type(image).__name__
            if isinstance(image, np.ndarray):
                what = f"{image.shape} {image.dtype}"
            raise InputError(
                f"{name} must be (height, width, 3) uint8, or the name of an image file, not {what}"
            )
        return image

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> NDArray[np.uint8]:
        """One image as (height, width, 3)."""
        image = self._images[index]
        return decode(image) if isinstance(image, Path) else image

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image, of a file by its header, pixels."""
        image = self._images[index]
        if isinstance(image, Path):
            return stored_size(image)
        return int(image.shape[0]), int(image.shape[1])

    def digest(self) -> str:
        """Hash the names."""
        return combined_digest(name.encode() for name in self.names)


def prepared(images: Pictures, size: int, fit: Fit, device: torch.device | str = "cpu") -> Tensor:
    """Images as a batch of one size.

    Parameters
    ----------
    images
        ``(n, height, width, 3)`` uint8, or a list of such images or of names of image files.
    size
        Side of the square that they are resized to, antialiased bicubic, as a search does.
    fit
        What becomes of an image that is not square; see :class:`tuner.recordings.PreparedImages`.
    device
        Where the batch is to lie.

    Returns
    -------
    torch.Tensor
        ``(n, 3, size, size)`` float32 in [0, 1].

    Raises
    ------
    InputError
        If an image cannot be read, is not square under ``fit = "error"``, or the array is of another shape or type.
    """
    from tuner.recordings import PreparedImages
    from tuner.recordings.sources import ArrayImages

    source: ArrayImages | Several
    if isinstance(images, np.ndarray):
        source = ArrayImages(images)
    else:
        source = Several([images] if isinstance(images, str | os.PathLike) else images)
    for index, name in enumerate(source.names):
        height, width = source.size(index)
        if height != width and fit == "error":
            raise InputError(
                f'{name} is {width} x {height} pixels, not square; pass fit="crop" or fit="pad"'
            )
    return as_batch(PreparedImages(source, size, fit).read(range(len(source))), device)
