"""Every registered readout against autograd and against its own prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.readouts.conformance import (
    SHAPE,
    as_maps,
    batch,
    penalty_weights,
    random_parameters,
)
from tuner.readouts import READOUTS
from tuner.readouts.readout import Readout

K, B = 6, 7


@pytest.fixture(params=sorted(READOUTS))
def readout(request: pytest.FixtureRequest) -> Readout:
    return READOUTS[request.param]


def written_out(name: str, p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Responses by the formula, with nothing but loops over units and autograd's own operations."""
    maps = x.view(len(x), SHAPE.channels, SHAPE.height, SHAPE.width)
    rows = []
    for k in range(len(p["bias"])):
        if name == "full":
            w = p["weight"][k].view(SHAPE.channels, SHAPE.height, SHAPE.width)
            y = torch.einsum("bchw,chw->b", maps, w) / math.sqrt(SHAPE.size)
        else:
            m = p["mask"][k].abs() / p["mask"][k].norm()
            pooled = torch.einsum("bchw,hw->bc", maps, m.view(SHAPE.height, SHAPE.width))
            y = pooled @ p["features"][k] / math.sqrt(SHAPE.channels)
        rows.append(y + p["bias"][k, 0])
    return torch.stack(rows)


def conv_laplacian(maps: Tensor) -> Tensor:
    """Laplacian by torch's own convolution."""
    stencil = torch.tensor([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=maps.dtype)
    return functional.conv2d(maps[:, None], stencil[None, None], padding=1)[:, 0]


def written_out_penalty(
    name: str, p: dict[str, Tensor], weights: dict[str, Tensor], *, l1: bool
) -> Tensor:
    total = []
    for k in range(len(p["bias"])):
        if name == "full":
            w = p["weight"][k].view(SHAPE.channels, SHAPE.height, SHAPE.width)
            sparse = w.abs().sum()
            rest = weights["smoothness"][k] * conv_laplacian(w).square().sum()
            groups = sum((channel.square().sum() + 1e-12).sqrt() for channel in w)
            rest = rest + weights["group_sparsity"][k] * groups
        else:
            m = (p["mask"][k].abs() / p["mask"][k].norm()).view(1, SHAPE.height, SHAPE.width)
            sparse = p["features"][k].abs().sum()
            rest = weights["smoothness"][k] * conv_laplacian(m).square().sum()
            rest = rest + weights["weight_decay"][k] * p["features"][k].square().sum()
        total.append(rest + (weights["sparsity"][k] * sparse if l1 else 0))
    return torch.stack(total)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_autograd(readout: Readout, dtype: torch.dtype, tolerance: float) -> None:
    kernel, p = random_parameters(readout, K, dtype)
    x = batch(B, dtype)
    weights = penalty_weights(readout, K, dtype)
    target = torch.randn(K, B, generator=torch.Generator().manual_seed(3), dtype=dtype)

    leaves = {name: value.clone().requires_grad_(True) for name, value in p.items()}
    y = written_out(readout.name, leaves, x)
    data = (y - target).square().mean(1)
    objective = data + written_out_penalty(readout.name, leaves, weights, l1=False)
    objective.sum().backward()

    ours, saved = kernel.forward(p, x)
    residual = 2 * (ours - target) / B
    gradients = kernel.gradients(p, x, saved, residual)
    more = kernel.penalty_gradients(p, weights)
    assert relative(ours, y.detach()) < tolerance
    for name, leaf in leaves.items():
        total = gradients[name] + more[name]
        if name == "mask":  # by the normalised mask: through |m| / ||m||, as update() takes it
            unit = p["mask"].abs()
            total = p["mask"].sign() * (total - unit * (unit * total).sum(1, keepdim=True))
        assert leaf.grad is not None
        assert relative(total, leaf.grad) < tolerance, name


def test_penalty_value_equals_formula(readout: Readout) -> None:
    kernel, p = random_parameters(readout, K, torch.float64)
    weights = penalty_weights(readout, K, torch.float64)
    expected = written_out_penalty(readout.name, p, weights, l1=True)
    torch.testing.assert_close(kernel.penalty(p, weights), expected, rtol=1e-10, atol=0)
    assert bool((kernel.penalty(p, weights) >= 0).all())


def test_exported_prediction_equals_training_prediction(readout: Readout) -> None:
    kernel, p = random_parameters(readout, K, torch.float64)
    x = batch(B, torch.float64)
    y, _ = kernel.forward(p, x)
    exported = kernel.export(p)
    torch.testing.assert_close(readout.predict(exported, as_maps(p, x)), y.T)
    restored, _ = kernel.forward(kernel.restore(exported), x)
    torch.testing.assert_close(restored, y)
    shapes = readout.parameter_shapes(SHAPE, K)
    assert {name: tuple(value.shape) for name, value in exported.items()} == shapes
    profile = readout.spatial_profile(exported)
    assert profile.shape == (K, SHAPE.height, SHAPE.width)
    assert bool((profile >= 0).all())


def test_prediction_of_a_unit_is_the_same_bytes_in_any_company(readout: Readout) -> None:
    kernel, p = random_parameters(readout, K, torch.float32)
    x = as_maps(p, batch(B, torch.float32))
    exported = kernel.export(p)
    every = readout.predict(exported, x)
    for k in (0, 3, 5):
        alone = readout.predict({name: value[[k]] for name, value in exported.items()}, x)
        assert torch.equal(alone[:, 0], every[:, k])


def test_initial_parameters_depend_on_the_unit_alone(readout: Readout) -> None:
    kernel = readout.kernel(SHAPE, torch.device("cpu"))
    together = kernel.initial([4, 9, 4], seed=1)
    alone = kernel.initial([9], seed=1)
    for name, value in together.items():
        assert torch.equal(value[0], value[2])
        assert torch.equal(value[1], alone[name][0])
        assert np.isfinite(value.numpy()).all()
