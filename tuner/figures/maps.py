"""Where a unit reads: readout masks and receptive fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike, NDArray

from tuner.figures import style
from tuner.figures.fields import DASHED, is_sliver, line
from tuner.figures.tiles import tiles


def masks(
    maps: ArrayLike,
    labels: Sequence[str],
    *,
    ellipses: ArrayLike | None = None,
    title: str = "Spatial masks",
    what: str = "where each unit reads",
    about: str = "",
    simulated: bool = False,
    columns: int | None = None,
    theme: style.ThemeName = "light",
    width: style.WidthName | None = None,
) -> Figure:
    """Draw where each unit's readout takes its features from.

    Parameters
    ----------
    maps
        ``(n_units, h, w)``, not negative: the factorized readout's mask, or the length of the
        full readout's weights at each position. Each is scaled to its own maximum.
    labels
        Names of the units, one per map.
    ellipses
        ``(n_units, 5)``: the Gaussians fitted to the maps, as for :func:`receptive_fields` but in
        cells, cell i having its centre at i.
    title
        Title of the page.
    what
        What the maps are of.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is.
    columns
        Maps side by side.
    theme
        ``"light"`` or ``"dark"``.
    width
        ``"single"`` or ``"double"`` column of a journal; None: as the number of units asks for.

    Returns
    -------
    matplotlib.figure.Figure
    """
    array = _stack(maps, labels)
    colours = style.theme_named(theme)
    height, across = array.shape[1:]
    fitted = _five(ellipses, len(labels))
    known = np.isfinite(fitted).all(axis=1)
    astray = known & np.array([_leaves(one, height, across) for one in fitted], dtype=bool)
    fitted[astray] = np.nan
    cells = f"{height} \N{MULTIPLICATION SIGN} {across} cells"
    parts = [f"{what} on {cells}, each map from 0 to its own maximum"]
    if (known & ~astray).any():
        parts.append("line: one sd of the Gaussian fitted to the map")
    if slivers := sum(map(is_sliver, fitted)):
        parts.append(f"dashed: {slivers} sliver{'s' * (slivers != 1)}, no field to be trusted")
    if count := int(astray.sum()):
        parts.append(f"no line in {count} of {len(fitted)}: most of it would lie outside")
    sub = style.subtitle(*parts, about, simulated=simulated)

    def draw(axes: Axes, index: int) -> None:
        top = float(np.nanmax(array[index], initial=0.0)) or 1.0
        axes.imshow(array[index], cmap=style.SEQUENTIAL, vmin=0, vmax=top, interpolation="nearest")
        axes.set(xlim=(-0.5, across - 0.5), ylim=(height - 0.5, -0.5))
        _ellipse(axes, fitted[index], "#ffffff", DASHED if is_sliver(fitted[index]) else "-")

    return tiles(
        [(label,) for label in labels],
        draw,
        shape=(height, across),
        title=title,
        sub=sub,
        theme=colours,
        columns=columns,
        width=width,
    )[0]


def receptive_fields(
    fields: ArrayLike,
    labels: Sequence[str],
    *,
    ellipses: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    title: str = "Receptive fields",
    about: str = "",
    simulated: bool = False,
    columns: int | None = None,
    theme: style.ThemeName = "light",
) -> Figure:
    """Draw each unit's receptive field in the image, with the Gaussian fitted to it.

    Parameters
    ----------
    fields
        ``(n_units, H, W)``. Where any value is negative, all are drawn around zero.
    labels
        Names of the units, one per field.
    ellipses
        ``(n_units, 5)``: x, y, sd along and across the axis (px), the axis' angle (degrees,
        counter-clockwise from rightwards as seen). Drawn at one standard deviation; NaN: none.
    truth
        Like `ellipses`: the simulation's, drawn dashed.
    title
        Title of the page.
    about
        Said under the title: what the numbers are over, see :mod:`tuner.figures.captions`.
    simulated
        Whether the recording is.
    columns
        Fields side by side.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    array = _stack(fields, labels)
    colours = style.theme_named(theme)
    signed = bool((array < 0).any())
    parts = ["each scaled to its own maximum"]
    if ellipses is not None:
        parts.append("line: one sd of the Gaussian fitted")
    if truth is not None:
        parts.append("dashed: simulated truth")
    fitted, true = _five(ellipses, len(labels)), _five(truth, len(labels))

    def draw(axes: Axes, index: int) -> None:
        top = float(np.nanmax(np.abs(array[index]), initial=0.0)) or 1.0
        axes.imshow(
            array[index],
            cmap=style.DIVERGING if signed else style.SEQUENTIAL,
            vmin=-top if signed else 0,
            vmax=top,
            interpolation="nearest",
        )
        dark = not signed
        _ellipse(axes, fitted[index], "#ffffff" if dark else "#000000", "-")
        _ellipse(axes, true[index], "#ff9d7d" if dark else "#c7402d", (0, (3, 2)))

    return tiles(
        [(label,) for label in labels],
        draw,
        shape=(array.shape[1], array.shape[2]),
        title=title,
        sub=style.subtitle(*parts, about, simulated=simulated),
        theme=colours,
        columns=columns,
    )[0]


def _stack(maps: ArrayLike, labels: Sequence[str]) -> NDArray[np.float64]:
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != 3 or len(array) != len(labels):
        raise ValueError(f"maps of shape {array.shape} for {len(labels)} labels")
    return array


def _leaves(ellipse: NDArray[np.float64], height: int, width: int) -> bool:
    """Whether most of an ellipse's line lies outside a map of these cells; what is left of it shows no field."""
    points = line(ellipse, 1.0)
    edge = np.array([[width], [height]]) - 0.5
    return bool(((points > -0.5) & (points < edge)).all(axis=0).mean() < 0.5)


def _five(ellipses: ArrayLike | None, count: int) -> NDArray[np.float64]:
    if ellipses is None:
        return np.full((count, 5), np.nan)
    array = np.array(ellipses, dtype=np.float64)
    if array.shape != (count, 5):
        raise ValueError(f"ellipses must be ({count}, 5), got {array.shape}")
    return array


def _ellipse(axes: Axes, five: NDArray[np.float64], colour: str, line: object) -> None:
    if not np.isfinite(five).all():
        return
    x, y, along, across, angle = five
    # image rows run downwards: what is counter-clockwise to the eye is clockwise in data
    axes.add_patch(
        Ellipse((x, y), 2 * along, 2 * across, angle=-angle, fill=False, ec=colour, lw=0.9, ls=line)
    )
