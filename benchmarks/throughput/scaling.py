"""Whether time grows linearly in trials, units and features, and memory not at all with trials that are over."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.throughput.peak import high_water
from benchmarks.throughput.problem import TRIALS, Problem
from tuner.fitting.columns import Columns, ColumnState
from tuner.fitting.trainer import Trainer

STEPS = 15
PAIRS = 7


@dataclass(frozen=True)
class Growth:
    """How much longer twice the work takes."""

    what: str
    readout: str
    ratio: float


class _Runner:
    def __init__(self, trainer: Trainer, columns: Columns) -> None:
        self.trainer = trainer
        self.state: ColumnState = trainer.start(columns)
        self.done = 0
        self.seconds()

    def seconds(self) -> float:
        begin = time.perf_counter()
        self.trainer.advance(self.state, self.done, self.done + STEPS)
        self.done += STEPS
        return time.perf_counter() - begin


def growth(problem: Problem, *, compiled: bool) -> list[Growth]:
    """Median ratio of paired runs, for twice the trials, units and features."""
    half_channels = replace(problem, half=problem.half[:, : problem.half.shape[1] // 2].copy())
    twice_units = problem.columns()
    twice_units = twice_units.take(np.repeat(np.arange(len(twice_units)), 2))
    whole, part = problem.trainer(compiled=compiled), half_channels.trainer(compiled=compiled)
    cases = {
        "trials": ((whole, problem.columns()), (whole, problem.columns(2 * TRIALS))),
        "units": ((whole, problem.columns()), (whole, twice_units)),
        "features": ((part, half_channels.columns()), (whole, problem.columns())),
    }
    found = []
    for what, (small, large) in cases.items():
        pair = _Runner(*small), _Runner(*large)
        ratios = []
        for _ in range(PAIRS):
            first, second = (runner.seconds() for runner in pair)
            ratios.append(second / first)
        found.append(Growth(what, problem.readout, float(np.median(ratios))))
    return found


def memory_of_rounds() -> list[int]:
    """Peak bytes of a process after 2, 6 and 12 rounds of the same size; empty where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return []
    command = [sys.executable, "-m", "benchmarks.throughput.scaling"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def _rounds() -> None:
    rng = np.random.default_rng(0)
    half = np.maximum(rng.standard_normal((200, 64, 12, 12)), 0).astype(np.float16)
    targets = rng.standard_normal((200, 24)).astype(np.float32)
    trial = dict.fromkeys(("sparsity", "smoothness", "group_sparsity", "weight_decay"), 1e-4)
    trials = [trial | {"learning_rate": 0.01, "drop": 50}] * TRIALS
    problem = Problem("full", half, targets, 40, list(np.arange(24).reshape(3, 8)), trials)
    trainer = problem.trainer(compiled=False)
    for number in range(1, 13):
        state = trainer.start(problem.columns())
        trainer.advance(state, 0, 4)
        trainer.validate(state)
        state.remember(np.arange(len(state)))
        state.keep(np.arange(len(state) // 2))
        state.best_of(np.arange(len(state)))
        if number in (2, 6, 12):
            print(high_water())


if __name__ == "__main__":
    _rounds()
