"""The fused step in C against the same step by tensor operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.readouts import READOUTS
from tuner.readouts.native import compiler
from tuner.readouts.readout import FeatureShape, StepCoefficients

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
CPU = torch.device("cpu")
BATCH = 19


class Case:
    """Some columns in the middle of a fit: one without penalties, one that is not updated at all."""

    def __init__(self, shape: tuple[int, int, int], k: int, names: tuple[str, ...]) -> None:
        self.shape = FeatureShape(*shape)
        self.k = k
        rng = torch.Generator().manual_seed(0)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=rng)

        size = self.shape.size
        self.x, self.following = draw(BATCH, size).relu(), draw(BATCH, size).relu()
        self.residual = draw(k, BATCH)
        self.start = draw(k, size), draw(k, size) * 0.1, draw(k, size).square() * 0.01
        self.weights = {name: draw(k).abs() * 0.1 for name in names}
        for values in self.weights.values():
            values[min(2, k - 1)] = 0.0
        new = torch.full((k, 1), 0.1)
        new[k // 2] = 0.0
        rate = torch.where(new > 0, torch.full((k, 1), 0.02), torch.zeros(k, 1))
        self.c = StepCoefficients(rate, new, new * 0.01, new * 0 + 1.7, new * 0 + 3.0)

    def turned(
        self, *, compiled: bool, rows: slice = slice(None), follow: bool = True
    ) -> tuple[list[Tensor], Any]:
        """Weights, moments and bias after a step of these rows, and the responses to the next batch."""
        kernel = READOUTS["full"].kernel(self.shape, CPU, compiled=compiled)
        parts = [
            {"weight": part[rows].clone(), "bias": torch.zeros(self.k, 1)[rows]}
            for part in self.start
        ]
        turned = kernel.turn(
            *parts,
            {name: values[rows] for name, values in self.weights.items()},
            StepCoefficients(*(getattr(self.c, f)[rows] for f in self.c.__dataclass_fields__)),
            self.x,
            None,
            self.residual[rows].contiguous(),
            self.following if follow else None,
        )
        return [*(p["weight"] for p in parts), parts[0]["bias"]], turned


ALL = READOUTS["full"].penalties


@pytest.mark.parametrize("k", [1, 7, 18])
@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (1100, 1, 1), (5, 4, 7), (2, 1, 6), (40, 8, 8), (3, 28, 28), (1, 40, 60)]
)
@pytest.mark.parametrize("names", [(), ("sparsity",), ("smoothness", "group_sparsity"), ALL])
def test_equals_tensor_operations(
    shape: tuple[int, int, int], names: tuple[str, ...], k: int
) -> None:
    case = Case(shape, k, names)
    mine, ahead = case.turned(compiled=True)
    theirs, expected = case.turned(compiled=False)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=5e-6)
    torch.testing.assert_close(ahead[0], expected[0], rtol=2e-5, atol=2e-5)
    assert torch.equal(mine[0][k // 2], case.start[0][k // 2])


def test_a_column_does_not_depend_on_its_company() -> None:
    case = Case((40, 8, 8), 18, ALL)
    together, ahead = case.turned(compiled=True)
    alone, ahead_alone = case.turned(compiled=True, rows=slice(7, 8))
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[7:8], b)
    assert torch.equal(ahead[0][7:8], ahead_alone[0])


def test_the_last_step_has_no_batch_after_it() -> None:
    case = Case((5, 4, 7), 7, ALL)
    mine, ahead = case.turned(compiled=True, follow=False)
    assert ahead is None
    for a, b in zip(mine, case.turned(compiled=True)[0], strict=True):
        assert torch.equal(a, b)


def test_the_packed_batch_is_used_again() -> None:
    """A second step goes on from what the first one made ready."""
    case = Case((6, 5, 5), 7, ALL)
    results = []
    for compiled in (True, False):
        kernel = READOUTS["full"].kernel(case.shape, CPU, compiled=compiled)
        parts = [{"weight": p.clone(), "bias": torch.zeros(7, 1)} for p in case.start]
        x, saved, residual = case.x, None, case.residual
        for following in (case.following, case.x, case.following):
            turned = kernel.turn(*parts, case.weights, case.c, x, saved, residual * 0.1, following)
            assert turned is not None
            x, (residual, saved) = following, turned
        results.append((parts[0]["weight"], residual))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_diverged_column_stays_visible_and_alone() -> None:
    """Also where a tile is not full, and what another row left behind lies next to it."""
    case = Case((70, 5, 5), 13, ALL)
    case.start[0][3, 1700] = np.nan
    case.start[0][4, 12] = np.inf
    parts, ahead = case.turned(compiled=True)
    sick = torch.zeros(13, dtype=torch.bool)
    sick[3:5] = True
    assert torch.isnan(parts[0][3, 1700])
    assert not torch.isfinite(ahead[0][sick]).all(1).any()
    assert torch.isfinite(ahead[0][~sick]).all()
    assert all(torch.isfinite(part[~sick]).all() for part in parts)


def test_a_diverged_gradient_stays_visible() -> None:
    case = Case((2, 2, 2), 2, ("sparsity",))
    case.residual[0, 3] = np.nan
    (weight, *_), _ = case.turned(compiled=True)
    assert torch.isnan(weight[0]).any()
    assert torch.isfinite(weight[1]).all()


def test_other_memory_is_refused() -> None:
    case = Case((2, 2, 2), 2, ())
    case.x = case.x.double()
    with pytest.raises(ValueError, match="contiguous float32"):
        case.turned(compiled=True)
