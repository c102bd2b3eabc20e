"""What a closed form would take, from its sizes and a second of calibration."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tuner.closed_form.gram import COPIES, Plan, piece_bytes, units_at_once
from tuner.closed_form.prior import SpatialPrior
from tuner.readouts.readout import FeatureShape

_SIDE = 768
"""Of the matrices that are timed."""


@dataclass(frozen=True)
class Problem:
    """The sizes of a fit.

    Attributes
    ----------
    images, others
        Fitted images, and those that are predicted besides.
    shape
        Of the features.
    units
        Of all regions together.
    widths, penalties
        The grid.
    """

    images: int
    others: int
    shape: FeatureShape
    units: int
    widths: Sequence[float]
    penalties: Sequence[float]

    @property
    def side(self) -> int:
        """Of the matrix that is decomposed."""
        return min(self.images, self.shape.size)

    def plan(self, memory: int) -> Plan:
        """In which precision it is solved in ``memory`` bytes.

        Raises
        ------
        EnvironmentFailure
            If the decomposition does not fit.
        """
        return Plan.of(self.images, self.shape.size, memory)

    def pieces(self, plan: Plan) -> int:
        """How often all images are read: pieces of channels, over all widths."""
        item = torch.finfo(plan.products).bits // 8
        total = item * (self.images + self.others) * self.shape.size
        return len(self.widths) * max(1, -(-total // piece_bytes(plan)))


def fit_bytes(problem: Problem, plan: Plan) -> int:
    """Memory at most: responses and weights, beside square matrices, a piece of features, or weights in the making."""
    item = torch.finfo(plan.matrix).bits // 8
    table = item * (problem.images + problem.others) * problem.side
    squares = COPIES * item * problem.side**2
    responses = 8 * item * (problem.images + problem.others) * problem.units
    features = (problem.images + problem.others) * problem.shape.size
    piece = min(piece_bytes(plan), features * torch.finfo(plan.products).bits // 8)
    weights = 4 * problem.units * problem.shape.size
    making = (
        4 * item * problem.shape.size * min(problem.units, units_at_once(plan, problem.shape.size))
    )
    return max(table + squares, table + 2 * piece, piece + making) + responses + weights


def fit_seconds(problem: Problem, plan: Plan, device: str) -> float:
    """Time that it takes, from products and a decomposition of one size timed on the device."""
    rate = _rate(plan.products, device)
    side = min(_SIDE, problem.side)
    once = _decomposition(side, plan.matrix, device)
    decomposing = once * (problem.side / side) ** 3
    n, m = problem.images, problem.others
    flops = 0.0
    for width in problem.widths:
        prior = SpatialPrior(
            width, problem.shape.height, problem.shape.width, dtype=torch.float32, device="cpu"
        )
        size = problem.shape.channels * prior.size
        primal = size < n
        flops += 2 * n * size**2 if primal else (n + 2 * m) * n * size
        rank = size if primal else n
        each = 2 * (n + m) * rank * problem.units + 2 * n * rank
        flops += len(problem.penalties) * each
    flops += 2 * n * problem.shape.size * problem.units
    return len(problem.widths) * decomposing + flops / rate


@functools.cache
def _decomposition(side: int, dtype: torch.dtype, device: str) -> float:
    """Time of one; the same for all layers, so taken once."""
    return _seconds(lambda a: torch.linalg.eigh(a @ a.T), side, dtype, device)


@functools.cache
def _rate(dtype: torch.dtype, device: str) -> float:
    """Operations a second of a product of matrices."""
    return 2 * _SIDE**3 / _seconds(lambda a: a @ a, _SIDE, dtype, device)


def _seconds(
    work: Callable[[torch.Tensor], object], side: int, dtype: torch.dtype, device: str
) -> float:
    """Least of three runs on a random matrix."""
    matrix = torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    found = []
    for _ in range(3):
        begin = time.perf_counter()
        work(matrix)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begin)
    return min(found)
