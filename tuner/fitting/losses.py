"""Losses of a response against its target, elementwise, with their derivatives.

Under both the loss of predicting every unit's mean is 1 on the images that responses were scaled by (in variance units for
``mse``, since targets are z-scored; for ``poisson`` since targets are divided by their mean). On other images it is not
under ``mse``: what a loss there is divided by is :func:`mean_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tuner.errors import unknown

LOSSES = ("mse", "poisson")
_EPSILON = 1e-9


def value(loss: str, y: Tensor, target: Tensor) -> Tensor:
    """Loss per element: ``(y - t)^2``, or ``p - t log(p + 1e-9)`` with ``p = elu(y) + 1`` (Cadena et al. 2019)."""
    if loss == "mse":
        return (y - target).square()
    rate = functional.elu(y) + 1
    return rate - target * torch.log(rate + _EPSILON)


def derivative(loss: str, y: Tensor, target: Tensor) -> Tensor:
    """Derivative of :func:`value` by ``y``."""
    if loss == "mse":
        return 2 * (y - target)
    rate = functional.elu(y) + 1
    slope = torch.where(y > 0, torch.ones_like(y), y.clamp(max=0).exp())
    return (1 - target / (rate + _EPSILON)) * slope


def mean_loss(loss: str, targets: NDArray[np.float32]) -> float:
    """Loss of predicting every unit's mean, averaged as a fit's is: over images, then over units.

    Parameters
    ----------
    loss
        ``mse`` or ``poisson``.
    targets
        ``(n_images, n_units)`` scaled by :func:`response_scaling`; NaN = missing.

    Returns
    -------
    float
        1 where there is nothing to divide by: no unit varies on these images, or none has a response.
    """
    there = torch.from_numpy(np.asarray(targets, dtype=np.float64))
    each = value(loss, torch.zeros_like(there), there).nanmean(dim=0)
    found = float(each.nanmean())
    return found if np.isfinite(found) and found > 1e-12 else 1.0


@dataclass(frozen=True)
class ResponseScaling:
    """How responses become targets: ``target = (response - mean) / scale``, per unit ``(n_units,)``."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def apply(self, responses: NDArray[np.float32]) -> NDArray[np.float32]:
        """Targets of ``(..., n_units)`` responses; NaN stays NaN."""
        return ((responses - self.mean) / self.scale).astype(np.float32)


def response_scaling(loss: str, responses: NDArray[np.float32]) -> ResponseScaling:
    """Scaling from the fit images' responses ``(n_fit, n_units)``, NaN = missing.

    z-scores for ``mse`` (ddof 0), division by the mean for ``poisson``. A unit that never varies (or, for ``poisson``,
    never responds) keeps scale 1: it has nothing to explain and is not divided by zero.
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    wide = responses.astype(np.float64)
    mean = np.nanmean(wide, axis=0)
    if loss == "mse":
        scale = np.nanstd(wide, axis=0)
        # A relative floor: the standard deviation of a constant column is rounding, not variance.
        scale = np.where(scale > 1e-6 * np.abs(mean) + 1e-30, scale, 1.0)
    else:
        scale = np.where(mean > 0, mean, 1.0)
        mean = np.zeros_like(mean)
    return ResponseScaling(mean.astype(np.float32), scale.astype(np.float32))
