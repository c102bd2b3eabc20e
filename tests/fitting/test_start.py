"""Where training starts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tuner import readouts
from tuner.fitting.columns import Columns
from tuner.fitting.start import Start
from tuner.readouts.readout import FeatureShape

SHAPE = FeatureShape(3, 4, 5)
UNITS = np.array([7, 2])
RATE = {"learning_rate": 0.1, "drop": 50.0}


def of_rank_one() -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of two folds and two units that a mask and feature weights can have."""
    rng = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 2, 1, 4, 5, generator=rng)
    features = torch.randn(2, 2, 3, 1, 1, generator=rng)
    return mask * features, torch.randn(2, 2, generator=rng)


@pytest.mark.parametrize("name", readouts.TRAINED)
@pytest.mark.parametrize("centered", [True, False])
def test_columns_answer_as_the_weights_do(name: str, centered: bool) -> None:
    weight, bias = of_rank_one()
    x = torch.randn(6, SHAPE.size, generator=torch.Generator().manual_seed(1))
    mean = x.mean(0)
    start = Start.of(readouts.get(name), weight, bias, mean, UNITS)
    assert start is not None
    columns = Columns.of_trials([RATE, RATE], [UNITS[::-1], UNITS], folds=2)
    kernel = readouts.get(name).kernel(SHAPE, torch.device("cpu"))
    parameters = kernel.initial([int(unit) for unit in columns.unit], 0)
    start.fill(parameters, columns.unit, columns.fold, kernel, mean if centered else None)
    found = kernel.responses(parameters, x - mean if centered else x)
    for row, (unit, fold) in enumerate(zip(columns.unit, columns.fold, strict=True)):
        at = int(fold), int(np.flatnonzero(unit == UNITS)[0])
        expected = x @ weight[at].flatten() / math.sqrt(SHAPE.size) + bias[at]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_the_mask_is_never_negative_and_the_mean_response_stays() -> None:
    rng = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(4, 3, 4, 5, generator=rng), torch.randn(4, generator=rng)
    found = readouts.get("factorized").start(weight, bias)
    assert found is not None
    assert bool((found["mask"] >= 0).all())
    torch.testing.assert_close(found["mask"].flatten(1).norm(dim=1), torch.ones(4))
    torch.testing.assert_close(found["bias"], bias)
