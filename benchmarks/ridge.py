"""For scale: closed-form ridge beside a search. ``python -m benchmarks.ridge -o PAGE.md``.

On the features and responses of ``benchmarks.throughput``: the reference that ``--ridge`` draws, himalaya's random search
(Dupré la Tour et al. 2022; one linear kernel, the same penalties and the same validation images) where it is installed, and
one round of 8 trials of the full readout for the same units.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import cores, describe, publish
from benchmarks.throughput.problem import Problem, Scene
from tuner.closed_form.smooth import PENALTIES, fit_smooth
from tuner.fitting.schedule import report_steps
from tuner.readouts.native.build import compiler

LAYERS = ("features.10", "features.19", "features.30")
STEPS, REPORT_EVERY = 900, 45


@dataclass(frozen=True)
class Row:
    """Seconds for all units, and the mean validation loss; NaN where it was not run."""

    layer: str
    features: int
    contender: str
    seconds: float
    loss: float


def timed(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Least seconds, and what came out."""
    seconds, loss = [], float("nan")
    for _ in range(repeats):
        begin = time.perf_counter()
        loss = run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), loss


def by_reference(problem: Problem) -> float:
    """The reference of ``--ridge``: penalties chosen unit by unit by leave-one-out."""
    rows = np.arange(len(problem.half))
    found = fit_smooth(
        problem.half,
        problem.targets,
        rows[: problem.fit],
        others=rows[problem.fit :],
        widths=[0.0],
    )
    return float(found.other_loss[found.chosen, np.arange(len(found.chosen))].mean())


def by_himalaya(problem: Problem) -> float:
    """Himalaya's random search over penalties, chosen unit by unit; its own validation loss."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    flat = problem.half.reshape(len(problem.half), -1).astype(np.float32)
    center = flat[: problem.fit].mean(0)
    flat -= center
    length = float(np.square(flat[: problem.fit]).sum(1).mean())
    rows = np.arange(len(flat))
    split = [(rows[: problem.fit], rows[problem.fit :])]
    model = MultipleKernelRidgeCV(
        kernels=["linear"],
        solver="random_search",
        solver_params={
            "n_iter": 1,
            "alphas": length * np.array(PENALTIES),
            "progress_bar": False,
            "n_targets_batch": None,
        },
        cv=split,
        random_state=0,
    )
    model.fit(flat, problem.targets)
    return float(
        -model.cv_scores_.max(0).mean()
    )  # minus the squared error on the validation images


def by_columns(problem: Problem) -> float:
    """One round of the full readout; the mean over units of the best trial's loss."""
    trainer = problem.trainer(compiled=compiler() is not None)
    state = trainer.start(problem.columns())
    counts = trainer.validation_counts[state.columns.unit].sum(1)
    best = np.full(len(state), np.inf)
    before = 0
    for step in report_steps(STEPS, REPORT_EVERY):
        trainer.advance(state, before, step)
        best = np.minimum(best, trainer.validate(state).sum(1) / counts)
        before = step
    lowest = [best[state.columns.trial == t].mean() for t in np.unique(state.columns.trial)]
    per_region = np.array(lowest).reshape(len(problem.regions), -1).min(1)
    return float(per_region.mean())


def measure() -> list[Row]:
    """All contenders at three sizes of layer."""
    scene = Scene.of(64, 480, 100)
    layers = scene.extract(list(LAYERS))
    contenders: list[tuple[str, Callable[[Problem], float], int]] = [
        ("closed-form ridge", by_reference, 3)
    ]
    try:
        import himalaya  # noqa: F401

        contenders.append(("himalaya, random search", by_himalaya, 3))
    except ImportError:
        print("himalaya is not installed: pip install himalaya", file=sys.stderr)
    contenders.append(("full readout, a round of 8 trials", by_columns, 1))
    out = []
    for layer in LAYERS:
        problem = Problem.of(scene, "full", layers[layer].train)
        for name, run, repeats in contenders:
            seconds, loss = timed(lambda: run(problem), repeats)  # noqa: B023
            out.append(Row(layer, problem.shape.size, name, seconds, loss))
            print(out[-1], file=sys.stderr, flush=True)
    return out


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="Ridge beside a search.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(cores())
    lines = [
        "# Ridge, for scale",
        "",
        describe("python -m benchmarks.ridge"),
        "",
        "The features and responses of [throughput](throughput.md): 380 images to fit, 100 to validate, three "
        f"regions of 12 units.\nRidge tries {len(PENALTIES)} penalties a unit: by leave-one-out in the reference, on the "
        "validation images in himalaya.\nA search of 50 trials is six to seven rounds, and pruning spares some "
        "of it. Validation "
        "loss: mean over units; 1 is predicting the mean.",
        "",
        "| layer | features | | seconds | validation loss |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.layer} | {r.features:,} | {r.contender} | {r.seconds:.2f} | {r.loss:.3f} |"
        for r in measure()
    ]
    text = "\n".join(lines) + "\n"
    publish(text, given.out)


if __name__ == "__main__":
    main()
