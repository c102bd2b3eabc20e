"""Mean and contrast of images, without which responses to them cannot be compared.

Intensities lie in [0, 1]. The mean is taken over all pixels and colours of an image, the contrast
is the root mean square of its deviation from that mean (its standard deviation), and a norm budget
bounds the Euclidean length of the deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.errors import InputError

_FLAT = 1e-8
"""Contrast below which an image counts as flat: its pattern is not blown up any further."""
_ROUNDS = 3
_FINAL_ROUNDS = 30


@dataclass(frozen=True)
class Photometry:
    """What every image is brought to.

    Parameters
    ----------
    mean
        Mean intensity, in (0, 1); also the grey that images are shown on.
    contrast
        RMS contrast that every image is brought to, or None.
    norm
        Largest Euclidean norm of the deviation from the mean, or None. Not together with
        ``contrast``.

    Raises
    ------
    InputError
        If the values are out of range, or no image of that mean has that contrast.
    """

    mean: float = 0.5
    contrast: float | None = 0.1
    norm: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.mean < 1:
            raise InputError(f"mean = {self.mean:g}: must lie between 0 and 1, without the two")
        if self.contrast is not None:
            largest = float(np.sqrt(self.mean * (1 - self.mean)))
            if not 0 < self.contrast < largest:
                raise InputError(
                    f"contrast = {self.contrast:g}: images of mean {self.mean:g} have an RMS "
                    f"contrast between 0 and {largest:.3g}"
                )
        if self.norm is not None:
            if self.contrast is not None:
                raise InputError("contrast and norm are two ways to say the same: give one")
            if not 0 < self.norm < np.inf:
                raise InputError(f"norm = {self.norm:g}: must be positive and finite")

    def __str__(self) -> str:
        if self.contrast is not None:
            return f"mean {self.mean:g}, RMS contrast {self.contrast:g}"
        if self.norm is not None:
            return f"mean {self.mean:g}, norm at most {self.norm:g}"
        return "mean and contrast free"

    def apply(self, images: Tensor, *, exact: bool = False) -> Tensor:
        """Bring images ``(B, 3, H, W)`` to this mean and contrast, within [0, 1]; differentiable.

        Clipping to [0, 1] takes contrast away again, so gain and offset are corrected in a few
        rounds, in which they count as constants. Each image is treated for itself.

        Parameters
        ----------
        images
            Images of any finite values.
        exact
            Go on until mean and contrast are met as closely as they can be.
        """
        if self.contrast is None and self.norm is None:
            return images.clamp(0, 1)
        flat = images.flatten(1)
        deviation = flat - flat.mean(1, keepdim=True)
        rms = (deviation.square().mean(1, keepdim=True) + _FLAT**2).sqrt()
        if self.contrast is None:
            assert self.norm is not None
            budget = self.norm / flat.shape[1] ** 0.5
            shown: Tensor = self.mean + deviation * (budget / rms).clamp_max(1)
            return shown.clamp(0, 1).view_as(images)
        pattern = deviation / rms
        gain, offset = self._gain(pattern.detach(), _FINAL_ROUNDS if exact else _ROUNDS)
        return (offset + gain * pattern).clamp(0, 1).view_as(images)

    def _gain(self, pattern: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
        """Gain and offset ``(B, 1)`` that give the clipped pattern the wanted mean and contrast."""
        assert self.contrast is not None
        gain = torch.full_like(pattern[:, :1], self.contrast)
        offset = torch.full_like(pattern[:, :1], self.mean)
        for _ in range(rounds):
            shown = (offset + gain * pattern).clamp(0, 1)
            mean = shown.mean(1, keepdim=True)
            rms = (shown - mean).square().mean(1, keepdim=True).sqrt()
            # a flat pattern has no contrast at any gain; the bound keeps its gain finite
            gain = gain * (self.contrast / rms.clamp_min(_FLAT)).clamp(0.5, 2)
            offset = offset + self.mean - mean
        return gain, offset

    def inside(self, images: Tensor, window: Tensor, *, exact: bool = False) -> Tensor:
        """Bring what lies in a window to this mean and contrast, and show no more than that, on grey; differentiable.

        Contrast held over a whole image lets the one that gathers its own in a unit's field win, whatever its pattern. Held
        inside the field, only the pattern counts.

        Parameters
        ----------
        images
            ``(B, 3, H, W)``, any finite values.
        window
            ``(B, 1, H, W)``, from 0 to 1: how much is seen of each pixel, and how much it counts.
        exact
            As for `apply`.
        """
        share = window / (3 * window.sum((2, 3), keepdim=True)).clamp_min(_FLAT)

        def measured(values: Tensor) -> tuple[Tensor, Tensor]:
            mean = (values * share).sum((1, 2, 3), keepdim=True)
            variance = ((values - mean).square() * share).sum((1, 2, 3), keepdim=True)
            return mean, (variance + _FLAT**2).sqrt()

        mean, rms = measured(images)
        if self.contrast is None:
            gain = torch.ones_like(rms)
            if self.norm is not None:  # of the part that is seen
                length = ((images - mean) * window).flatten(1).norm(dim=1).clamp_min(_FLAT)
                gain = (self.norm / length).clamp_max(1).view(-1, 1, 1, 1)
            shown: Tensor = (self.mean + gain * (images - mean)).clamp(0, 1)
            return self.mean + window * (shown - self.mean)
        pattern = (images - mean) / rms
        gain = torch.full_like(rms, self.contrast)
        offset = torch.full_like(rms, self.mean)
        with torch.no_grad():
            for _ in range(_FINAL_ROUNDS if exact else _ROUNDS):
                now, found = measured((offset + gain * pattern).clamp(0, 1))
                gain = gain * (self.contrast / found.clamp_min(_FLAT)).clamp(0.5, 2)
                offset = offset + self.mean - now
        shown = (offset + gain * pattern).clamp(0, 1)
        return self.mean + window * (shown - self.mean)

    def match(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring 8-bit images ``(B, H, W, 3)`` to this mean and contrast."""
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        return quantize(self.apply(tensor, exact=True))


def inside_statistics(
    images: NDArray[np.uint8], windows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and RMS contrast of 8-bit images ``(B, H, W, 3)`` within windows ``(B, H, W)``, each ``(B,)``."""
    values = images / 255.0
    share = (windows / (3 * windows.sum((1, 2), keepdims=True)))[..., None]
    mean = (values * share).sum((1, 2, 3))
    variance = ((values - mean[:, None, None, None]) ** 2 * share).sum((1, 2, 3))
    return mean, np.sqrt(variance)


def quantize(images: Tensor) -> NDArray[np.uint8]:
    """``(B, 3, H, W)`` in [0, 1] to ``(B, H, W, 3)`` 8-bit, as a PNG holds them."""
    levels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and RMS contrast of 8-bit images ``(B, H, W, 3)``, each ``(B,)``."""
    flat = images.reshape(len(images), -1) / 255.0
    return flat.mean(1), flat.std(1)
