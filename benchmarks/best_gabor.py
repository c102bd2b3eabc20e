"""The Gabor filter that an encoder likes best: images from the family that the simulated units come from.

What an image loses by its prior is not lost here, for the true filter itself is in the family; what is still lost, the
encoder loses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.encoder import Encoder
from tuner.recordings.simulated.gabors import BLUE_YELLOW, RED_GREEN
from tuner.synthesis.evaluate import responses
from tuner.synthesis.photometry import Photometry, quantize
from tuner.synthesis.receptive_fields import from_readout

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

AXES = ((1.0, 1.0, 1.0), RED_GREEN, BLUE_YELLOW)
"""Colours in which a filter may be drawn."""
WAVELENGTHS = (0.08, 0.12, 0.17, 0.24)
"""Of the image's side, at the beginning."""
ORIENTATIONS, PHASES = 6, 4
ROUNDS, KEPT, CHILDREN = 3, 4, 12


@dataclass(frozen=True)
class _Filter:
    """A Gabor filter; pixels and radians."""

    x: float
    y: float
    sigma: float
    wavelength: float
    orientation: float
    phase: float
    colour: tuple[float, float, float]

    def pattern(self, size: int) -> Floats:
        """``(3, size, size)``."""
        row, column = np.mgrid[:size, :size].astype(np.float64)
        dx, dy = column - self.x, row - self.y
        across = dx * np.sin(self.orientation) + dy * np.cos(self.orientation)
        envelope = np.exp(-(dx**2 + dy**2) / (2 * self.sigma**2))
        wave = envelope * np.cos(2 * np.pi * across / self.wavelength + self.phase)
        return np.asarray(wave * np.array(self.colour)[:, None, None])

    def near(self, rng: np.random.Generator, apart: float) -> _Filter:
        """Another one, somewhat different."""
        dx, dy, size, cycle, turn, shift = rng.normal(size=6)
        return replace(
            self,
            x=self.x + 0.3 * apart * dx,
            y=self.y + 0.3 * apart * dy,
            sigma=self.sigma * np.exp(0.15 * size),
            wavelength=self.wavelength * np.exp(0.12 * cycle),
            orientation=self.orientation + 0.2 * turn,
            phase=self.phase + 0.5 * shift,
        )


def best_gabors(encoder: Encoder, photometry: Photometry) -> Pixels:
    """The best of a grid of filters for each unit, and of random ones near the best; mean and contrast held in its field.

    Returns
    -------
    ndarray
        ``(n_units, S, S, 3)``.
    """
    fields = from_readout(encoder)
    size = encoder.image_size
    made = []
    for unit, window in enumerate(fields.windows()):
        rng = np.random.default_rng((0x6AB0, unit))
        seen = torch.from_numpy(window).float()[None, None]
        filters = list(_grid(float(fields.x[unit]), float(fields.y[unit]), size))
        for _ in range(ROUNDS):
            patterns = torch.from_numpy(np.stack([f.pattern(size) for f in filters])).float()
            windows = seen.expand(len(filters), -1, -1, -1)
            pixels = quantize(photometry.inside(patterns, windows, exact=True))
            order = np.argsort(responses([encoder], pixels)[0][:, unit])[::-1][:KEPT]
            best = [filters[i] for i in order]
            apart = max(float(fields.sigma[unit]), 2.0)
            filters = best + [f.near(rng, apart) for f in best for _ in range(CHILDREN)]
        made.append(pixels[order[0]])
    return np.stack(made)


def _grid(x: float, y: float, size: int) -> Iterator[_Filter]:
    for share in WAVELENGTHS:
        for angle in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
            for phase in np.arange(PHASES) * 2 * np.pi / PHASES:
                for colour in AXES:
                    yield _Filter(x, y, 0.45 * share * size, share * size, angle, phase, colour)
