"""Every registered readout against autograd and against its own prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

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
from tuner.readouts import READOUTS, TRAINED
from tuner.readouts.readout import Readout

K, B = 6, 7


@pytest.fixture(params=sorted(READOUTS))
def readout(request: pytest.FixtureRequest) -> Readout:
    return READOUTS[request.param]


@pytest.fixture(params=sorted(TRAINED))
def trained(request: pytest.FixtureRequest) -> Readout:
    return TRAINED[request.param]


Parts = dict[str, Tensor]
"""One column's parameters."""


def full_response(p: Parts, maps: Tensor) -> Tensor:
    w = p["weight"].view(SHAPE.channels, SHAPE.height, SHAPE.width)
    return torch.einsum("bchw,chw->b", maps, w) / math.sqrt(SHAPE.size)


def full_penalty(p: Parts, weights: Parts) -> tuple[Tensor, Tensor]:
    w = p["weight"].view(SHAPE.channels, SHAPE.height, SHAPE.width)
    groups = torch.stack([(channel.square().sum() + 1e-12).sqrt() for channel in w]).sum()
    rest = weights["smoothness"] * conv_laplacian(w).square().sum()
    rest = rest + weights["weight_decay"] * w.square().sum()
    return w.abs().sum(), rest + weights["group_sparsity"] * groups


def factorized_response(p: Parts, maps: Tensor) -> Tensor:
    m = p["mask"].abs() / p["mask"].norm()
    pooled = torch.einsum("bchw,hw->bc", maps, m.view(SHAPE.height, SHAPE.width))
    return pooled @ p["features"] / math.sqrt(SHAPE.channels)


def factorized_penalty(p: Parts, weights: Parts) -> tuple[Tensor, Tensor]:
    m = (p["mask"].abs() / p["mask"].norm()).view(1, SHAPE.height, SHAPE.width)
    rest = weights["smoothness"] * conv_laplacian(m).square().sum()
    rest = rest + weights["weight_decay"] * p["features"].square().sum()
    return p["features"].abs().sum(), rest


WRITTEN_OUT: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]] = {
    "full": (full_response, full_penalty),
    "factorized": (factorized_response, factorized_penalty),
}
"""Readout to its response without the bias, and its penalty, for one column, by autograd's own operations.

The penalty is two terms: the sum that sparsity weighs, and the rest, weighted already.
"""


def formulas(
    name: str,
) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]:
    if name not in WRITTEN_OUT:
        pytest.fail(
            f"readout {name!r} is registered and its formulas are not written out: add its response "
            "and its penalty to WRITTEN_OUT in tests/readouts/test_conformance.py"
        )
    return WRITTEN_OUT[name]


def column(values: dict[str, Tensor], k: int) -> Parts:
    return {name: value[k] for name, value in values.items()}


def written_out(name: str, p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Responses by the formula, with nothing but loops over units and autograd's own operations."""
    response, _ = formulas(name)
    maps = x.view(len(x), SHAPE.channels, SHAPE.height, SHAPE.width)
    rows = [response(column(p, k), maps) + p["bias"][k, 0] for k in range(len(p["bias"]))]
    return torch.stack(rows)


def conv_laplacian(maps: Tensor) -> Tensor:
    """Laplacian by torch's own convolution."""
    stencil = torch.tensor([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=maps.dtype)
    return functional.conv2d(maps[:, None], stencil[None, None], padding=1)[:, 0]


def written_out_penalty(
    name: str, p: dict[str, Tensor], weights: dict[str, Tensor], *, l1: bool
) -> Tensor:
    _, penalty = formulas(name)
    total = []
    for k in range(len(p["bias"])):
        sparse, rest = penalty(column(p, k), column(weights, k))
        total.append(rest + (weights["sparsity"][k] * sparse if l1 else 0))
    return torch.stack(total)


def test_a_readout_without_formulas_is_told_what_to_add() -> None:
    with pytest.raises(pytest.fail.Exception, match="'new'.*WRITTEN_OUT"):
        written_out("new", {}, torch.zeros(1, SHAPE.size))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_autograd(trained: Readout, dtype: torch.dtype, tolerance: float) -> None:
    kernel, p = random_parameters(trained, K, dtype)
    x = batch(B, dtype)
    weights = penalty_weights(trained, K, dtype)
    target = torch.randn(K, B, generator=torch.Generator().manual_seed(3), dtype=dtype)

    leaves = {name: value.clone().requires_grad_(True) for name, value in p.items()}
    y = written_out(trained.name, leaves, x)
    data = (y - target).square().mean(1)
    objective = data + written_out_penalty(trained.name, leaves, weights, l1=False)
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


def test_penalty_value_equals_formula(trained: Readout) -> None:
    kernel, p = random_parameters(trained, K, torch.float64)
    weights = penalty_weights(trained, K, torch.float64)
    expected = written_out_penalty(trained.name, p, weights, l1=True)
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


def test_parameters_of_centred_features_answer_to_features_as_they_come(readout: Readout) -> None:
    kernel, p = random_parameters(readout, 20, torch.float64)
    x, center = batch(B, torch.float64), 3 + batch(1, torch.float64, seed=5)[0]
    before = {name: value.clone() for name, value in p.items()}
    y, _ = kernel.forward(kernel.uncentered(p, center), x)
    torch.testing.assert_close(y, kernel.forward(p, x - center)[0])
    assert all(torch.equal(value, before[name]) for name, value in p.items())


def test_the_average_answers_with_the_mean_of_the_members(readout: Readout) -> None:
    x = batch(B, torch.float64)
    members = []
    for seed in range(3):
        kernel, p = random_parameters(readout, K, torch.float64, seed)
        members.append(kernel.export(p))
    averaged = kernel.averaged(members)
    expected = torch.stack([readout.predict(member, as_maps(p, x)) for member in members]).mean(0)
    torch.testing.assert_close(readout.predict(averaged, as_maps(p, x)), expected)
    torch.testing.assert_close(kernel.answer(averaged, x), expected.T)
    shares = torch.rand(3, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares /= shares.sum(0)
    by_share = kernel.averaged(members, shares)
    each = torch.stack([readout.predict(member, as_maps(p, x)) for member in members])
    expected = (shares[:, None] * each).sum(0)
    torch.testing.assert_close(readout.predict(by_share, as_maps(p, x)), expected)
    twice = kernel.averaged([averaged, averaged], torch.full((2, K), 0.5, dtype=torch.float64))
    torch.testing.assert_close(kernel.answer(twice, x), kernel.answer(averaged, x))
    shapes = readout.parameter_shapes(SHAPE, K, members=3)
    assert {name: tuple(value.shape) for name, value in averaged.items()} == shapes
    profile = readout.spatial_profile(averaged)
    assert profile.shape == (K, SHAPE.height, SHAPE.width)
    each = torch.stack([readout.spatial_profile(member) for member in members])
    assert bool((profile <= each.sum(0) + 1e-9).all())
    assert bool((profile >= 0).all())
    for k in (0, 4):
        alone = readout.predict({n: v[[k]] for n, v in averaged.items()}, as_maps(p, x))
        assert torch.equal(alone[:, 0], readout.predict(averaged, as_maps(p, x))[:, k])


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
