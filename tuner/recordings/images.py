"""Images as a backbone sees them: square, of one size, resized once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError, unknown
from tuner.recordings.recording import ImageSource
from tuner.recordings.sources import in_threads

Fit = Literal["error", "crop", "pad"]
FITS: tuple[Fit, ...] = ("error", "crop", "pad")

PAD_VALUE = 128
"""Grey level of the border that ``fit = "pad"`` adds."""

_METHOD = "bicubic-antialiased-1"


class PreparedImages:
    """The images of a source, each resized to a square by antialiased bicubic interpolation.

    Parameters
    ----------
    source
        The images at their own sizes.
    size
        Side of the square, pixels.
    fit
        What becomes of an image that is not square: ``"error"`` refuses it, ``"crop"`` keeps its
        central square, ``"pad"`` puts it in the middle of a grey square.
    """

    def __init__(self, source: ImageSource, size: int, fit: Fit = "error") -> None:
        if fit not in FITS:
            raise unknown("fit", fit, FITS, "data.fit")
        if size < 1:
            raise InputError(f"data.image_size must be at least 1, not {size}")
        self.source = source
        self.size = int(size)
        self.fit: Fit = fit
        self._digest: str | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def names(self) -> Sequence[str]:
        """What the source calls each image."""
        return self.source.names

    def read(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.uint8]:
        """Read and resize images, several at a time in threads.

        Parameters
        ----------
        indices
            Which images, in which order.

        Returns
        -------
        ndarray
            (n, size, size, 3) uint8.

        Raises
        ------
        InputError
            If an image cannot be read, or is not square under ``fit = "error"``.
        """
        wanted = [int(index) for index in indices]
        out = np.empty((len(wanted), self.size, self.size, 3), dtype=np.uint8)

        def fill(position: int) -> None:
            out[position] = self._read(wanted[position])

        if len(wanted) < 8:
            for position in range(len(wanted)):
                fill(position)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1))
            list(self._pool.map(fill, range(len(wanted))))
        return out

    def digest(self) -> str:
        """Hash all that decides the pixels: the images, the size, the fit, the resizer."""
        if self._digest is None:
            import PIL

            resizer = f"{_METHOD} Pillow {PIL.__version__.split('.')[0]}"
            parts = (self.source.digest(), str(self.size), self.fit, resizer)
            self._digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()
        return self._digest

    def _read(self, index: int) -> NDArray[np.uint8]:
        image = self.source.read(index)
        height, width = image.shape[:2]
        if height != width:
            _refuse_oblong(self.names[index], height, width, self.fit)
            image = _cropped(image) if self.fit == "crop" else _padded(image)
        return resize(image, self.size)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


def check_sizes(source: ImageSource, fit: Fit, origin: str) -> None:
    """Refuse images that cannot be opened or do not fit, by their headers alone: nothing is decoded.

    Parameters
    ----------
    source
        Images, all of which are looked at.
    fit
        As of :class:`PreparedImages`.
    origin
        The recording that they belong to, for the message.

    Raises
    ------
    InputError
        Naming the first image that is none, is too large, or is not square under ``fit = "error"``.
    """

    def check(index: int) -> None:
        height, width = source.size(index)
        if height != width:
            _refuse_oblong(f"{origin}: {source.names[index]}", height, width, fit)

    in_threads(check, len(source))


def _refuse_oblong(name: str, height: int, width: int, fit: Fit) -> None:
    if fit == "error":
        raise InputError(
            f'{name} is {width} x {height} pixels, not square; set data.fit to "crop" or "pad"'
        )


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square image, antialiased bicubic; one that has the size already is unchanged."""
    if image.shape[:2] == (size, size):
        return image
    from PIL import Image

    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), PAD_VALUE, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
