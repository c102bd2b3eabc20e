"""The optimisers of images."""

from __future__ import annotations

import pytest
import torch

from tuner.synthesis.ascent import FallingAscent, TurningAscent


def _steps(optimizer, parameter, gradient, count):
    lengths = []
    for _ in range(count):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
        lengths.append((parameter.detach() - before).flatten(1).norm(dim=1))
    return torch.stack(lengths)


def test_turning_moves_a_share_of_the_own_length_less_and_less():
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) * 10
    parameter = start.clone().requires_grad_(True)
    gradient = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    optimizer = TurningAscent([parameter], 0.1, 4)
    own = start.flatten(1).norm(dim=1)
    lengths = _steps(optimizer, parameter, gradient, 4)
    torch.testing.assert_close(lengths[0], 0.1 * own)
    shares = lengths[:, 0] / own[0]
    assert (shares.diff() < 0).all()
    assert shares[3] == pytest.approx(0.025, rel=0.5)
    later = _steps(optimizer, parameter, gradient, 1)
    assert later.max() == 0


@pytest.mark.parametrize("kind", [TurningAscent, FallingAscent])
def test_the_size_of_the_gradient_does_not_count_and_rows_do_not_meet(kind):
    gradient = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    ends = []
    for scale in (torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [1e6]])):
        parameter = torch.ones(2, 5, requires_grad=True)
        _steps(kind([parameter], 0.1, 10), parameter, gradient * scale, 5)
        ends.append(parameter.detach())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("kind", [TurningAscent, FallingAscent])
def test_no_gradient_no_step(kind):
    parameter = torch.ones(2, 5, requires_grad=True)
    _steps(kind([parameter], 0.1, 10), parameter, torch.zeros(2, 5), 3)
    assert torch.equal(parameter.detach(), torch.ones(2, 5))


def test_directions_keep_their_relative_sizes():
    """Unlike Adam, which would move both coefficients alike."""
    parameter = torch.zeros(1, 2, requires_grad=True)
    optimizer = TurningAscent([parameter], 0.1, 100)
    _steps(optimizer, parameter, torch.tensor([[1.0, 0.01]]), 10)
    moved = parameter.detach()[0].abs()
    assert (moved[1] / moved[0]).item() == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_shrinks():
    parameter = torch.full((1, 4), 5.0, requires_grad=True)
    optimizer = TurningAscent([parameter], 0.1, 100, weight_decay=1.0)
    _steps(optimizer, parameter, torch.zeros(1, 4), 1)
    torch.testing.assert_close(parameter.detach(), torch.full((1, 4), 4.5))
