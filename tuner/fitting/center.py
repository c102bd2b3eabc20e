"""The mean of each feature, which training takes away so that weights need not spell it out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.fitting.trainer import Features, read, validation_chunk
from tuner.readouts.readout import FeatureShape


@torch.no_grad()
def feature_mean(features: Features, rows: NDArray[np.int64], shape: FeatureShape) -> Tensor:
    """Mean of each feature over some images, ``(F,)`` float32, where batches arrive.

    One pass in the order of ``rows``, in pieces whose size the shape alone decides, summed in float64: the same in
    every tier.

    Parameters
    ----------
    features
        Features of all training images.
    rows
        Which of them.
    shape
        Of the features.
    """
    chunk = validation_chunk(shape)
    pieces = [torch.from_numpy(rows[at : at + chunk]) for at in range(0, len(rows), chunk)]
    total: Tensor | None = None
    for x in read(features, pieces):
        part = x.sum(0, dtype=torch.float64)
        total = part if total is None else total.add_(part)
    assert total is not None, "no images"
    return (total / len(rows)).float()
