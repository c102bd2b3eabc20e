"""Simulated V1: Gabor filters, simple and energy, at known places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the filters' input (ITU-R BT.601)."""

RED_GREEN = (1.0, -1.0, 0.0)
BLUE_YELLOW = (-0.5, -0.5, 1.0)
"""Colour-opponent inputs: they are 0 wherever the image is grey."""

_CHUNK = 256


@dataclass(frozen=True)
class Gabors:
    """A bank of Gabor filters on luminance or colour contrast; each array has one entry per unit.

    A filter of unit energy is ``exp(-r^2 / (2 sigma^2)) cos(2 pi u / wavelength + phase)``, u being
    the coordinate across its stripes, made blind to uniform light. A simple unit responds with
    the half-rectified product of filter and image, an energy unit with the root of the summed
    squares of two such products a quarter cycle apart (Adelson & Bergen 1985). Either drive d
    saturates with contrast: the response is ``d / (d + half)``.

    Parameters
    ----------
    x, y
        Centre in pixels; pixel i has its centre at i.
    sigma
        Standard deviation of the Gaussian envelope, pixels.
    orientation
        Of the stripes, degrees in [0, 180): 0 is horizontal, 90 vertical, 45 rises to the right.
    wavelength
        Pixels per cycle.
    phase
        Degrees; at 0 the filter is bright in the middle.
    energy
        Whether the unit is an energy unit.
    half
        The drive at half the greatest response.
    colour
        Weights of red, green and blue in the filter's input, shape (n_units, 3). A filter on an
        opponent axis is double-opponent: it sees edges between colours of equal luminance.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    sigma: NDArray[np.float64]
    orientation: NDArray[np.float64]
    wavelength: NDArray[np.float64]
    phase: NDArray[np.float64]
    energy: NDArray[np.bool_]
    half: NDArray[np.float64]
    colour: NDArray[np.float64]

    @classmethod
    def draw(cls, count: int, images: NDArray[np.uint8], rng: np.random.Generator) -> Gabors:
        """Draw units at random; every third one is simple.

        Parameters
        ----------
        count
            Number of units.
        images
            (n, size, size, 3): wavelengths are 0.12 to 0.2 of their size, and ``half`` is half the
            root mean square of the drive over them.
        rng
            Where randomness comes from.
        """
        size = images.shape[1]
        wavelength = size * np.exp(rng.uniform(np.log(0.12), np.log(0.2), count))
        # Evenly spread over orientations, whatever the number of units.
        orientation = 180 * (rng.permutation(count) + rng.uniform(0, 1, count)) / count
        unscaled = cls(
            x=rng.uniform(0.3, 0.7, count) * size - 0.5,
            y=rng.uniform(0.3, 0.7, count) * size - 0.5,
            sigma=0.4 * wavelength,
            orientation=orientation,
            wavelength=wavelength,
            phase=rng.uniform(0, 360, count),
            energy=np.arange(count) % 3 != 0,
            half=np.ones(count),
            colour=np.tile(LUMINANCE, (count, 1)),
        )
        return unscaled._saturating(images)

    @classmethod
    def draw_varied(cls, count: int, images: NDArray[np.uint8], rng: np.random.Generator) -> Gabors:
        """Draw units as varied as cells are: anywhere in the image, of many shapes and colours.

        Centres are uniform over the image up to its border, wavelengths log-uniform from 0.08 to
        0.3 of its side, envelopes 0.3 to 0.6 wavelengths, orientations and phases uniform. Every
        second unit sees luminance, the others red-green or blue-yellow contrast by turns; every
        third one is simple.

        Parameters
        ----------
        count, images, rng
            As for ``draw``.
        """
        size = images.shape[1]
        wavelength = size * np.exp(rng.uniform(np.log(0.08), np.log(0.3), count))
        axes = np.array([LUMINANCE, RED_GREEN, LUMINANCE, BLUE_YELLOW])
        unscaled = cls(
            x=rng.uniform(0, 1, count) * size - 0.5,
            y=rng.uniform(0, 1, count) * size - 0.5,
            sigma=rng.uniform(0.3, 0.6, count) * wavelength,
            orientation=rng.uniform(0, 180, count),
            wavelength=wavelength,
            phase=rng.uniform(0, 360, count),
            energy=np.arange(count) % 3 != 0,
            half=np.ones(count),
            colour=axes[np.arange(count) % len(axes)],
        )
        return unscaled._saturating(images)

    def _saturating(self, images: NDArray[np.uint8]) -> Gabors:
        """Put the half-saturation at half the root mean square of the drive over the images."""
        drive = self.drive(images)
        return replace(self, half=0.5 * np.sqrt((drive**2).mean(0)))

    @classmethod
    def from_truth(cls, truth: Mapping[str, NDArray[Any]], units: NDArray[np.int64]) -> Gabors:
        """Restore a bank from the truth of a recording."""
        return cls(**{f.name: truth[f"units/{f.name}"][units] for f in fields(cls)})

    def truth(self) -> dict[str, NDArray[Any]]:
        """Tell what is known of each unit, as columns."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def filters(self, size: int) -> NDArray[np.float64]:
        """Draw the filters: (2, n_units, size, size), the second a quarter cycle behind."""
        row, column = np.mgrid[:size, :size].astype(np.float64)
        dx = column - self.x[:, None, None]
        dy = row - self.y[:, None, None]
        angle = np.deg2rad(self.orientation)[:, None, None]
        # Image rows grow downwards: the normal of a stripe that rises to the right.
        across = dx * np.sin(angle) + dy * np.cos(angle)
        cycle = 2 * np.pi * across / self.wavelength[:, None, None]
        envelope = np.exp(-(dx**2 + dy**2) / (2 * self.sigma[:, None, None] ** 2))
        pair = []
        for shift in (0.0, -np.pi / 2):
            wave = np.cos(cycle + np.deg2rad(self.phase)[:, None, None] + shift)
            # Subtract what the envelope lets through of uniform light.
            mean = (envelope * wave).sum((1, 2), keepdims=True)
            gabor = envelope * (wave - mean / envelope.sum((1, 2), keepdims=True))
            pair.append(gabor / np.sqrt((gabor**2).sum((1, 2), keepdims=True)))
        return np.stack(pair)

    def respond(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Respond to images.

        Parameters
        ----------
        images
            (n, size, size, 3), uint8 or floats in [0, 1].

        Returns
        -------
        ndarray
            (n, n_units), from 0 to 1.
        """
        drive = self.drive(images)
        return drive / (drive + self.half)

    def drive(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Filter images, as ``respond`` does before contrast saturates."""
        pair = self.filters(images.shape[1]).reshape(2, len(self.x), -1)
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        out = np.empty((len(images), len(self.x)))
        axes, axis_of = np.unique(self.colour, axis=0, return_inverse=True)
        for number, axis in enumerate(axes):
            units = np.flatnonzero(axis_of.ravel() == number)
            even, odd = pair[:, units]
            for start in range(0, len(images), _CHUNK):
                chunk = images[start : start + _CHUNK].astype(np.float64) @ axis / scale
                flat = chunk.reshape(len(chunk), -1)
                first, second = flat @ even.T, flat @ odd.T
                energy = np.sqrt(first**2 + second**2)
                simple = np.maximum(first, 0)
                out[start : start + _CHUNK, units] = np.where(self.energy[units], energy, simple)
        return out
