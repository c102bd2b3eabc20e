"""Encoders to test with: the embedded backbone at a small image size, readouts drawn at random."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner import readouts
from tuner.backbones import Backbone, load_backbone
from tuner.encoder import Encoder
from tuner.features.normalize import Moments, pooling
from tuner.readouts import FeatureShape

SIZE = 32


@lru_cache(maxsize=1)
def backbone() -> Backbone:
    return load_backbone("efficientnet_lite0")


def pictures(count: int, size: int = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random colour pictures."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).standard_normal((count, size, size, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return np.asarray(np.clip(128 + 300 * smooth, 0, 255), dtype=np.uint8)


def random_encoder(
    readout: str = "full",
    *,
    n_units: int = 5,
    layer: str = "_blocks.1",
    size: int = SIZE,
    seed: int = 0,
    loss: str = "mse",
    max_grid: int = 28,
    **options: Any,
) -> Encoder:
    """Random readout parameters; each unit reads around a place of its own."""
    network = backbone()
    (info,) = network.describe([layer], size)
    kernel, grid = pooling(info.height, info.width, max_grid)
    with torch.no_grad():
        images = torch.from_numpy(pictures(8, size)).permute(0, 3, 1, 2).float() / 255
        raw = network.features(images, [layer])[layer]
    normalization = Moments.of(raw).normalization(
        rectified=info.rectified, kernel=kernel, grid=grid
    )
    rng = torch.Generator().manual_seed(seed)
    shape = FeatureShape(info.channels, *grid)
    shapes = readouts.get(readout).parameter_shapes(shape, n_units)
    parameters = {k: torch.randn(s, generator=rng) for k, s in shapes.items()}
    if "mask" in parameters:
        mask = parameters["mask"].abs()
        parameters["mask"] = mask / mask.flatten(1).norm(dim=1)[:, None, None]
    names = np.array([f"el {k}/{'abc'[k % 3]}" for k in range(n_units)])
    return Encoder(
        backbone=network,
        layer=layer,
        normalization=normalization,
        readout=readout,
        parameters=parameters,
        response_mean=torch.linspace(1.0, 2.0, n_units),
        response_scale=torch.linspace(0.5, 3.0, n_units),
        loss=loss,
        image_size=size,
        **{
            "units": {"name": names, "reliability": np.linspace(0, 1, n_units)},
            "unit_indices": np.arange(n_units) + 7,
            **options,
        },
    )
