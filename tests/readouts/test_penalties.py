"""The penalties against torch's own convolution and against what they must prefer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tuner.readouts import READOUTS, penalties
from tuner.readouts.factorized import contraction_order
from tuner.readouts.readout import FeatureShape

sides = st.integers(1, 7)
seeds = st.integers(0, 10_000)


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(w: Tensor) -> Tensor:
    stencil = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=w.dtype)
    return functional.conv2d(w.reshape(-1, 1, *w.shape[-2:]), stencil[None, None], padding=1)


@settings(max_examples=60, deadline=None)
@given(sides, sides, seeds)
def test_laplacian_equals_convolution_on_any_grid(height: int, width: int, seed: int) -> None:
    w = maps(seed, 2, 3, height, width)
    expected = conv(w).view_as(w)
    torch.testing.assert_close(penalties.laplacian(w), expected)
    matrix = penalties.laplacian_matrix(height, width, torch.float64)
    torch.testing.assert_close((w.flatten(2) @ matrix.T).view_as(w), expected)
    square = penalties.squared_laplacian_matrix(height, width, torch.float64)
    torch.testing.assert_close(square, matrix.T @ matrix)


@settings(max_examples=60, deadline=None)
@given(sides, sides, seeds, st.floats(-3, 3))
def test_no_penalty_is_negative(height: int, width: int, seed: int, exponent: float) -> None:
    w = maps(seed, 2, 3, height, width) * 10**exponent
    for penalty in (
        penalties.smoothness,
        penalties.sparsity,
        penalties.group_sparsity,
        penalties.weight_decay,
    ):
        value = penalty(w)
        assert value.shape == (2,)
        assert bool((value >= 0).all())


def test_constant_interior_is_smooth() -> None:
    out = penalties.laplacian(torch.ones(1, 5, 6))
    assert torch.equal(out[0, 1:-1, 1:-1], torch.zeros(3, 4))


def test_checkerboard_costs_more_than_a_bump_of_equal_norm() -> None:
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    board = (-1.0) ** (x + y)
    bump = torch.exp(-((x - 13.5) ** 2 + (y - 13.5) ** 2) / (2 * 4.0**2))
    board, bump = board / board.norm(), bump / bump.norm()
    rough, smooth = penalties.smoothness(torch.stack([board, bump]))
    assert rough > 60
    assert smooth < 0.1


def test_group_sparsity_counts_channels_not_cells() -> None:
    one_channel = torch.zeros(1, 4, 3, 3)
    one_channel[0, 0] = 1 / 3
    spread = torch.full((1, 4, 3, 3), 1 / 6)
    torch.testing.assert_close(
        penalties.group_sparsity(one_channel), torch.tensor([1.0]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        penalties.group_sparsity(spread), torch.tensor([2.0]), atol=1e-5, rtol=0
    )


def test_factorized_cannot_lower_its_smoothness_by_scale() -> None:
    """After any update the mask has unit norm, so a smaller mask with larger features is the same readout."""
    shape = FeatureShape(4, 5, 3)
    kernel = READOUTS["factorized"].kernel(shape, torch.device("cpu"), dtype=torch.float64)
    p = kernel.initial([0, 1], 0)
    p["mask"] += 0.05 * maps(1, 2, shape.cells)
    p["mask"] /= p["mask"].norm(dim=1, keepdim=True)
    weights = {
        "smoothness": torch.ones(2, dtype=torch.float64),
        "sparsity": torch.zeros(2, dtype=torch.float64),
        "weight_decay": torch.zeros(2, dtype=torch.float64),
    }
    gradient = kernel.penalty_gradients(p, weights)["mask"]
    unit = p["mask"].abs()
    through = p["mask"].sign() * (gradient - unit * (unit * gradient).sum(1, keepdim=True))
    along = (through * p["mask"]).sum(1)
    torch.testing.assert_close(along, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("shape", "order"),
    [((64, 28, 28), "mask"), ((512, 8, 8), "features"), ((24, 4, 4), "outer")],
)
def test_contraction_order_takes_the_smallest_intermediate(
    shape: tuple[int, int, int], order: str
) -> None:
    assert contraction_order(FeatureShape(*shape), 50) == order


@pytest.mark.parametrize("shape", [(64, 2, 2), (3, 9, 9), (3, 2, 2)])
def test_every_contraction_order_gives_the_same_gradients(shape: tuple[int, int, int]) -> None:
    bound = FeatureShape(*shape)
    batch_size = 11
    kernel = READOUTS["factorized"].kernel(bound, torch.device("cpu"), dtype=torch.float64)
    p = kernel.initial([0, 1, 2], 0)
    x = maps(5, batch_size, bound.size)
    residual = maps(6, 3, batch_size)
    y, saved = kernel.forward(p, x)
    leaf = {name: value.clone().requires_grad_(True) for name, value in p.items()}
    pooled = torch.einsum("bcp,kp->kbc", x.view(batch_size, bound.channels, -1), leaf["mask"].abs())
    expected = torch.einsum("kbc,kc->kb", pooled, leaf["features"]) / bound.channels**0.5
    (expected * residual).sum().backward()
    torch.testing.assert_close(y, expected.detach())
    gradients = kernel.gradients(p, x, saved, residual)
    for name in ("mask", "features"):
        assert leaf[name].grad is not None
        torch.testing.assert_close(gradients[name], leaf[name].grad)
