"""How an image that an encoder saw is shown at the rig, and what of it an encoder then sees.

Full field, the image stands in the middle of the screen at the rig's resolution. Centred, a soft
window around a unit's receptive field is cut out of it, on the background's grey, to be shown
where the receptive field is. Predictions are made for images *as shown*: scaled to the rig and
back, and windowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError, unknown
from tuner.recordings.images import resize

Pixels = NDArray[np.uint8]
Placement = Literal["full", "centred"]
PLACEMENTS: tuple[Placement, ...] = ("full", "centred")

Match = Literal["field", "image"]
MATCHES: tuple[Match, ...] = ("field", "image")

_EDGE = 0.25
"""Share of the window's radius over which it falls off."""
_ROUNDS = 20


@dataclass(frozen=True)
class Rig:
    """The screen, as far as images are concerned.

    Parameters
    ----------
    size
        Side of the full image on the screen, px; 0: as many as the encoder sees.
    pixels_per_degree
        Pixels of the screen per degree of visual angle; 0 where it is not known.
    placement
        ``"full"`` or ``"centred"``.
    window
        Radius of the window in standard deviations of the receptive field.
    match
        Where full images have equal mean and contrast: ``"field"``, within that window of the unit that they are meant for,
        or ``"image"``. Centred images have it within the window.
    """

    size: int = 0
    pixels_per_degree: float = 0.0
    placement: Placement = "full"
    window: float = 3.0
    match: Match = "field"

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise unknown("match", self.match, MATCHES)
        if self.placement not in PLACEMENTS:
            raise unknown("placement", self.placement, PLACEMENTS)
        if self.size < 0:
            raise InputError(f"size = {self.size}: must be positive pixels")
        if not 0 <= self.pixels_per_degree < float("inf"):
            raise InputError(f"pixels_per_degree = {self.pixels_per_degree:g}: must be positive")
        if not 0 < self.window < float("inf"):
            raise InputError(f"window = {self.window:g}: must be positive")

    def side(self, image_size: int) -> int:
        """Side of the full image on the screen, px."""
        return self.size or image_size


@dataclass(frozen=True)
class Field:
    """A receptive field in the image that the encoder sees, px."""

    x: float
    y: float
    sigma: float


@dataclass(frozen=True)
class Shown:
    """An image as it goes to the rig.

    Attributes
    ----------
    pixels
        ``(side, side, 3)``: the PNG.
    x, y
        Where its middle belongs, in pixels of the rig from the middle of the screen, rightwards
        and upwards.
    seen
        ``(S, S, 3)``: what the encoder sees of it.
    """

    pixels: Pixels
    x: float
    y: float
    seen: Pixels


@dataclass(frozen=True)
class Light:
    """Mean and RMS contrast of an image as it is shown, within its window, 0 to 255."""

    mean: float
    rms: float


def show(
    image: Pixels,
    rig: Rig,
    grey: int,
    field: Field | None = None,
    light: Light | None = None,
) -> Shown:
    """Place an image.

    Parameters
    ----------
    image
        ``(S, S, 3)`` uint8.
    rig
        How the image is shown.
    grey
        Background, 0 to 255.
    field
        The receptive field that a centred image is meant for.
    light
        What mean and contrast to bring it to, within the window or over the full field; None:
        as they are. Scaling an image to the screen changes its contrast, and so does cutting a
        piece out of it.
    """
    size = len(image)
    large = resize(image, rig.side(size))
    if rig.placement == "full" or field is None:
        if light is not None:
            large = _lit(large, _full_window(len(large), size, rig, field), light)
        return Shown(large, 0.0, 0.0, resize(large, size))
    patch, weight, left, top = _cut(large, size, rig, grey, field)
    if light is not None:
        patch = _lit(patch, weight, light)
    windowed = grey + (patch.astype(np.float64) - grey) * weight[..., None]
    pixels = np.rint(windowed).astype(np.uint8)
    middle = (len(large) - 1) / 2
    half = len(patch) // 2
    x, y = left + half - middle, middle - (top + half)
    return Shown(pixels, x, y, as_seen(pixels, x, y, len(large), size, grey))


def as_seen(pixels: Pixels, x: float, y: float, side: int, size: int, grey: int) -> Pixels:
    """Return what an encoder sees of an image on the screen.

    Parameters
    ----------
    pixels
        ``(width, width, 3)``: the image as it goes to the rig.
    x, y
        Where its middle is, px of the rig from the middle of the screen, right and up.
    side
        Side of the full image on the screen, px.
    size
        Side of the image that the encoder sees, px.
    grey
        Background, 0 to 255.
    """
    if len(pixels) == side and x == 0 and y == 0:
        return resize(pixels, size)
    middle, half = (side - 1) / 2, len(pixels) // 2
    canvas = np.full((side, side, 3), grey, dtype=np.uint8)
    _paste(canvas, pixels, round(x + middle) - half, round(middle - y) - half)
    return resize(canvas, size)


def light_of(image: Pixels, rig: Rig, grey: int, field: Field | None = None) -> Light:
    """Measure mean and contrast of an image as it is shown, within its window."""
    large = resize(image, rig.side(len(image)))
    if rig.placement == "full" or field is None:
        window = _full_window(len(large), len(image), rig, field)
        return _measured(large.astype(np.float64), window)
    patch, weight, _, _ = _cut(large, len(image), rig, grey, field)
    return _measured(patch.astype(np.float64), weight)


def _full_window(side: int, size: int, rig: Rig, field: Field | None) -> NDArray[np.float64]:
    """Where on a full image of the rig mean and contrast count."""
    if field is None or rig.match == "image":
        return np.ones((side, side))
    scale = side / size
    cx, cy = (field.x + 0.5) * scale - 0.5, (field.y + 0.5) * scale - 0.5
    rows, columns = np.mgrid[:side, :side]
    return soft_window(np.hypot(columns - cx, rows - cy), window_radius(rig, field) * scale)


def light_inside(image: Pixels, rig: Rig, field: Field) -> Light:
    """Mean and contrast of what an encoder sees of an image, within the window of a field."""
    rows, columns = np.mgrid[: len(image), : len(image)]
    distance = np.hypot(columns - field.x, rows - field.y)
    return _measured(image.astype(np.float64), soft_window(distance, window_radius(rig, field)))


def _cut(
    large: Pixels, size: int, rig: Rig, grey: int, field: Field
) -> tuple[Pixels, NDArray[np.float64], int, int]:
    """Cut the surroundings of a field out of an image at the rig's resolution.

    Returns
    -------
    patch, weight, left, top
        The piece, its window, and where its corner lies.
    """
    scale = len(large) / size
    # pixel i of the small image has its centre at (i + 0.5) * scale - 0.5 of the large one
    cx, cy = (field.x + 0.5) * scale - 0.5, (field.y + 0.5) * scale - 0.5
    radius = window_radius(rig, field) * scale
    half = int(np.ceil(radius)) + 1  # the centre may lie half a pixel off
    left, top = round(cx) - half, round(cy) - half
    width = 2 * half + 1
    rows, columns = np.mgrid[:width, :width]
    distance = np.hypot(columns + left - cx, rows + top - cy)
    return _crop(large, left, top, width, grey), soft_window(distance, radius), left, top


def _measured(values: NDArray[np.float64], weight: NDArray[np.float64]) -> Light:
    share = weight[..., None] / (3 * weight.sum())
    mean = float((values * share).sum())
    return Light(mean, float(np.sqrt((((values - mean) ** 2) * share).sum())))


def _lit(pixels: Pixels, weight: NDArray[np.float64], light: Light) -> Pixels:
    """Bring a piece to a mean and contrast within its window, clipping and all."""
    values = pixels.astype(np.float64)
    found = _measured(values, weight)
    if found.rms < 0.5:  # below half a level there is no pattern to speak of
        return pixels
    pattern = (values - found.mean) / found.rms
    gain, offset = light.rms, light.mean
    for _ in range(_ROUNDS):
        now = _measured(np.clip(offset + gain * pattern, 0, 255), weight)
        gain *= float(np.clip(light.rms / max(now.rms, 1e-9), 0.5, 2))
        offset += light.mean - now.mean
    return np.rint(np.clip(offset + gain * pattern, 0, 255)).astype(np.uint8)


def window_radius(rig: Rig, field: Field) -> float:
    """Radius of the window, px of the encoder's image; at least 2."""
    return max(2.0, rig.window * field.sigma)


def soft_window(distance: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """1 inside, 0 beyond the radius, half a cosine in between."""
    inner = radius * (1 - _EDGE)
    phase = np.clip((distance - inner) / max(radius - inner, 1e-9), 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * phase))


def moved(image: Pixels, dx: float, dy: float, grey: int) -> Pixels:
    """Shift an image by whole pixels, right and down; what comes in is grey."""
    return _crop(image, -round(dx), -round(dy), len(image), grey)


def _crop(image: Pixels, left: int, top: int, width: int, grey: int) -> Pixels:
    out = np.full((width, width, 3), grey, dtype=np.uint8)
    size = len(image)
    x0, x1, y0, y1 = max(left, 0), min(left + width, size), max(top, 0), min(top + width, size)
    if x0 < x1 and y0 < y1:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return out


def _paste(canvas: Pixels, patch: Pixels, left: int, top: int) -> None:
    size, width = len(canvas), len(patch)
    x0, x1, y0, y1 = max(left, 0), min(left + width, size), max(top, 0), min(top + width, size)
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]
