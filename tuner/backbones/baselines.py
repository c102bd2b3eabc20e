"""What a network has to beat: the pixels themselves, and a bank of Gabor filters. Nothing here is trained.

The bank is a regular one in the manner of the first layer of VOneNet [1]_: simple cells, half-rectified, in four phases,
and complex cells, the root of the summed squares of a quadrature pair [2]_, on luminance, every four pixels. Where VOneNet
draws its filters from distributions measured in macaque V1, for a field of view that is known, these cover eight
orientations at wavelengths of 4, 8, 16 and 32 px, one octave wide [3]_, so that they need no degrees and no seed.

References
----------
.. [1] Dapello et al. 2020, "Simulating a primary visual cortex at the front of CNNs improves robustness to image
   perturbations".
.. [2] Adelson & Bergen 1985, "Spatiotemporal energy models for the perception of motion".
.. [3] De Valois, Albrecht & Thorell 1982, "Spatial frequency selectivity of cells in macaque visual cortex": 1.4 octaves at
   the median. For one octave sigma is 0.56 wavelengths (Petkov & Kruizinga 1997).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import Source
from tuner.backbones.trace import Traced
from tuner.errors import InputError

WAVELENGTHS = (4.0, 8.0, 16.0, 32.0)  # px
ORIENTATIONS = 8
STRIDE = 4  # px
_SIGMA = 0.56  # of the wavelength
_REACH = 2.0  # sigmas
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)


class Pixels(nn.Module):
    """The image as it is. Its one layer, ``pixels``, cannot be below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (B, 3, H, W)."""
        out: Tensor = self.pixels(images)
        return out


class Energy(nn.Module):
    """The root of the summed squares of the two filters of a pair."""

    def forward(self, pairs: Tensor) -> Tensor:
        """Turn (B, 2 F, h, w), the even filters first, into (B, F, h, w)."""
        even, odd = pairs.chunk(2, dim=1)
        # nowhere 0, where a root has no gradient; rectified to say that it is not below 0
        return torch.relu((even * even + odd * odd + 1e-12).sqrt())


class GaborBank(nn.Module):
    """Simple and complex cells at four sizes and eight orientations.

    Its layers: ``simple``, (B, 128, h, w), the four phases of each filter, half-rectified; ``complex``,
    (B, 32, h, w), their energy; ``both``, one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.ModuleList(_filters(wavelength) for wavelength in WAVELENGTHS)
        self.simple = nn.ReLU()
        self.complex = Energy()
        self.both = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return both kinds of cells for images (B, 3, H, W) in [0, 1]."""
        red, green, blue = (w * images[:, i : i + 1] for i, w in enumerate(_LUMINANCE))
        # the mean grey is taken away, so that the border of the image is no edge
        luminance = red + green + blue - 0.5
        pairs = [band(luminance) for band in self.bank]
        even = torch.cat([pair[:, :ORIENTATIONS] for pair in pairs], dim=1)
        odd = torch.cat([pair[:, ORIENTATIONS:] for pair in pairs], dim=1)
        simple = self.simple(torch.cat([even, odd, -even, -odd], dim=1))
        energy = self.complex(torch.cat([even, odd], dim=1))
        out: Tensor = self.both(torch.relu(torch.cat([simple, energy], dim=1)))
        return out


def _filters(wavelength: float) -> nn.Conv2d:
    """Even and odd filters of one wavelength, without a mean and of unit length: (2 x 8, 1, side, side)."""
    sigma = _SIGMA * wavelength
    reach = math.ceil(_REACH * sigma)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(x * x + y * y) / (2 * sigma * sigma))
    waves = []
    for phase in (0.0, math.pi / 2):
        for number in range(ORIENTATIONS):
            angle = math.pi * number / ORIENTATIONS
            along = x * math.cos(angle) + y * math.sin(angle)
            wave = window * torch.cos(2 * math.pi * along / wavelength - phase)
            wave = wave - window * (wave.sum() / window.sum())
            waves.append(wave / wave.norm())
    # Cell 0 looks at pixel 1, near the middle of the first four.
    band = nn.Conv2d(1, len(waves), 2 * reach + 1, stride=STRIDE, padding=reach - 1, bias=False)
    band.weight = nn.Parameter(torch.stack(waves)[:, None].float())
    return band


class Baselines(Family):
    """Pixels and Gabor filters."""

    name = "baseline"
    storage_free = False

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        return ("pixels", "gabor")

    def build(self, name: str) -> nn.Module:
        """Build it."""
        return Pixels() if name == "pixels" else GaborBank()

    def source(self, name: str) -> Source | None:
        """Say that there are no weights."""
        return None

    def initialise(self, module: nn.Module, seed: int) -> None:
        """Refuse to draw weights.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(
            'backbones pixels and gabor have no weights to draw; remove weights = "random"'
        )

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the range [0, 1]."""
        return Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the pixels; or simple cells, complex cells and both."""
        return ("pixels",) if name == "pixels" else ("simple", "complex", "both")


FAMILY = Baselines()
