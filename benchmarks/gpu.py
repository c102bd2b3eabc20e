"""The full-size search on one accelerator, layer by layer: how fast a step is, and how long all 42,000 trials would take.

``python -m benchmarks.gpu -o PAGE.md`` runs on any CUDA machine with torch and this repository in a few minutes; it needs no
data and no weights: features, responses and hyperparameters are random, shapes are those of VGG-19 and InceptionV1 at 224
pixels, pooled to at most 28 cells a side. ``--device cpu --quick`` runs the same code on a few columns, as a test of itself.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import publish
from studies.search.forecast import SURVIVING, SURVIVING_RUNGS
from tuner import readouts
from tuner.fitting.columns import Columns
from tuner.fitting.plan import column_bytes, compiler_there, fixed_bytes, resolve_memory
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts.readout import FeatureShape

VGG19 = {
    "features.0": (64, 28),
    "features.2": (64, 28),
    "features.5": (128, 28),
    "features.7": (128, 28),
    **dict.fromkeys(("features.10", "features.12", "features.14", "features.16"), (256, 28)),
    **dict.fromkeys(("features.19", "features.21", "features.23", "features.25"), (512, 28)),
    **dict.fromkeys(("features.28", "features.30", "features.32", "features.34"), (512, 14)),
}
"""Channels and side of the pooled maps at 224 pixels."""

INCEPTIONV1 = {
    "conv2d0": (64, 28),
    "conv2d1": (64, 28),
    "conv2d2": (192, 28),
    "mixed3a": (256, 28),
    "mixed3b": (480, 28),
    "mixed4a": (508, 14),
    "mixed4b": (512, 14),
    "mixed4c": (512, 14),
    "mixed4d": (528, 14),
    "mixed4e": (832, 14),
    "mixed5a": (832, 7),
    "mixed5b": (1024, 7),
}

UNITS, TRIALS_AT_ONCE, TRIALS, STEPS, REPORTS = 667, 8, 50, 900, 20
ARRAYS, BATCH, VALIDATION = 15, 50, 2225


@dataclass(frozen=True)
class Measured:
    """One readout at one shape.

    Attributes
    ----------
    columns
        How many were trained at once: all of a round, or as many as the memory holds.
    step, check
        Seconds of a step, and of a validation image, of all these columns.
    bandwidth_share
        What must be moved at least, 24 bytes a parameter, in that time, over what a copy moves.
    planned, peak
        Bytes; peak is 0 where it is not known.
    """

    readout: str
    shape: FeatureShape
    columns: int
    step: float
    check: float
    bandwidth_share: float
    planned: int
    peak: int

    def seconds(self) -> float:
        """Of all trials of one layer, none pruned."""
        each = self.step * STEPS + self.check * VALIDATION * REPORTS
        return each / self.columns * UNITS * TRIALS


class Noise:
    """Random features on the device, half precision, as the device tier keeps them."""

    def __init__(self, images: int, size: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        some = torch.randn(min(images, 64), size, generator=generator).relu_().half()
        self.rows = some.repeat(-(-images // len(some)), 1)[:images].to(device)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> Tensor:
        """Float32 rows."""
        return self.rows.index_select(0, indices.to(self.rows.device)).float()


def wait(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def bandwidth(device: torch.device, quick: bool) -> float:
    """Bytes a second that a large copy reads and writes."""
    a = torch.ones(1 << (22 if quick else 28), device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    return 8 * a.numel() / timed(lambda: b.copy_(a), device, 7)


def measure(
    readout: str, shape: FeatureShape, device: torch.device, rate: float, quick: bool
) -> Measured:
    """Train random columns for some steps; fewer columns where memory does not suffice."""
    kind = readouts.get(readout)
    compiled = compiler_there(device)
    images = 64 if quick else 512
    kernel = kind.kernel(shape, device, compiled=compiled)
    each = column_bytes(kernel, BATCH)
    fixed = fixed_bytes(shape, BATCH, device) + 2 * images * shape.size
    wanted = (1 if quick else UNITS) * TRIALS_AT_ONCE
    room = (resolve_memory("auto", device) - fixed) // each
    columns = min(wanted, max(TRIALS_AT_ONCE, room // TRIALS_AT_ONCE * TRIALS_AT_ONCE))
    while True:
        try:
            return _measure(readout, shape, device, rate, quick, int(columns), images, each, fixed)
        except torch.OutOfMemoryError:
            columns //= 2
            if columns < TRIALS_AT_ONCE:
                raise
        torch.cuda.empty_cache()


def _measure(
    readout: str,
    shape: FeatureShape,
    device: torch.device,
    rate: float,
    quick: bool,
    columns: int,
    images: int,
    each: int,
    fixed: int,
) -> Measured:
    kind = readouts.get(readout)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    rng = np.random.default_rng(0)
    units = columns // TRIALS_AT_ONCE
    responses = rng.standard_normal((images, units), dtype=np.float32)
    rows, cut = np.arange(images), images // 2
    trainer = Trainer(
        kind.kernel(shape, device, compiled=compiler_there(device)),
        Noise(images, shape.size, device),
        Targets(responses[:cut], responses[cut:], rows[:cut], rows[cut:], rows[cut:] % 2),
        loss="mse",
        batch_size=min(BATCH, cut),
        seed=0,
        device=device,
    )
    trials = [
        dict.fromkeys(kind.penalties, 1e-4) | {"learning_rate": 0.01 * (i + 1), "drop": 70.0}
        for i in range(TRIALS_AT_ONCE)
    ]
    state = trainer.start(Columns.of_trials(trials, [np.arange(units)] * TRIALS_AT_ONCE))
    trainer.advance(state, 0, 2)  # what is compiled is compiled here
    trainer.validate(state)
    state.remember(np.arange(len(state)))
    done, span, repeats = 2, 2 if quick else 5, 2 if quick else 5

    def steps() -> None:
        nonlocal done
        trainer.advance(state, done, done + span)
        done += span

    step = timed(steps, device, repeats) / span
    check = timed(lambda: trainer.validate(state), device, repeats) / (images - cut)
    parameters = sum(value[:1].numel() for value in state.parameters.values())
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    share = 24 * parameters * columns / step / rate
    return Measured(readout, shape, columns, step, check, share, columns * each + fixed, peak)


def nearest(measured: list[Measured], readout: str, shape: FeatureShape) -> tuple[Measured, float]:
    """What was measured at the size closest to a shape, and how many times its size the shape has."""
    mine = [m for m in measured if m.readout == readout]
    best = min(mine, key=lambda m: abs(np.log(m.shape.size / shape.size)))
    return best, shape.size / best.shape.size


def page(measured: list[Measured], name: str, rate: float, quick: bool) -> str:
    """All of it as Markdown."""
    note = " A test of the code on a few columns, not a measurement." if quick else ""
    lines = [
        "# One accelerator",
        "",
        f"`python -m benchmarks.gpu`, {time.strftime('%Y-%m-%d')}: {name}, Python {platform.python_version()}, "
        f"torch {torch.__version__}.{note}",
        "",
        f"{UNITS} units, {TRIALS_AT_ONCE} trials at once, batches of {BATCH}, random features and responses; VGG-19 "
        f"at 224 pixels, at most 28\ncells a side. A copy moves {rate / 1e9:,.0f} GB/s; the share is of what must be "
        "moved at least (24 bytes a parameter and step).\nTrial-steps are of a study of an average array "
        f"({UNITS / ARRAYS:.0f} units).",
        "",
        "| readout | layers | shape | columns | ms a step | trial-steps/s | share of bandwidth | planned GB | peak GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shapes = Counter(VGG19.values())
    for m in measured:
        s = m.shape
        trial_steps = m.columns / m.step / (UNITS / ARRAYS)
        peak = f"{m.peak / 1e9:.2f}" if m.peak else ""
        lines.append(
            f"| {m.readout} | {shapes[s.channels, s.height]} | {s.channels}x{s.height}x{s.width} | {m.columns:,} | "
            f"{1e3 * m.step:.2f} | {trial_steps:,.0f} | {100 * m.bandwidth_share:.0f} % | {m.planned / 1e9:.2f} | {peak} |"
        )
    if not quick:
        lines += search(measured)
    return "\n".join(lines) + "\n"


def search(measured: list[Measured]) -> list[str]:
    """How long all trials would take, layer by layer."""
    lines = [
        "",
        f"## All trials: 28 layers, {ARRAYS} arrays, 2 readouts, {TRIALS} trials of {STEPS} steps",
        "",
        "InceptionV1's layers are taken from the nearest measured size, in proportion. Extraction of the features is not "
        "in it.",
        "",
        "| backbone | layer | full, h | factorized, h |",
        "|---|---|---|---|",
    ]
    total = 0.0
    for backbone, layers in (("vgg19", VGG19), ("inceptionv1", INCEPTIONV1)):
        for layer, (channels, side) in layers.items():
            hours = []
            for readout in ("full", "factorized"):
                m, times = nearest(measured, readout, FeatureShape(channels, side, side))
                hours.append(m.seconds() * times / 3600)
            total += sum(hours)
            lines.append(f"| {backbone} | {layer} | {hours[0]:.3f} | {hours[1]:.3f} |")
    count = (len(VGG19) + len(INCEPTIONV1)) * ARRAYS * 2 * TRIALS
    lines += [
        "",
        f"All {count:,} trials: {total:.1f} h if none were pruned, about {SURVIVING_RUNGS.value * total:.1f} h with the "
        f"median rule at rungs, the default, and {SURVIVING.value * total:.1f} h at every report.",
    ]
    return lines


def main() -> None:
    """Measure every shape and write the page."""
    parser = argparse.ArgumentParser(description="The full-size search on one accelerator.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few columns: tests the code")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: there is none; use --device cpu --quick to test the code")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    rate = bandwidth(device, given.quick)
    measured = []
    for readout in ("full", "factorized"):
        for channels, side in dict.fromkeys(VGG19.values()):
            if given.quick and channels * side * side > 60_000:
                continue
            shape = FeatureShape(channels, side, side)
            measured.append(measure(readout, shape, device, rate, given.quick))
            print(measured[-1], file=sys.stderr, flush=True)
    text = page(measured, name, rate, given.quick)
    publish(text, given.out)


if __name__ == "__main__":
    main()
