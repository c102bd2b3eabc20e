"""Where in the image a unit reads, and how widely: from the readout, and from the true gradient.

Coordinates are pixels of the image as the backbone sees it, pixel i having its centre at i, rows
downwards. A cell of a layer does not see the pixels around its own place in the image: padding
moves the centre of what it sees (by 15.5 px at the end of InceptionV1), and pooling moves it again.
Both are corrected here.

A field is described by a Gaussian on a constant, fitted by least squares: readout weights are never
quite 0 anywhere, and the centre of gravity of a map with a background lies towards its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.backbones import LayerInfo
from tuner.encoder import Encoder

Floats = NDArray[np.float64]

COLUMNS = (
    "rf_x",
    "rf_y",
    "rf_sigma",
    "rf_sigma_major",
    "rf_sigma_minor",
    "rf_angle",
    "rf_fit",
    "rf_x_deg",
    "rf_y_deg",
    "rf_sigma_deg",
)
"""What :meth:`Fields.columns` gives."""

_FIT_SIDE = 40
_FEWEST_CELLS = 9
"""Below this many cells a Gaussian is not fitted; moments of the map stand in for it."""


@dataclass(frozen=True)
class Fields:
    """Receptive fields of some units, each array ``(n_units,)``.

    Attributes
    ----------
    x, y
        Centre, px.
    major, minor
        Standard deviations along the two axes of the Gaussian, px.
    angle
        Of the longer axis, degrees in [0, 180), counter-clockwise from rightwards as seen.
    fit
        Share of the map's variance that the Gaussian explains, at most 1; NaN where none was
        fitted. A unit that reads everywhere, or in two places, has a low one.
    image_size
        Side of the image, px.
    """

    x: Floats
    y: Floats
    major: Floats
    minor: Floats
    angle: Floats
    fit: Floats
    image_size: int

    @property
    def sigma(self) -> Floats:
        """Standard deviation of a round Gaussian of equal area, px."""
        return np.asarray(np.sqrt(self.major * self.minor))

    def of(self, units: Sequence[int]) -> Fields:
        """Return the fields of some units, by their position."""
        rows = np.asarray(units, dtype=np.int64)
        each = (self.x, self.y, self.major, self.minor, self.angle, self.fit)
        x, y, major, minor, angle, fit = (values[rows] for values in each)
        return Fields(x, y, major, minor, angle, fit, self.image_size)

    def ellipses(self) -> Floats:
        """``(n_units, 5)``: x, y, standard deviations along and across the axis, its angle."""
        return np.stack([self.x, self.y, self.major, self.minor, self.angle], axis=1)

    def columns(self, pixels_per_degree: float = 0.0) -> dict[str, Floats]:
        """Return the fields as columns of ``units.csv``.

        Parameters
        ----------
        pixels_per_degree
            Of the image as the backbone sees it; 0: not known, and degrees are NaN. Degrees count
            from the middle of the image, rightwards and upwards.
        """
        middle = (self.image_size - 1) / 2
        scale = pixels_per_degree if pixels_per_degree > 0 else np.nan
        values = (
            self.x,
            self.y,
            self.sigma,
            self.major,
            self.minor,
            self.angle,
            self.fit,
            (self.x - middle) / scale,
            (middle - self.y) / scale,
            self.sigma / scale,
        )
        return dict(zip(COLUMNS, values, strict=True))


def cell_centres(info: LayerInfo, kernel: int) -> tuple[Floats, Floats]:
    """Return where the cells of a pooled map look, px: y of its rows, x of its columns.

    Parameters
    ----------
    info
        The layer at the image's size.
    kernel
        Side of the pooling window in cells; windows at the far edges may hold fewer.
    """

    def centres(cells: int) -> Floats:
        starts = np.arange(0, cells, kernel)
        ends = np.minimum(starts + kernel, cells) - 1
        return np.asarray(info.offset + info.stride * (starts + ends) / 2, dtype=np.float64)

    return centres(info.height), centres(info.width)


def from_readout(encoder: Encoder) -> Fields:
    """Fit the places that the readout weighs: the factorized mask, or the length of full weights.

    The size is that of the weights over the layer's cells; how far a cell itself sees is not in it
    (see :func:`from_gradient`).
    """
    maps = encoder.readout.spatial_profile(encoder.readout_parameters)
    (info,) = encoder.backbone.describe([encoder.layer], encoder.image_size)
    rows, columns = cell_centres(info, encoder.normalization.kernel)
    return fit_gaussians(maps.double().cpu().numpy(), rows, columns, encoder.image_size)


def gradient_maps(
    encoder: Encoder, images: NDArray[np.uint8], units: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Return how strongly each pixel moves each unit.

    Parameters
    ----------
    encoder
        The encoder; the gradient is the true one, of its output before scaling.
    images
        ``(k, S, S, 3)`` uint8: where to take the gradient. At uniform grey a rectified unit may
        have none, so use pictures; a few suffice.
    units
        Positions in the encoder; None: all.

    Returns
    -------
    ndarray
        ``(n, S, S)``: root of the mean over images of the squared gradient summed over colours.
    """
    from tuner.encoder import as_batch

    chosen = list(range(encoder.n_units)) if units is None else list(units)
    size = encoder.image_size
    total = np.zeros((len(chosen), size, size))
    for image in images:  # one at a time: memory stays that of one image, whatever the layer
        batch = as_batch(image[None], encoder.device).requires_grad_(True)
        features = encoder.features(batch)
        for row, unit in enumerate(chosen):
            drive = encoder.own_drive(batch, [unit], features=features)
            (gradient,) = torch.autograd.grad(drive.sum(), batch, retain_graph=True)
            total[row] += gradient[0].double().square().sum(0).cpu().numpy()
    return np.sqrt(total / max(1, len(images))).astype(np.float32)


def from_gradient(
    encoder: Encoder, images: NDArray[np.uint8], units: Sequence[int] | None = None
) -> Fields:
    """Fit the squared gradient of the encoder: position and size of what really moves a unit.

    See :func:`gradient_maps` for the parameters. The Gaussian is fitted to the squared gradient,
    so for a Gabor filter its standard deviation is that of the envelope over the root of 2;
    it is multiplied by that root, and so is the envelope's.
    """
    maps = gradient_maps(encoder, images, units).astype(np.float64) ** 2
    maps, axis = _coarser(maps, np.arange(encoder.image_size, dtype=np.float64))
    fields = fit_gaussians(maps, axis, axis, encoder.image_size)
    root = np.sqrt(2.0)
    return Fields(
        fields.x,
        fields.y,
        fields.major * root,
        fields.minor * root,
        fields.angle,
        fields.fit,
        encoder.image_size,
    )


def _coarser(maps: Floats, axis: Floats) -> tuple[Floats, Floats]:
    """Average blocks of pixels: as good a fit in a fraction of the time."""
    block = -(-len(axis) // _FIT_SIDE)
    side = len(axis) // block
    kept = side * block
    blocks = maps[:, :kept, :kept].reshape(len(maps), side, block, side, block)
    return blocks.mean((2, 4)), axis[:kept].reshape(side, block).mean(1)


def fit_gaussians(maps: Floats, rows: Floats, columns: Floats, image_size: int) -> Fields:
    """Fit a Gaussian on a constant to each map.

    Parameters
    ----------
    maps
        ``(n, h, w)``, not negative.
    rows, columns
        ``(h,)`` and ``(w,)``: where the cells look, px.
    image_size
        Side of the image, px.

    Returns
    -------
    Fields
        NaN for a map without any variation.
    """
    fits = [_fit(each, rows, columns, image_size) for each in maps]
    table = np.array(fits, dtype=np.float64).reshape(len(maps), 6)
    x, y, major, minor, angle, fit = table.T
    return Fields(x, y, major, minor, angle, fit, image_size)


def _fit(each: Floats, rows: Floats, columns: Floats, image_size: int) -> tuple[float, ...]:
    spread = float(each.max() - each.min()) if np.isfinite(each).all() else 0.0
    if spread <= 1e-9 * max(1e-30, float(np.abs(each).max())):
        return (np.nan,) * 6
    y, x = np.meshgrid(rows, columns, indexing="ij")
    scaled = (each - each.min()) / spread
    start = _moments(scaled, x, y)
    if each.size < _FEWEST_CELLS:
        return _described(start[0], start[1], start[2], float("nan"))
    return _least_squares(scaled, x, y, start, image_size)


def _moments(scaled: Floats, x: Floats, y: Floats) -> tuple[float, float, Floats]:
    """Centre and covariance of what stands out above half of the highest value."""
    weight = np.where(scaled > 0.5, scaled - 0.5, 0.0)
    weight /= weight.sum()
    cx, cy = float((weight * x).sum()), float((weight * y).sum())
    step = max(_step(x[0]), _step(y[:, 0]))
    covariance = np.array(
        [
            [(weight * (x - cx) ** 2).sum(), (weight * (x - cx) * (y - cy)).sum()],
            [(weight * (x - cx) * (y - cy)).sum(), (weight * (y - cy) ** 2).sum()],
        ]
    )
    return cx, cy, covariance + np.eye(2) * step**2 / 12


def _step(places: Floats) -> float:
    return float(places[1] - places[0]) if len(places) > 1 else 1.0


def _least_squares(
    scaled: Floats,
    x: Floats,
    y: Floats,
    start: tuple[float, float, Floats],
    image_size: int,
) -> tuple[float, ...]:
    from scipy.optimize import least_squares

    step = max(_step(x[0]), _step(y[:, 0]))
    smallest, largest = np.log(0.2 * step), np.log(4.0 * image_size)
    cx, cy, covariance = start
    root = np.linalg.cholesky(covariance)

    # The covariance is root @ root.T; its diagonal in logarithms keeps it positive.
    def shape(p: Floats) -> Floats:
        a, b = np.exp(p[2]), np.exp(p[4])
        dx = (x - p[0]) / a
        dy = (y - p[1] - p[3] * dx) / b
        return np.asarray(np.exp(-0.5 * (dx**2 + dy**2)))

    def residual(p: Floats) -> Floats:
        return np.asarray((p[5] * shape(p) + p[6] - scaled).ravel())

    reach = 0.5 * image_size
    low = [x.min() - reach, y.min() - reach, smallest, -4.0 * image_size, smallest, 0.0, -2.0]
    high = [x.max() + reach, y.max() + reach, largest, 4.0 * image_size, largest, 10.0, 2.0]
    first = np.array(
        [cx, cy, np.log(root[0, 0]), root[1, 0], np.log(root[1, 1]), 1.0, float(np.median(scaled))]
    )
    margin = 1e-6
    first = np.clip(first, np.array(low) + margin, np.array(high) - margin)
    found = least_squares(residual, first, bounds=(low, high), x_scale="jac", max_nfev=200)
    p = found.x
    matrix = np.array([[np.exp(p[2]), 0.0], [p[3], np.exp(p[4])]])
    explained = 1 - float((found.fun**2).sum()) / float(((scaled - scaled.mean()) ** 2).sum())
    return _described(float(p[0]), float(p[1]), matrix @ matrix.T, explained)


def _described(x: float, y: float, covariance: Floats, fit: float) -> tuple[float, ...]:
    values, vectors = np.linalg.eigh(covariance)
    minor, major = np.sqrt(np.maximum(values, 0))
    along = vectors[:, 1]
    angle = float(np.rad2deg(np.arctan2(-along[1], along[0])) % 180)  # rows run downwards
    return x, y, float(major), float(minor), angle, fit


def table(
    encoder: Encoder,
    images: NDArray[np.uint8] | None = None,
    pixels_per_degree: float | None = None,
) -> dict[str, Floats]:
    """Return the columns that ``units.csv`` has of each unit's receptive field.

    Parameters
    ----------
    encoder
        The encoder.
    images
        ``(k, S, S, 3)`` uint8; where given, the field of the true gradient stands beside that of
        the readout, its columns starting ``gradient_``.
    pixels_per_degree
        None: as the encoder remembers it.
    """
    if pixels_per_degree is None:
        pixels_per_degree = float(encoder.meta.get("pixels_per_degree") or 0.0)
    columns: dict[str, Any] = dict(from_readout(encoder).columns(pixels_per_degree))
    if images is not None and len(images):
        gradient = from_gradient(encoder, images).columns(pixels_per_degree)
        columns |= {f"gradient_{name}": values for name, values in gradient.items()}
    return columns
