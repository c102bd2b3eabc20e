"""Where images come from: arrays in memory, or files in a folder.

Images that lie in an HDF5 file are in ``tuner.recordings.hdf5.images``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.paths import resolve_images

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats that are decoded; others may start programs (EPS starts Ghostscript), or few have tried their decoders."""

MAX_PIXELS = 30_000_000
"""Of one image: far beyond any photograph that was shown, and a tenth of a gigabyte once decoded."""

_WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L")


def combined_digest(digests: Iterable[bytes]) -> str:
    """Hash the digests of images, in order, into one."""
    total = hashlib.blake2b(digest_size=20)
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def array_digest(image: NDArray[np.uint8]) -> bytes:
    """Hash one image, its shape included."""
    hasher = hashlib.blake2b(repr(image.shape).encode(), digest_size=20)
    hasher.update(np.ascontiguousarray(image).data)
    return hasher.digest()


def in_threads(function: Callable[[int], Any], count: int) -> list[Any]:
    """Call a function for 0 .. count - 1 in a few threads; results are in order.

    Threads and not processes: decoding and hashing release the interpreter lock, and a forked
    child would inherit the locks that say who works on what.
    """
    if count < 8:
        return [function(index) for index in range(count)]
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        return list(pool.map(function, range(count)))


class ArrayImages:
    """Images held in memory.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    name
        What the array is called; image 3 is then ``name[3]``.
    """

    def __init__(self, images: NDArray[np.uint8], name: str = "images") -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"{name} must be (n, height, width, 3) uint8, not {images.shape} {images.dtype}"
            )
        self.array = images
        self.names: Sequence[str] = [f"{name}[{index}]" for index in range(len(images))]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one image as (height, width, 3)."""
        return np.asarray(self.array[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image, pixels."""
        return int(self.array.shape[1]), int(self.array.shape[2])

    def digest(self) -> str:
        """Hash all images."""
        return combined_digest(array_digest(image) for image in self.array)


class FileImages:
    """Image files in a folder, decoded when they are read.

    Parameters
    ----------
    folder
        The images folder.
    names
        Paths inside it, in order.
    source
        The recording that names them, for error messages.
    """

    def __init__(self, folder: Path | None, names: Sequence[str], source: str) -> None:
        self.names: Sequence[str]
        self.names, self._files = resolve_images(folder, names, source)
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode one image to (height, width, 3)."""
        return decode(self._files[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image by its header, pixels."""
        return stored_size(self._files[index])

    def digest(self) -> str:
        """Hash the bytes of all files, in order."""
        if self._digest is None:
            self._digest = combined_digest(in_threads(self._file_digest, len(self)))
        return self._digest

    def _file_digest(self, index: int) -> bytes:
        try:
            with self._files[index].open("rb") as file:
                hasher = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
                return hasher.digest()
        except OSError as error:
            raise InputError(
                f"{self._files[index]}: cannot be read ({error.strerror}); restore the image"
            ) from error


class NamedImages:
    """Images of which only the names are known, as in a conversion without the images folder.

    Parameters
    ----------
    names
        Clean paths relative to an images folder.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names: Sequence[str] = list(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Refuse: there is nothing to read."""
        raise InputError(f"{self.names[index]}: no images folder is known; set data.images")

    def size(self, index: int) -> tuple[int, int]:
        """Refuse: there is nothing to read."""
        raise InputError(f"{self.names[index]}: no images folder is known; set data.images")

    def digest(self) -> str:
        """Hash the names."""
        return combined_digest(name.encode() for name in self.names)


def decode(path: Path) -> NDArray[np.uint8]:
    """Decode an image file to (height, width, 3) RGB; greyscale is three equal channels.

    Transparency is dropped. Orientation tags are not applied: the file is shown as stored.

    Raises
    ------
    InputError
        If the file cannot be decoded, is of a format that is not among :data:`FORMATS`, has more than
        :data:`MAX_PIXELS` pixels, or more than 8 bits a channel.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def stored_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as its header has them, pixels; nothing is decoded.

    Raises
    ------
    InputError
        As :func:`decode`, as far as the header tells.
    """
    with _opened(path) as image:
        return int(image.height), int(image.width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file whose header was read and is within limits; whatever Pillow raises names the file."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: has {image.width} x {image.height} pixels, and {MAX_PIXELS // 1_000_000} "
                    "million are allowed; make it smaller"
                )
            if image.mode in _WIDE_MODES:
                raise InputError(
                    f"{path}: has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits"
                )
            yield image
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not a readable image ({reason}); restore the file, or convert it to one of "
            f"{', '.join(FORMATS)}"
        ) from error
