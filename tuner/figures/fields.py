"""Where a unit reads, drawn over an image: an ellipse at two standard deviations, or a frame where that holds the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Patch, Rectangle
from numpy.typing import NDArray

SLIVER = 4.0
"""A field so many times as long as wide is a Gaussian that went astray, not a field."""

DASHED = (0, (2, 2))

WHOLE = 0.75
"""Share of an image inside an ellipse from which the arc that is left of its line would look like a field in a corner."""

Outline = Literal["line", "frame", "none"]

_LINES = (("black", 1.0), ("white", 0.5))
_SIDE = 64  # points a side that tell what lies inside


def is_sliver(ellipse: NDArray[np.float64]) -> bool:
    """Whether a Gaussian (x, y, sd along, sd across, angle) is too thin to be a receptive field."""
    along, across = (float(value) for value in ellipse[2:4])
    return along > SLIVER * across


def outline(ellipse: NDArray[np.float64], size: int) -> Outline:
    """How a field is drawn over an image.

    Parameters
    ----------
    ellipse
        x, y, sd along and across the axis (px), the axis' angle (degrees, counter-clockwise from rightwards as seen).
    size
        Pixels of the image a side.

    Returns
    -------
    str
        ``"frame"`` where :data:`WHOLE` of the image or more lies within two standard deviations, ``"line"`` where any
        of the line lies in the image, else ``"none"``; so of a field that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> [outline(np.array([17.0, 17.0, sd, sd, 0.0]), 48) for sd in (4, 20, np.nan)]
    ['line', 'frame', 'none']
    """
    if not np.isfinite(ellipse).all():
        return "none"
    x, y, along, across, angle = ellipse
    turn = np.deg2rad(-angle)  # rows of an image run downwards
    places = np.linspace(0, size - 1, _SIDE)
    right, down = np.meshgrid(places - x, places - y)
    u = (right * np.cos(turn) + down * np.sin(turn)) / (2 * along)
    v = (down * np.cos(turn) - right * np.sin(turn)) / (2 * across)
    if (u**2 + v**2 <= 1).mean() >= WHOLE:
        return "frame"
    points = line(ellipse)
    return "line" if ((points > 0) & (points < size - 1)).all(axis=0).any() else "none"


def line(ellipse: NDArray[np.float64], sds: float = 2.0) -> NDArray[np.float64]:
    """Points of the line at so many standard deviations, ``(2, n)``: x and y."""
    x, y, along, across, angle = ellipse
    turn, round_ = np.deg2rad(-angle), np.linspace(0, 2 * np.pi, _SIDE)
    u, v = sds * along * np.cos(round_), sds * across * np.sin(round_)
    return np.stack(
        (x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn))
    )


def _is_cut(ellipse: NDArray[np.float64], size: int) -> bool:
    """Whether a line leaves the image, so that what is left of it does not say on which side the field lies."""
    points = line(ellipse)
    return bool(((points < -0.5) | (points > size - 0.5)).any())


def explained(ellipses: Iterable[NDArray[np.float64]], size: int) -> list[str]:
    """What is drawn of the fields of some units, in words; only what occurs."""
    ellipses = list(ellipses)
    kinds = [outline(one, size) for one in ellipses]
    lines = [one for one, kind in zip(ellipses, kinds, strict=True) if kind == "line"]
    said = []
    if lines:
        text = "ellipse: where the unit reads (2 sd)"
        if any(map(is_sliver, lines)):
            text += ", dashed: too thin to be trusted"
        if any(_is_cut(one, size) for one in lines):
            text += ", cross: its middle, where the line leaves the image"
        said.append(text)
    if "frame" in kinds:
        said.append("frame: the unit reads all of the image, or most of it (2 sd)")
    if none := kinds.count("none"):
        many = f"{none} of {len(kinds)} unit{'s' * (len(kinds) != 1)}"
        said.append(f"no line in {many}: no field is known")
    return said


def draw(axes: Axes, ellipse: NDArray[np.float64], size: int) -> None:
    """Draw a field over an image that these axes show; see :func:`outline`."""
    kind = outline(ellipse, size)
    if kind == "none":
        return
    x, y, along, across, angle = (float(value) for value in ellipse)
    for colour, width in _LINES:
        patch: Patch
        if kind == "frame":
            inset = 0.04 * size
            patch = Rectangle((inset - 0.5, inset - 0.5), size - 2 * inset, size - 2 * inset)
        else:
            patch = Ellipse((x, y), 4 * along, 4 * across, angle=-angle)
            if _is_cut(ellipse, size):
                axes.plot(x, y, "+", ms=4, mec=colour, mew=1.6 * width)
        patch.set(fill=False, edgecolor=colour, linewidth=width)
        patch.set_linestyle(DASHED if is_sliver(ellipse) and kind == "line" else "-")
        axes.add_patch(patch)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
