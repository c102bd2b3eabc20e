"""What every readout must do; a new one is added to the registry and passes these."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.readouts.readout import FeatureShape, Parameters, Readout

SHAPE = FeatureShape(channels=5, height=3, width=4)


def random_parameters(readout: Readout, columns: int, dtype: torch.dtype, seed: int = 0) -> Any:
    """A kernel in ``dtype`` and parameters away from their start, as after some steps."""
    kernel = readout.kernel(SHAPE, torch.device("cpu"), dtype=dtype)
    parameters = kernel.initial(list(range(columns)), seed)
    rng = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        value += 0.3 * torch.randn(value.shape, generator=rng, dtype=dtype)
    if "mask" in parameters:
        parameters["mask"] /= parameters["mask"].norm(dim=1, keepdim=True)
    return kernel, parameters


def batch(images: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """Features as they come: never negative, many of them 0."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(images, SHAPE.size, generator=rng, dtype=dtype).relu()


def penalty_weights(readout: Readout, columns: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """A different weight for each penalty and column."""
    rng = np.random.default_rng(2)
    return {
        name: torch.from_numpy(rng.uniform(0.01, 0.2, columns)).to(dtype)
        for name in readout.penalties
    }


def as_maps(parameters: Parameters, batch_features: Tensor) -> Tensor:
    """Feature vectors ``(B, F)`` as maps ``(B, C, h, w)``."""
    return batch_features.view(-1, SHAPE.channels, SHAPE.height, SHAPE.width)
