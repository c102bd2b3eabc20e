"""Where in the image a unit reads, and how widely: from the readout, and from the true gradient.

Coordinates are pixels of the image as the backbone sees it, pixel i having its centre at i, rows
downwards. A cell of a layer does not look at its own place in the image: padding moves the middle
of what it sees (by 15.5 px at the end of InceptionV1), pooling moves it again, and trained weights
look past that middle. So where cells look, and how far, is measured (:mod:`tuner.backbones.sight`).

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

from tuner.backbones.sight import Sight
from tuner.encoder import Encoder
from tuner.figures.tables import FIELD_COLUMNS
from tuner.synthesis import gaussians
from tuner.synthesis.sight import sight

Floats = NDArray[np.float64]

_FIT_SIDE = 40
_FEWEST_CELLS = 9
"""Below this many cells a Gaussian is not fitted; moments of the map stand in for it."""


@dataclass(frozen=True)
class Fields:
    """Receptive fields of some units, each array ``(n_units,)``.

    Attributes
    ----------
    x, y
        Centre of each field, px.
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

    def covariances(self) -> Floats:
        """``(n_units, 2, 2)``, px squared, of x and y."""
        turn = np.deg2rad(self.angle)
        along = np.stack([np.cos(turn), -np.sin(turn)], axis=1)  # rows run downwards
        across = np.stack([np.sin(turn), np.cos(turn)], axis=1)
        return np.asarray(
            self.major[:, None, None] ** 2 * along[:, :, None] * along[:, None, :]
            + self.minor[:, None, None] ** 2 * across[:, :, None] * across[:, None, :]
        )

    def windows(self) -> Floats:
        """``(n_units, S, S)``: 1 within two standard deviations of a field, 0 beyond three, a soft edge between.

        The whole image for a unit that has no field.
        """
        axis = np.arange(self.image_size, dtype=np.float64)
        out = np.ones((len(self.x), self.image_size, self.image_size))
        for k, covariance in enumerate(self.covariances()):
            if not np.isfinite(covariance).all():
                continue
            dx, dy = np.meshgrid(axis - self.x[k], axis - self.y[k])
            points = np.stack([dx, dy], axis=-1)
            inverse = np.linalg.inv(covariance)
            distance = np.sqrt(np.einsum("...i,ij,...j", points, inverse, points))
            out[k] = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance - 2, 0, 1))
        return out

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
        return dict(zip(FIELD_COLUMNS, values, strict=True))


def from_readout(encoder: Encoder, seen: Sight | None = None) -> Fields:
    """Fit the places that the readout weighs: the factorized mask, or the length of full weights.

    A Gaussian is fitted to the squared weights (noise stands out less in the square) at the places where the cells look, and
    widened by the root of 2, which the square took away. The field of a unit is that Gaussian, blurred by how far the cells
    themselves see: never narrower than a cell's own field, however few cells a unit reads.

    Parameters
    ----------
    encoder
        The encoder.
    seen
        Where the layer's cells look; None: as :func:`tuner.synthesis.sight.sight` measures it.
    """
    seen = seen or sight(encoder)
    maps = encoder.readout.spatial_profile(encoder.readout_parameters).double().cpu().numpy()
    weights = fit_gaussians(maps**2, seen.rows, seen.columns, encoder.image_size)
    along_x, along_y = seen.size_at(weights.x, weights.y)
    own = np.zeros((len(maps), 2, 2))
    own[:, 0, 0], own[:, 1, 1] = along_x**2, along_y**2
    return _fields(weights, 2 * weights.covariances() + own)


def _fields(fitted: Fields, covariances: Floats) -> Fields:
    """The same places with other covariances ``(n, 2, 2)``."""
    major, minor, angle = np.full((3, len(fitted.x)), np.nan)
    for k in np.flatnonzero(np.isfinite(covariances).all(axis=(1, 2))):
        major[k], minor[k], angle[k] = _axes(covariances[k])
    return Fields(fitted.x, fitted.y, major, minor, angle, fitted.fit, fitted.image_size)


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
    return _fields(fields, 2 * fields.covariances())


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
    maps = np.asarray(maps, dtype=np.float64)
    table = np.full((len(maps), 6), np.nan)
    low, high = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    size = np.maximum(np.abs(maps).max(axis=(1, 2)), 1e-30)
    with np.errstate(invalid="ignore"):
        varied = np.flatnonzero(high - low > 1e-9 * size)  # false where a map is not finite
    if len(varied):
        table[varied] = _fitted(maps[varied], rows, columns, image_size)
    x, y, major, minor, angle, fit = table.T
    return Fields(x, y, major, minor, angle, fit, image_size)


def _fitted(maps: Floats, rows: Floats, columns: Floats, image_size: int) -> Floats:
    """One row per map: x, y, major, minor, angle, fit."""
    low, high = (end(axis=(1, 2), keepdims=True) for end in (maps.min, maps.max))
    scaled = (maps - low) / (high - low)
    if maps[0].size >= _FEWEST_CELLS:
        centre, covariance = gaussians.begin(scaled, rows, columns)
        found = gaussians.fit(scaled, rows, columns, centre, covariance, image_size)
        centre, covariance, explained = found.centre, found.covariance, found.explained
    else:
        centre, covariance = _moments(scaled, rows, columns)
        explained = np.full(len(maps), np.nan)
    return np.array(
        [
            (float(here[0]), float(here[1]), *_axes(spread), float(share))
            for here, spread, share in zip(centre, covariance, explained, strict=True)
        ]
    )


def _moments(scaled: Floats, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Centres and covariances of what stands out above half of the highest value."""
    weight = np.where(scaled > 0.5, scaled - 0.5, 0.0)
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    across, down = weight.sum(axis=1), weight.sum(axis=2)
    x, y = (across * columns).sum(axis=1), (down * rows).sum(axis=1)
    dx, dy = columns - x[:, None], rows - y[:, None]
    covariance = np.zeros((len(scaled), 2, 2))
    covariance[:, 0, 0] = (across * dx**2).sum(axis=1)
    covariance[:, 1, 1] = (down * dy**2).sum(axis=1)
    mixed = (weight * dy[:, :, None] * dx[:, None, :]).sum(axis=(1, 2))
    covariance[:, 0, 1] = covariance[:, 1, 0] = mixed
    covariance += np.eye(2) * gaussians.spacing(rows, columns) ** 2 / 12
    return np.stack([x, y], axis=1), covariance


def _axes(covariance: Floats) -> tuple[float, float, float]:
    """Standard deviations along the longer and the shorter axis, and the angle of the longer one."""
    values, vectors = np.linalg.eigh(covariance)
    minor, major = np.sqrt(np.maximum(values, 0))
    along = vectors[:, 1]
    angle = float(np.rad2deg(np.arctan2(-along[1], along[0])) % 180)  # rows run downwards
    return float(major), float(minor), angle


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
