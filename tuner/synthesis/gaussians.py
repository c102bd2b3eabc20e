"""Gaussians on a constant, fitted to many maps at once by least squares.

All maps take their steps together (Levenberg and Marquardt's, with the exact derivatives), so that the fields of a study's
units take some milliseconds each. No map sees another: a unit's fit is the same in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 200
_ENOUGH = 1e-7
"""A fit has settled when a step lowers its squared error by a smaller share than this."""
_DAMPED = 1e8
"""Damping beyond which no step is left that lowers the error."""
_SIZES = np.array([0.5, 0.8, 1.2, 2.0, 3.2])
"""Standard deviations to begin with, in cells."""
_MOST_PLACES = 41


@dataclass(frozen=True)
class Gaussians:
    """What was fitted.

    Attributes
    ----------
    centre
        ``(n, 2)``: x, y.
    covariance
        ``(n, 2, 2)``.
    explained
        ``(n,)`` share of each map's variance, at most 1.
    """

    centre: Floats
    covariance: Floats
    explained: Floats


def fit(
    maps: Floats,
    rows: Floats,
    columns: Floats,
    centre: Floats,
    covariance: Floats,
    image_size: int,
) -> Gaussians:
    """Fit amplitude, place, shape and background to each map.

    Parameters
    ----------
    maps
        ``(n, h, w)``, each from 0 to 1.
    rows, columns
        ``(h,)`` and ``(w,)``: places of the cells.
    centre, covariance
        ``(n, 2)`` and ``(n, 2, 2)``: where to begin.
    image_size
        Fields are no wider than twice this, and lie within the image, or half a cell beyond the outermost cells; and no
        further than a cell and a half from where their descent begins.
    """
    flat = maps.reshape(len(maps), -1)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    low, high = _bounds(centre, x, y, spacing(rows, columns), image_size)
    # The covariance is root @ root.T; its diagonal in logarithms keeps it positive.
    root = np.linalg.cholesky(covariance)
    first = [
        *(centre[:, 0], centre[:, 1]),
        *(np.log(root[:, 0, 0]), root[:, 1, 0], np.log(root[:, 1, 1])),
        *(np.ones(len(flat)), np.median(flat, axis=1)),
    ]
    found, error = _descend(np.clip(np.stack(first, axis=1), low, high), flat, x, y, low, high)
    matrix = np.zeros((len(flat), 2, 2))
    matrix[:, 0, 0], matrix[:, 1, 1] = np.exp(found[:, 2]), np.exp(found[:, 4])
    matrix[:, 1, 0] = found[:, 3]
    variation = ((flat - flat.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return Gaussians(found[:, :2], matrix @ matrix.transpose(0, 2, 1), 1 - error / variation)


def begin(maps: Floats, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Find where to begin: the round Gaussian that explains a map best, among some hundred places and five sizes.

    Weights that were fitted to noise have peaks everywhere, and from a wrong one the descent does not come back.

    Returns
    -------
    centre, covariance
        ``(n, 2)`` and ``(n, 2, 2)``, as `fit` takes them.
    """
    places = [_places(columns), _places(rows)]
    centred = maps.reshape(len(maps), -1)
    centred = centred - centred.mean(axis=1, keepdims=True)
    best = np.full(len(maps), -np.inf)
    found = np.zeros((len(maps), 3))
    for size in spacing(rows, columns) * _SIZES:
        across, down = (
            np.exp(-((axis - at[:, None]) ** 2) / (2 * size**2))
            for axis, at in zip((columns, rows), places, strict=True)
        )
        shapes = (down[:, None, :, None] * across[None, :, None, :]).reshape(
            len(down) * len(across), -1
        )
        shapes -= shapes.mean(axis=1, keepdims=True)
        length = np.sqrt((shapes**2).sum(axis=1))
        shapes /= np.where(length > 1e-9, length, np.inf)[:, None]
        match = centred @ shapes.T
        which = match.argmax(axis=1)
        here = match[np.arange(len(maps)), which]
        better = here > best
        best[better] = here[better]
        y, x = np.divmod(which[better], len(across))
        found[better] = np.stack([places[0][x], places[1][y], np.full(len(x), size)], axis=1)
    return found[:, :2], found[:, 2, None, None] ** 2 * np.eye(2)


def _places(axis: Floats) -> Floats:
    """Places to try along an axis: twice as dense as the cells, and half a cell beyond them."""
    half = float(np.ptp(axis)) / max(len(axis) - 1, 1) / 2
    count = min(2 * len(axis) + 1, _MOST_PLACES)
    return np.linspace(axis.min() - half, axis.max() + half, count)


def spacing(rows: Floats, columns: Floats) -> float:
    """Mean distance between neighbouring cells, the wider of the two; 1 where there is one cell only."""
    return max(
        float(np.ptp(axis)) / (len(axis) - 1) if len(axis) > 1 else 1.0 for axis in (rows, columns)
    )


def _bounds(
    centre: Floats, x: Floats, y: Floats, step: float, image_size: int
) -> tuple[Floats, Floats]:
    """Lowest and highest parameters of each map, ``(n, 7)``."""
    widest = 2.0 * image_size
    narrow, wide = float(np.log(0.3 * step)), float(np.log(widest))
    first, last = -0.5, image_size - 0.5
    low = np.tile([0.0, 0.0, narrow, -widest, narrow, 0.0, -2.0], (len(centre), 1))
    high = np.tile([0.0, 0.0, wide, widest, wide, 10.0, 2.0], (len(centre), 1))
    for k, axis in enumerate((x, y)):
        near = np.clip(centre[:, k], axis.min() - step / 2, axis.max() + step / 2)
        low[:, k] = np.maximum(near - 1.5 * step, min(axis.min() - step / 2, first))
        high[:, k] = np.minimum(near + 1.5 * step, max(axis.max() + step / 2, last))
    return low, high


def _descend(
    p: Floats, maps: Floats, x: Floats, y: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Parameters ``(n, 7)`` at the end and the squared errors ``(n,)`` there."""
    p = p.copy()
    error = (_residual(p, maps, x, y) ** 2).sum(axis=1)
    damping = np.full(len(p), 1e-2)
    active = np.arange(len(p))
    for _ in range(_STEPS):
        if not len(active):
            break
        residual, jacobian = _linearised(p[active], maps[active], x, y)
        # A parameter at its bound that the error pushes further stays where it is.
        slope = np.matmul(jacobian, residual[:, :, None])[:, :, 0]
        lowest, highest = low[active], high[active]
        held = ((p[active] <= lowest) & (slope > 0)) | ((p[active] >= highest) & (slope < 0))
        jacobian[held] = 0.0
        slope[held] = 0.0
        curvature = np.matmul(jacobian, jacobian.transpose(0, 2, 1))
        diagonal = np.einsum("nii->ni", curvature)
        diagonal += damping[active, None] * diagonal + 1e-12
        step = np.linalg.solve(curvature, -slope[:, :, None])[:, :, 0]
        tried = np.clip(p[active] + step, lowest, highest)
        new = (_residual(tried, maps[active], x, y) ** 2).sum(axis=1)
        old = error[active]
        better = new < old
        p[active[better]], error[active[better]] = tried[better], new[better]
        damping[active] *= np.where(better, 0.2, 5.0)
        settled = (better & (old - new <= _ENOUGH * old)) | (damping[active] > _DAMPED)
        active = active[~settled]
    return p, error


def _parts(p: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    u = (x - p[:, :1]) / np.exp(p[:, 2:3])
    v = (y - p[:, 1:2] - p[:, 3:4] * u) / np.exp(p[:, 4:5])
    return u, v, np.exp(-0.5 * (u**2 + v**2))


def _residual(p: Floats, maps: Floats, x: Floats, y: Floats) -> Floats:
    shape = _parts(p, x, y)[2]
    return np.asarray(p[:, 5:6] * shape + p[:, 6:7] - maps)


def _linearised(p: Floats, maps: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Residuals ``(n, cells)`` and their derivatives ``(n, 7, cells)``."""
    u, v, shape = _parts(p, x, y)
    a, b = np.exp(p[:, 2:3]), np.exp(p[:, 4:5])
    scaled = p[:, 5:6] * shape
    tilt = u - v * p[:, 3:4] / b
    jacobian = np.stack(
        [
            scaled * tilt / a,
            scaled * v / b,
            scaled * u * tilt,
            scaled * u * v / b,
            scaled * v**2,
            shape,
            np.ones_like(shape),
        ],
        axis=1,
    )
    return scaled + p[:, 6:7] - maps, jacobian
