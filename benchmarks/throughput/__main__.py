"""Three ways to train the same trials on the same features, in one run; writes one page.

``python -m benchmarks.throughput -o PAGE.md``. The contenders:

(a) the predecessor's loop: backbone and validation images at every step, one trial at a time;
(b) what an expert would write today: float32 features in memory, one trial after another, an nn.Module for all units of a
    region, autograd, the faster of fused and foreach Adam, a depthwise conv2d Laplacian, validation only at reports, the
    better of 1 and all threads, the better of two orders of contraction;
(c) the column trainer: all trials of all regions at once; with the fused step in C, and by tensor operations alone.

All use the same hyperparameters, batches, initial weights and update rule (Adam, then soft thresholding in Adam's metric),
without pruning, and are checked to agree in validation loss. Features come from VGG-19 with seeded random weights on crops
of photographs; responses are those of the simulated recording.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import cores, describe, load, publish
from benchmarks.throughput.expert import Expert, Variant, variants
from benchmarks.throughput.floor import Machine, Work
from benchmarks.throughput.peak import peaks
from benchmarks.throughput.predecessor import VALIDATION, Predecessor
from benchmarks.throughput.problem import BATCH, REPORT_EVERY, TRIALS, UNITS, Problem, Scene
from benchmarks.throughput.scaling import Growth, growth, memory_of_rounds
from tuner.fitting.columns import ColumnState
from tuner.fitting.trainer import Trainer
from tuner.readouts.native.build import compiler

LAYERS = ("features.10", "features.19", "features.30")
MIDDLE = "features.19"
READOUTS = ("full", "factorized")
PAIRS = 5
TRIAL_STEPS, TRIAL_REPORTS = 900, 20


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


class Columns:
    """Contender (c)."""

    def __init__(self, problem: Problem, *, compiled: bool) -> None:
        self.trainer: Trainer = problem.trainer(compiled=compiled)
        self.state: ColumnState = self.trainer.start(problem.columns())
        self.trials = TRIALS * len(problem.regions)
        self.done = 0

    def interval(self, steps: int) -> None:
        """Steps between two reports, and the report."""
        torch.set_num_threads(cores())
        self.trainer.advance(self.state, self.done, self.done + steps)
        self.trainer.validate(self.state)
        self.done += steps

    def losses(self, steps: int) -> dict[tuple[int, int], float]:
        """Validation loss of each region and trial after so many steps."""
        self.interval(steps)
        counts = self.trainer.validation_counts[self.state.columns.unit].sum(1)
        each = self.trainer.validate(self.state).sum(1) / counts
        trial = self.state.columns.trial
        return {divmod(int(t), TRIALS): float(each[trial == t].mean()) for t in np.unique(trial)}


@dataclass(frozen=True)
class Row:
    """One readout on one layer; milliseconds per trial-step, validation at reports included."""

    readout: str
    layer: str
    shape: str
    features: int
    variant: Variant
    expert: float
    compiled: float
    eager: float
    ratio: float
    eager_ratio: float
    floor: float
    bound: str
    apart: float
    peaks: dict[str, int]


def fastest(problem: Problem) -> Variant:
    """The expert's fastest variant on this problem."""
    timed = []
    for variant in variants(problem.readout, cores()):
        expert = Expert(problem, variant)
        trial, targets = expert.begin()
        expert.advance(trial, targets, 2)
        seconds = [_seconds(lambda: expert.advance(trial, targets, 4)) for _ in range(4)]  # noqa: B023
        timed.append((min(seconds), str(variant), variant))
    return min(timed)[-1]


def disagreement(problem: Problem, variant: Variant, *, compiled: bool) -> float:
    """Largest relative difference in validation loss between (b) and (c), over regions, two trials of each."""
    columns = Columns(problem, compiled=compiled)
    mine = columns.losses(REPORT_EVERY)
    expert = Expert(problem, variant)
    worst = 0.0
    for region in range(len(problem.regions)):
        for trial in (0, TRIALS - 1):
            theirs = expert.interval(*expert.begin(trial, region))
            worst = max(worst, abs(mine[region, trial] / theirs - 1))
    return worst


def compare(problem: Problem, layer: str, machine: Machine) -> Row:
    """Paired alternating intervals of (b), (c) compiled and (c) eager."""
    variant = fastest(problem)
    kinds = (True, False) if compiler() else (False,)
    apart = max(disagreement(problem, variant, compiled=compiled) for compiled in kinds)
    expert = Expert(problem, variant)
    trial, targets = expert.begin()
    expert.advance(trial, targets, 5)
    compiled, eager = (Columns(problem, compiled=bool(compiler()) and c) for c in (True, False))
    compiled.interval(3)
    eager.interval(3)
    times: list[tuple[float, float, float]] = []
    for _ in range(PAIRS):
        torch.set_num_threads(variant.threads)
        times.append(
            (
                _seconds(lambda: expert.interval(trial, targets)) / REPORT_EVERY,
                _seconds(lambda: compiled.interval(REPORT_EVERY)) / REPORT_EVERY / compiled.trials,
                _seconds(lambda: eager.interval(9)) / 9 / eager.trials,
            )
        )
    b, c, e = (statistics.median(column) for column in zip(*times, strict=True))
    work = Work.of(problem, len(compiled.state))
    shape = problem.shape
    traffic = work.bytes / machine.bytes_per_second
    return Row(
        readout=problem.readout,
        layer=layer,
        shape=f"{shape.channels}x{shape.height}x{shape.width}",
        features=shape.size,
        variant=variant,
        expert=1e3 * b,
        compiled=1e3 * c,
        eager=1e3 * e,
        ratio=statistics.median(row[0] / row[1] for row in times),
        eager_ratio=statistics.median(row[0] / row[2] for row in times),
        floor=1e3 * work.seconds(machine) / compiled.trials,
        bound="traffic" if traffic >= work.seconds(machine) else "arithmetic",
        apart=apart,
        peaks=peaks(problem),
    )


@dataclass(frozen=True)
class Old:
    """The predecessor's loop against (c), per trial-step."""

    readout: str
    size: int
    shape: str
    predecessor: float
    columns: float
    apart: float


def old(scene: Scene, readouts: tuple[str, ...], steps: int) -> list[Old]:
    """(a) for a few steps, and (c) for as many for the same loss, then for a time."""
    found = scene.extract([MIDDLE])[MIDDLE]
    out = []
    for readout in readouts:
        problem = Problem.of(scene, readout, found.train)
        torch.set_num_threads(cores())
        seconds, loss = Predecessor(scene, found, problem).run(steps)
        columns = Columns(problem, compiled=compiler() is not None)
        mine = columns.losses(steps)[0, 0]
        each = 5 if scene.images.size > 100 else REPORT_EVERY
        timed = [_seconds(lambda: columns.interval(each)) for _ in range(3)]  # noqa: B023
        out.append(
            Old(
                readout,
                scene.images.size,
                "x".join(map(str, found.shape)),
                1e3 * seconds,
                1e3 * statistics.median(timed) / each / columns.trials,
                abs(mine / loss - 1),
            )
        )
        _say(f"{out[-1]}")
    return out


def page(
    rows: list[Row],
    olds: list[Old],
    growths: list[Growth],
    rounds: list[int],
    machine: Machine,
    loads: tuple[float, float],
) -> str:
    """All of it as Markdown."""
    lines = [
        "# Throughput",
        "",
        describe("python -m benchmarks.throughput")
        + f" Load before {loads[0]:.1f}, after {loads[1]:.1f}.",
        "",
        f"Three simulated regions of {UNITS} units, {TRIALS} trials a study, batches of {BATCH}; VGG-19 with random "
        "weights on 64-pixel\ncrops of photographs. Milliseconds per trial-step (one step of one trial of one study), with "
        f"a validation every {REPORT_EVERY} steps;\nmedians of {PAIRS} paired alternating runs. (b) is an expert's loop on "
        "cached features, (c) the column trainer. Trials per\nsecond are for one region's trial of 900 steps and 20 "
        "reports.",
        "",
        "| readout | layer | features | (b) ms | (c) ms | (c) eager ms | b / c | b / c eager | trials/s b | trials/s c | "
        "losses apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.readout} | {r.layer}, {r.shape} | {r.features:,} | {r.expert:.2f} | {r.compiled:.3f} | {r.eager:.2f} | "
        f"{r.ratio:.1f} | {r.eager_ratio:.1f} | {1e3 / r.expert / TRIAL_STEPS:.3f} | "
        f"{1e3 / r.compiled / TRIAL_STEPS:.2f} | {r.apart:.0e} |"
        for r in rows
    ]
    lines += [
        "",
        "The fastest form of (b), and peak memory above the imports, features included:",
        "",
    ]
    lines += [
        "| readout | layer | (b) is | (b) MB | (c) MB | (c) eager MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        memory = [
            f"{r.peaks[c] / 1e6:.0f}" if r.peaks else "" for c in ("expert", "compiled", "eager")
        ]
        lines.append(f"| {r.readout} | {r.layer} | {r.variant} | " + " | ".join(memory) + " |")
    lines += [
        "",
        "## Against what the machine can do",
        "",
        f"Measured in the same run: {machine.bytes_per_second / 1e9:.1f} GB/s in a copy of 268 MB, "
        f"{machine.flops_per_second / 1e9:.0f} GFLOP/s in a float32 product\nof 2,048 x 2,048 matrices. A step of all "
        "columns must read and write the parameters and both moments once, read the batch\nonce, and multiply and add "
        "once per column, image and feature forward and once backward; the slower of the two is the\nfloor.",
        "",
        "| readout | layer | floor, ms per trial-step | set by | (c) over floor |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.readout} | {r.layer} | {r.floor:.3f} | {r.bound} | {r.compiled / r.floor:.2f} |"
        for r in rows
    ]
    lines += [
        "",
        "## Against the predecessor's loop",
        "",
        f"(a) runs the convolutional network on the batch and on {VALIDATION} validation images at every step. A few steps "
        "are timed, each is\nthe same work; both train on features of the same images at the same size.",
        "",
        f"| readout | image | {MIDDLE} | (a) ms | (c) ms | a / c | losses apart |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.readout} | {o.size} px | {o.shape} | {o.predecessor:,.0f} | {o.columns:.2f} | "
        f"{o.predecessor / o.columns:,.0f} | {o.apart:.0e} |"
        for o in olds
    ]
    lines += [
        "",
        "## Growth",
        "",
        f"Time of twice the work over time of the work, at {MIDDLE}, compiled:",
        "",
        "| readout | twice the | times the time |",
        "|---|---|---|",
    ]
    lines += [f"| {g.readout} | {g.what} | {g.ratio:.2f} |" for g in growths]
    if rounds:
        after = ", ".join(f"{n / 1e6:.0f}" for n in rounds)
        lines += [
            "",
            f"Peak memory of a process after 2, 6 and 12 rounds of 24 trials: {after} MB.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description="Throughput of three contenders.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--without-predecessor", action="store_true", help="leave (a) out")
    given = parser.parse_args()
    before = load()
    torch.set_num_threads(cores())
    machine = Machine.measure()
    _say(f"{machine}")
    scene = Scene.of(64, 480, 100)
    layers = scene.extract(list(LAYERS))
    rows = []
    for readout in READOUTS:
        for layer in LAYERS:
            rows.append(compare(Problem.of(scene, readout, layers[layer].train), layer, machine))
            _say(f"{rows[-1]}")
    torch.set_num_threads(cores())
    growths = []
    for readout in READOUTS:
        problem = Problem.of(scene, readout, layers[MIDDLE].train)
        growths += growth(problem, compiled=compiler() is not None)
    _say(f"{growths}")
    rounds = memory_of_rounds()
    olds = []
    if not given.without_predecessor:
        olds += old(scene, READOUTS, 3)
        olds += old(Scene.of(224, 160, VALIDATION), READOUTS, 2)
    text = page(rows, olds, growths, rounds, machine, (before, load()))
    publish(text, given.out)


if __name__ == "__main__":
    main()
