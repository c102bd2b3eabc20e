"""What this machine can do at most, and what a step must do at least."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.throughput.problem import BATCH, Problem


@dataclass(frozen=True)
class Machine:
    """Measured rates.

    Attributes
    ----------
    bytes_per_second
        Read plus written by a copy far larger than the caches.
    flops_per_second
        Of a large float32 matrix product.
    """

    bytes_per_second: float
    flops_per_second: float

    @classmethod
    def measure(cls) -> Machine:
        """Best of several runs: other work on the machine only ever slows them."""
        a, b = torch.ones(1 << 26), torch.zeros(1 << 26)
        copy = _best(lambda: b.copy_(a))
        add = _best(lambda: b.add_(a))
        n = 2048
        x, y, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        product = _best(lambda: torch.mm(x, y, out=out))
        size = a.numel() * 4
        return cls(max(2 * size / copy, 3 * size / add), 2 * n**3 / product)


def _best(run: Callable[[], object], repeats: int = 15) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@dataclass(frozen=True)
class Work:
    """What one step of all columns must move and compute."""

    bytes: float
    flops: float

    @classmethod
    def of(cls, problem: Problem, columns: int) -> Work:
        """Parameters and both moments are read and written once; the batch is read once, in half precision.

        Forward and backward are a multiplication and an addition per column, image and feature each.
        """
        shape = problem.shape
        each = shape.size if problem.readout == "full" else shape.channels + shape.cells
        return cls(
            bytes=24.0 * columns * each + 2 * BATCH * shape.size,
            flops=4.0 * columns * BATCH * shape.size,
        )

    def seconds(self, machine: Machine) -> float:
        """A step cannot be faster than its traffic, nor than its arithmetic."""
        return max(self.bytes / machine.bytes_per_second, self.flops / machine.flops_per_second)
