"""Contact sheets of images, such as the most exciting image of every unit of a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tuner.figures import style
from tuner.figures.tiles import tiles


def sheet(
    images: ArrayLike,
    labels: Sequence[str],
    *,
    notes: Sequence[str] | None = None,
    title: str = "Most exciting images",
    sub: str = "",
    simulated: bool = False,
    columns: int | None = None,
    theme: style.ThemeName = "light",
) -> Figure:
    """Draw images in a grid, each over its label.

    Parameters
    ----------
    images
        ``(n, H, W, 3)``: floats in [0, 1] or uint8. Shown as they are, none rescaled.
    labels
        Names of the images, one each.
    notes
        A second line per image, such as the unit's predicted response.
    title
        Title of the sheet, usually the study's name.
    sub
        Said under the title: prior, contrast, seed.
    simulated
        Whether the recording is.
    columns
        Images side by side; None: chosen from their number.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the images have another shape, floats leave [0, 1], or numbers do not match.
    """
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[3] != 3:
        raise ValueError(f"images must be (n, H, W, 3), got {array.shape}")
    if array.dtype != np.uint8:
        array = array.astype(np.float64)
        if array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("images must lie in [0, 1]")
    if len(labels) != len(array) or (notes is not None and len(notes) != len(array)):
        raise ValueError(f"{len(array)} images, {len(labels)} labels")

    def draw(axes: Axes, index: int) -> None:
        axes.imshow(array[index], interpolation="antialiased")

    lines = [(label,) for label in labels]
    if notes is not None:
        lines = [(label, note) for label, note in zip(labels, notes, strict=True)]  # type: ignore[misc]
    return tiles(
        lines,
        draw,
        shape=(array.shape[1], array.shape[2]),
        title=title,
        sub=style.subtitle(sub, simulated=simulated),
        theme=style.theme_named(theme),
        columns=columns,
    )[0]
