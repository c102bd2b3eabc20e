"""Where the step compiled from C pays for the factorized readout: a step fused and by tensor operations, grid by grid.

``python -m benchmarks.fused -o PAGE.md``. Both do the same step; best of several repetitions, in turn.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import describe, publish, threads
from tuner import readouts
from tuner.fitting import losses
from tuner.readouts.factorized import FUSED_CELLS
from tuner.readouts.readout import Batch, Descent, FeatureShape, StepCoefficients

SHAPES = (
    *((320, 2, 2), (192, 2, 2), (112, 4, 4), (112, 7, 7), (40, 8, 8), (512, 8, 8)),
    *((40, 14, 14), (16, 28, 28), (24, 28, 28), (512, 28, 28)),
)
"""EfficientNet-Lite0's and VGG-19's layers at 64, 112 and 224 px."""

COLUMNS, BATCH, REPEATS, STEPS = 192, 50, 7, 5


class Contender:
    """Some columns of the factorized readout, and one step of theirs."""

    def __init__(self, shape: FeatureShape, *, compiled: bool) -> None:
        readout = readouts.get("factorized")
        self.kernel = readout.kernel(shape, torch.device("cpu"), compiled=compiled)
        parameters = self.kernel.initial(list(range(COLUMNS)), 0)
        moments = [{n: torch.zeros_like(v) for n, v in parameters.items()} for _ in range(2)]
        weights = {name: torch.full((COLUMNS,), 1e-4) for name in readout.penalties}
        self.descent = Descent(parameters, *moments, weights)
        one = torch.ones(COLUMNS, 1)
        self.coefficients = StepCoefficients(0.01 * one, 0.1 * one, 0.001 * one, one, one)
        rng = torch.Generator().manual_seed(0)
        self.batch = Batch(
            torch.rand(BATCH, shape.size, generator=rng),
            torch.randn(COLUMNS, BATCH, generator=rng),
            torch.full((COLUMNS, BATCH), 1 / BATCH),
            "mse",
            partial(losses.derivative, "mse"),
        )

    def milliseconds(self) -> float:
        """Of one step, mean over some."""
        begin = time.perf_counter()
        for _ in range(STEPS):
            self.kernel.step(self.descent, self.coefficients, self.batch, None, None)
        return (time.perf_counter() - begin) / STEPS * 1e3


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("fused.md"))
    out = parser.parse_args().out
    torch.set_num_threads(threads())
    rows = []
    for size in SHAPES:
        shape = FeatureShape(*size)
        pair = [Contender(shape, compiled=compiled) for compiled in (True, False)]
        times = [[one.milliseconds() for one in pair] for _ in range(REPEATS)]
        fused, eager = (min(mine) for mine in zip(*times, strict=True))
        used = "fused" if shape.cells <= FUSED_CELLS else "tensor operations"
        rows.append(
            f"| {'x'.join(map(str, size))} | {fused:.2f} | {eager:.2f} | {eager / fused:.2f} | {used} |"
        )
    publish(
        "# The factorized step, fused or not\n\n"
        f"{describe(f'python -m benchmarks.fused -o {out.name}')} {COLUMNS} columns, batches of "
        f"{BATCH}, {threads()} threads, best of {REPEATS}. New studies use what the last column "
        "says; a study keeps what it was created with.\n\n"
        "| features | fused, ms | tensor operations, ms | times faster | used |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n",
        out,
    )


if __name__ == "__main__":
    main()
