"""What a closed form would take, from its sizes and a second of calibration."""

from __future__ import annotations

import functools
import math
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


def fit_seconds(
    problem: Problem, plan: Plan, device: str, *, folds: int = 1, groupings: int = 1
) -> float:
    """Time that it takes, from products and a decomposition of one size timed on the device.

    Parameters
    ----------
    folds
        Into how many parts images are dealt that are left out together; 1: one at a time.
    groupings
        Ways to deal them that share decompositions.
    """
    rate = _rate(plan.products, device)
    decomposing = _decomposed(problem.side, plan.matrix, device)
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
        each: float = 2 * (n + m) * rank * problem.units + 2 * n * rank
        if folds > 1:  # what is left out is solved for, fold by fold
            each += 2 * n * n / folds * (rank + n / folds)
        flops += groupings * len(problem.penalties) * each
    flops += 2 * n * problem.shape.size * problem.units
    return len(problem.widths) * decomposing + flops / rate


def located_seconds(
    images: int, shape: FeatureShape, units: int, folds: int, device: str, *, foldings: int = 1
) -> float:
    """Time of :func:`tuner.closed_form.located.fit_located` on responses without gaps, by the same measurements.

    How many envelopes differ is known only when units have been fitted: as many as if each had drawn one of those that are
    tried.

    Parameters
    ----------
    images
        Fitted.
    shape
        Of the features.
    units
        Of all regions together.
    folds
        How many; 1 without.
    foldings
        Ways to deal the images into folds that share decompositions.
    """
    from tuner.closed_form import fwrf, located

    n, every = images, fwrf.lattices(shape.height, shape.width, located.SHARES)
    sizes = [len(lattice.rows) * len(lattice.columns) for lattice in every]
    pooled = n * shape.channels
    flops = 0.0
    for lattice, count in zip(every, sizes, strict=True):
        flops += 2 * n * shape.size * len(lattice.columns) + 2 * pooled * shape.height * count
        flops += count * (2 * pooled * (shape.channels + units) + 2 * shape.channels**2 * units)
    decomposing = sum(sizes) * _decomposed(shape.channels, torch.float32, device)
    distinct = sum(sizes) * (1 - (1 - 1 / sum(sizes)) ** units)
    most = max(min(located.WIDTHS), min(shape.height, shape.width) / 4)
    for width in (width for width in located.WIDTHS if width <= most):
        for lattice, count in zip(every, sizes, strict=True):
            middle = lattice.masks[len(lattice.masks) // 2]
            prior = SpatialPrior(
                width,
                shape.height,
                shape.width,
                envelope=located.envelope(middle),
                negligible=located.NEGLIGIBLE,
                dtype=torch.float32,
                device="cpu",
            )
            size = shape.channels * prior.size
            rank = min(n, size)
            share = distinct * count / sum(sizes)
            decomposing += share * _decomposed(rank, torch.float32, device)
            flops += share * 2 * n * (rank * size + shape.size * math.sqrt(prior.size))
            # What is left out is solved for, fold by fold: once to judge, and again for each fold's weights.
            left_out = 2 * n * n / folds * (rank + n / folds) if folds > 1 else 0.0
            each = 2 * n * rank + 4 * n * rank * units / distinct + left_out
            solving = len(located.PENALTIES) * each + folds * (each + left_out)
            flops += share * foldings * solving
    flops += foldings * 2 * n * shape.size * folds * units
    return decomposing + flops / _rate(torch.float32, device)


def _decomposed(side: int, dtype: torch.dtype, device: str) -> float:
    """Time of a decomposition of any size, by its cube from one that is timed."""
    timed = min(_SIDE, side)
    return _decomposition(timed, dtype, device) * (side / timed) ** 3


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
