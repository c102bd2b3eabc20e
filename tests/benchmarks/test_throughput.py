"""The contenders train the same trials: timings are the benchmark's matter, agreement is held here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.throughput import __main__ as throughput
from benchmarks.throughput import predecessor
from benchmarks.throughput.expert import Expert, variants
from benchmarks.throughput.floor import Machine, Work
from benchmarks.throughput.predecessor import Predecessor
from benchmarks.throughput.problem import TRIALS, Problem, Scene
from tuner import readouts


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> object:
    """One thread: the problems are tiny."""
    monkeypatch.setattr(throughput, "cores", lambda: 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def problem(readout: str) -> Problem:
    rng = np.random.default_rng(0)
    half = np.maximum(rng.standard_normal((160, 6, 5, 5)), 0).astype(np.float16)
    signal = half.reshape(160, -1) @ rng.standard_normal((150, 5)) * 0.1
    targets = (signal + 0.3 * rng.standard_normal(signal.shape)).astype(np.float32)
    trials = [
        {name: float(10 ** rng.uniform(-4, -2)) for name in readouts.get(readout).penalties}
        | {"learning_rate": float(10 ** rng.uniform(-2, -1)), "drop": int(rng.integers(5, 30))}
        for _ in range(TRIALS)
    ]
    return Problem(readout, half, targets, 40, [np.array([0, 2, 3]), np.array([1, 4])], trials)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("readout", ["full", "factorized"])
def test_expert_and_columns_agree(readout: str, compiled: bool) -> None:
    task = problem(readout)
    compiled = compiled and throughput.compiler() is not None
    for variant in variants(readout, 1):
        assert throughput.disagreement(task, variant, compiled=compiled) < 1e-4


def test_the_expert_really_trains() -> None:
    task = problem("full")
    expert = Expert(task, variants("full", 1)[0])
    trial, targets = expert.begin()
    assert expert.interval(trial, targets, steps=90) < 0.7 * float(targets[120:].square().mean())


def test_predecessor_and_columns_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features made anew at every step are those that are cached, but for their rounding."""
    monkeypatch.setattr(predecessor, "VALIDATION", 8)
    scene = Scene.of(32, 68, 8)
    found = scene.extract([throughput.MIDDLE])[throughput.MIDDLE]
    task = Problem.of(scene, "full", found.train)
    _, loss = Predecessor(scene, found, task).run(2)
    mine = throughput.Columns(task, compiled=False).losses(2)[0, 0]
    assert mine == pytest.approx(loss, rel=1e-3)


def test_the_floor_counts_what_must_be_done() -> None:
    full, factorized = (Work.of(problem(readout), columns=40) for readout in ("full", "factorized"))
    assert full.flops == factorized.flops == 4 * 40 * 50 * 150
    assert full.bytes == 24 * 40 * 150 + 2 * 50 * 150
    assert factorized.bytes == 24 * 40 * (6 + 25) + 2 * 50 * 150
    assert full.seconds(Machine(1e9, 1e15)) == pytest.approx(full.bytes / 1e9)
    assert full.seconds(Machine(1e15, 1e9)) == pytest.approx(full.flops / 1e9)
