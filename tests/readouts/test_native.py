"""The fused step in C against the same step by tensor operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tuner.readouts import READOUTS
from tuner.readouts.native import compiler
from tuner.readouts.readout import FeatureShape, StepCoefficients

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(3, 1, 1), (5, 4, 7), (2, 1, 6), (40, 8, 8), (3, 28, 28)])
@pytest.mark.parametrize("names", [(), ("sparsity",), ("smoothness", "group_sparsity"), "all"])
def test_equals_tensor_operations(
    shape: tuple[int, int, int], names: tuple[str, ...] | str
) -> None:
    bound = FeatureShape(*shape)
    readout = READOUTS["full"]
    wanted = readout.penalties if names == "all" else names
    k = 7
    rng = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=rng)

    weights = {name: draw(k).abs() * 0.1 for name in wanted}
    for values in weights.values():
        values[2] = 0.0  # a column that does without
    w, m, v = draw(k, bound.size), draw(k, bound.size) * 0.1, draw(k, bound.size).square() * 0.01
    gradient = draw(k, bound.size) * 0.1
    new = torch.full((k, 1), 0.1)
    new[4] = 0.0  # a column that is not updated at all
    rate = torch.where(new > 0, torch.full((k, 1), 0.02), torch.zeros(k, 1))
    c = StepCoefficients(rate, new, new * 0.01, new * 0 + 1.7, new * 0 + 3.0)
    results = []
    for compiled in (False, True):
        kernel = readout.kernel(bound, CPU, compiled=compiled)
        state = [
            {"weight": part.clone(), "bias": torch.zeros(k, 1)} for part in (w, gradient, m, v)
        ]
        kernel.update(*state, weights, c)
        results.append(state)
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine["weight"], theirs["weight"], rtol=2e-5, atol=1e-6)
    assert torch.equal(results[1][0]["weight"][4], w[4])


def test_a_diverged_weight_stays_visible() -> None:
    bound = FeatureShape(2, 2, 2)
    kernel = READOUTS["full"].kernel(bound, CPU, compiled=True)
    p = kernel.initial([0, 1], 0)
    gradient = torch.zeros(2, bound.size)
    gradient[0, 3] = np.nan
    one = torch.full((2, 1), 0.1)
    zeros = [{"weight": torch.zeros(2, bound.size), "bias": torch.zeros(2, 1)} for _ in range(2)]
    weights = {"sparsity": torch.full((2,), 0.1)}
    kernel.update(
        p,
        {"weight": gradient, "bias": torch.zeros(2, 1)},
        *zeros,
        weights,
        StepCoefficients(one, one, one, one, one),
    )
    assert torch.isnan(p["weight"][0, 3])
    assert torch.isfinite(p["weight"][1]).all()
