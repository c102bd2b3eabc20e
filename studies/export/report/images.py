"""Pictures inside the page: many on one sheet, small enough that 840 studies fit in one file."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuner.figures.style import SEQUENTIAL

SIDES = (224, 160, 128, 96, 72, 56, 44, 32, 24)
QUALITIES = (88, 75, 60)
PROBE = 44  # px; a side at which a file's size is found out fast
LEVELS = 32  # of a mask's scale: more cannot be told apart


@dataclass(frozen=True)
class Sheet:
    """Pictures of equal size on one image, row by row.

    Attributes
    ----------
    uri
        The image itself, as a ``data:`` URI.
    width, height
        Size of one picture, px.
    across
        Pictures in a row.
    count
        How many there are: fewer than given where not even the smallest size fits.
    """

    uri: str
    width: int
    height: int
    across: int
    count: int

    def json(self) -> dict[str, Any]:
        """Return what the page's script needs to cut the pictures out."""
        return {
            "src": self.uri,
            "w": self.width,
            "h": self.height,
            "across": self.across,
            "count": self.count,
        }


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _arrange(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Put ``(n, h, w, ...)`` on one sheet that is about square."""
    count, height, width = pictures.shape[:3]
    across = max(1, math.ceil(math.sqrt(count * height / max(width, 1))))
    down = math.ceil(count / across)
    sheet = np.zeros((down * height, across * width, *pictures.shape[3:]), np.uint8)
    for index in range(count):
        row, column = divmod(index, across)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = pictures[
            index
        ]
    return sheet, across


def _shrink(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    longest = max(pictures.shape[1:3])
    if longest <= side:
        return pictures
    size = tuple(max(1, round(length * side / longest)) for length in pictures.shape[2:0:-1])
    return np.stack(
        [
            np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS))
            for one in pictures
        ]
    )


def photo_sheet(pictures: NDArray[np.uint8], limit: int) -> Sheet | None:
    """Return pictures as one WebP of at most ``limit`` bytes as text, as large as they can be.

    Parameters
    ----------
    pictures
        ``(n, H, W, 3)``.
    limit
        Bytes of the URI.

    Returns
    -------
    Sheet or None
        With fewer pictures where all of them do not fit; None where not even one does.
    """
    kept = pictures
    while len(kept):
        widest = max(kept.shape[1:3])
        sides = [side for side in SIDES if side < widest] or [widest]
        if widest <= SIDES[0]:
            sides = [widest, *sides]
        reach = _guess(kept, limit)  # the largest side that can fit, as far as is known
        for side in dict.fromkeys(sides):
            if side > reach:
                continue
            small = _shrink(kept, side)
            sheet, across = _arrange(small)
            for quality in QUALITIES:
                content, size = _webp(sheet, quality)
                if size <= limit:
                    uri = _uri(content, "webp")
                    return Sheet(uri, small.shape[2], small.shape[1], across, len(kept))
                if size > 2 * limit:  # the lowest quality would halve it at best
                    break
            # a file's size grows a little slower than its pixels
            reach = side * math.sqrt(max(limit, 1) / size) * 1.35
        kept = kept[: len(kept) // 2]
    return None


def _webp(sheet: NDArray[np.uint8], quality: int) -> tuple[bytes, float]:
    """The file, and the length of its URI."""
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue(), buffer.tell() * 4 / 3 + 30


def _guess(pictures: NDArray[np.uint8], limit: int) -> float:
    """A side that is too large to fit: large sheets, which take long to write, need not be tried."""
    if max(pictures.shape[1:3]) <= 2 * PROBE:
        return math.inf
    _, size = _webp(_arrange(_shrink(pictures, PROBE))[0], QUALITIES[-1])
    # a smooth picture's file grows with little more than its side
    return float(PROBE * (max(limit, 1) / size) ** (1 / 1.2))


def map_sheet(maps: NDArray[np.float64], limit: int) -> Sheet | None:
    """Return maps, each scaled to its own maximum, as one PNG in the colours of the figures.

    Parameters
    ----------
    maps
        ``(n, h, w)``, not negative.
    limit
        Bytes of the URI; maps are averaged over neighbouring cells until they fit.

    Returns
    -------
    Sheet or None
        None where not even one cell per map fits.
    """
    maps = np.nan_to_num(np.asarray(maps, dtype=np.float64))
    colours = (mpl.colormaps[SEQUENTIAL](np.linspace(0, 1, LEVELS))[:, :3] * 255).round()
    while True:
        top = maps.max(axis=(1, 2), keepdims=True)
        level = np.clip(maps / np.where(top > 0, top, 1.0), 0, 1) * (LEVELS - 1)
        sheet, across = _arrange(level.round().astype(np.uint8))
        picture = Image.fromarray(sheet)
        picture.putpalette(colours.astype(np.uint8).tobytes())
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=9)
        if buffer.tell() * 4 / 3 + 30 <= limit:
            uri = _uri(buffer.getvalue(), "png")
            return Sheet(uri, maps.shape[2], maps.shape[1], across, len(maps))
        if maps.shape[1:] == (1, 1):
            return None
        maps = _halve(maps)


def _halve(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over 2 x 2 cells; a cell left over at an edge stands for itself."""
    height, width = maps.shape[1:]
    padded = np.pad(maps, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    count, height, width = padded.shape
    blocks = padded.reshape(count, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(2, 4)))
