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

Pictures = NDArray[np.uint8] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""``(n, height, width, 3)`` uint8, or names of image files."""


def as_batch(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """``(B, S, S, 3)`` 8-bit images to ``(B, 3, S, S)`` float32 in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255).contiguous()


class Files:
    """Image files wherever they lie; a :class:`tuner.recordings.recording.ImageSource`.

    Raises
    ------
    InputError
        If one of them is no file.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]]) -> None:
        self._files = [self._found(file) for file in files]
        self.names: Sequence[str] = [str(file) for file in self._files]

    @staticmethod
    def _found(file: str | os.PathLike[str]) -> Path:
        if not isinstance(file, str | os.PathLike):
            raise InputError(
                "images: must be one array (n, height, width, 3) uint8, or names of image files; among them is "
                f"{type(file).__name__}"
            )
        if not Path(file).is_file():
            raise InputError(f"{file}: no such image file")
        return Path(file)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode one image to (height, width, 3)."""
        return decode(self._files[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image by its header, pixels."""
        return stored_size(self._files[index])

    def digest(self) -> str:
        """Hash the names."""
        return combined_digest(name.encode() for name in self.names)


def prepared(images: Pictures, size: int, fit: Fit, device: torch.device | str = "cpu") -> Tensor:
    """Images as a batch of one size.

    Parameters
    ----------
    images
        ``(n, height, width, 3)`` uint8, or names of image files.
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

    source: ArrayImages | Files
    if isinstance(images, np.ndarray):
        source = ArrayImages(images)
    else:
        source = Files([images] if isinstance(images, str | os.PathLike) else images)
    for index, name in enumerate(source.names):
        height, width = source.size(index)
        if height != width and fit == "error":
            raise InputError(
                f'{name} is {width} x {height} pixels, not square; pass fit="crop" or fit="pad"'
            )
    return as_batch(PreparedImages(source, size, fit).read(range(len(source))), device)
