"""Trials per second of three ways to train the same trials on the same features, in one run.

``python -m benchmarks.throughput -o TABLE.md``. The contenders:

(a) the predecessor's loop: backbone and validation set at every step, one trial at a time, at 224 px;
(b) what an expert would write today: float32 features in memory, one trial after another, an nn.Module for all units of a
    study, autograd, the faster of fused and foreach Adam, a depthwise conv2d Laplacian, the better of 1 and 2 threads;
(c) the column trainer: all trials of all regions at once, with the fused step in C, and eager.

All use the same hyperparameters, batches, initial weights and update rule (Adam, then soft thresholding in Adam's metric),
without pruning; (b) and (c) are checked to agree in validation loss. Features come from VGG-19 with seeded random weights on
crops of photographs. Medians of paired runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tuner import readouts
from tuner.backbones import load_backbone
from tuner.features.extract import extract
from tuner.fitting.columns import Columns
from tuner.fitting.schedule import DECAY
from tuner.fitting.trainer import Targets, Trainer
from tuner.readouts.native import compiler
from tuner.readouts.penalties import GROUP_EPSILON
from tuner.readouts.readout import ADAM_EPSILON, FeatureShape
from tuner.recordings import PreparedImages
from tuner.recordings.photographs import crops
from tuner.recordings.sources import ArrayImages

LAYERS = ("features.5", "features.19", "features.30")
REGIONS, UNITS, TRIALS, BATCH = 3, 12, 8, 50
IMAGES, VALIDATION = 480, 80
CPU = torch.device("cpu")


class Table:
    """Half-precision features in memory, as the host tier keeps them."""

    def __init__(self, half: NDArray[np.float16]) -> None:
        self.rows = torch.from_numpy(half.reshape(len(half), -1).copy())

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> Tensor:
        """Float32 rows."""
        return self.rows.index_select(0, indices).float()


@dataclass
class Problem:
    """Features, responses and trials of one layer and readout."""

    readout: str
    shape: FeatureShape
    half: NDArray[np.float16]
    targets: NDArray[np.float32]
    trials: list[dict[str, float]]

    def trainer(self, *, compiled: bool) -> Trainer:
        """The column trainer."""
        rows = np.arange(len(self.half))
        cut = len(rows) - VALIDATION
        return Trainer(
            readouts.get(self.readout).kernel(self.shape, CPU, compiled=compiled),
            Table(self.half),
            Targets(self.targets[:cut], self.targets[cut:], rows[:cut], rows[cut:], rows[cut:] % 2),
            loss="mse",
            batch_size=BATCH,
            seed=0,
            device=CPU,
        )

    def columns(self) -> Columns:
        """All trials of all regions."""
        units = [np.arange(r * UNITS, (r + 1) * UNITS) for r in range(REGIONS)]
        pairs = [(trial, group) for group in units for trial in self.trials]
        return Columns.of_trials([p[0] for p in pairs], [p[1] for p in pairs])


def problem(readout: str, shape: FeatureShape, half: NDArray[np.float16]) -> Problem:
    """Responses from sparse random weights plus noise, and eight random settings."""
    rng = np.random.default_rng(1)
    flat = half.reshape(len(half), -1).astype(np.float32)
    chosen = rng.choice(flat.shape[1], 64, replace=False)
    signal = flat[:, chosen] @ rng.standard_normal((64, REGIONS * UNITS)).astype(np.float32)
    targets = (signal - signal.mean(0)) / signal.std(0)
    targets = (targets + 0.5 * rng.standard_normal(targets.shape)).astype(np.float32)
    trials = [
        {name: float(10 ** rng.uniform(-5, -3)) for name in readouts.get(readout).penalties}
        | {"learning_rate": float(10 ** rng.uniform(-2.3, -1)), "drop": int(rng.integers(20, 60))}
        for _ in range(TRIALS)
    ]
    return Problem(readout, shape, half, targets, trials)


class Expert(nn.Module):
    """(b): a readout of all units of a study as a module, its penalties by autograd."""

    def __init__(self, task: Problem, trial: Mapping[str, float], units: NDArray[np.int64]) -> None:
        super().__init__()
        self.readout, self.shape, self.trial = task.readout, task.shape, trial
        kernel = readouts.get(task.readout).kernel(task.shape, CPU)
        start = kernel.initial([int(u) for u in units], 0)
        self.weights = nn.ParameterDict({k: nn.Parameter(v.clone()) for k, v in start.items()})
        stencil = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
        channels = task.shape.channels if task.readout == "full" else len(units)
        self.register_buffer("stencil", stencil.expand(channels, 1, 3, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n)`` responses."""
        shape, w = self.shape, self.weights
        if self.readout == "full":
            return functional.linear(x, w["weight"]) / shape.size**0.5 + w["bias"].T
        mask = w["mask"].abs() / w["mask"].norm(dim=1, keepdim=True)
        pooled = x.view(len(x), shape.channels, shape.cells) @ mask.T
        return (pooled * w["features"].T).sum(1) / shape.channels**0.5 + w["bias"].T

    def penalty(self) -> Tensor:
        """All but the L1 term, summed over units."""
        shape, w, trial = self.shape, self.weights, self.trial
        if self.readout == "full":
            maps = w["weight"].view(-1, shape.channels, shape.height, shape.width)
            rough = functional.conv2d(maps, self.stencil, padding=1, groups=shape.channels)
            groups = (maps.square().sum((2, 3)) + GROUP_EPSILON).sqrt().sum()
            return trial["smoothness"] * rough.square().sum() + trial["group_sparsity"] * groups
        mask = w["mask"].abs() / w["mask"].norm(dim=1, keepdim=True)
        maps = mask.view(1, -1, shape.height, shape.width)
        rough = functional.conv2d(maps, self.stencil, padding=1, groups=maps.shape[1])
        decay = w["features"].square().sum()
        return trial["smoothness"] * rough.square().sum() + trial["weight_decay"] * decay


class ExpertLoop:
    """(b): one trial of one study."""

    def __init__(self, task: Problem, trial: Mapping[str, float], region: int, fused: bool) -> None:
        self.task, self.trial = task, trial
        self.units = np.arange(region * UNITS, (region + 1) * UNITS)
        self.model = Expert(task, trial, self.units)
        rate = trial["learning_rate"]
        groups = []
        for name, value in self.model.weights.items():
            scale = task.shape.cells**-0.5 if name == "mask" else 1.0
            groups.append({"params": [value], "lr": rate * scale, "base": rate * scale})
        self.optimizer = torch.optim.Adam(groups, fused=fused, foreach=not fused)
        self.sparse = self.model.weights["weight" if task.readout == "full" else "features"]
        self.step_count = 0

    def step(self, x: Tensor, target: Tensor) -> None:
        """One optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * DECAY ** (self.step_count // int(self.trial["drop"]))
        loss = (self.model(x) - target).square().mean(0).sum() + self.model.penalty()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step_count += 1
        with torch.no_grad():
            second = self.optimizer.state[self.sparse]["exp_avg_sq"]
            rate = self.trial["learning_rate"] * DECAY ** (
                (self.step_count - 1) // int(self.trial["drop"])
            )
            scale = (second / (1 - 0.999**self.step_count)).sqrt_().add_(ADAM_EPSILON)
            limit = self.trial["sparsity"] * rate / scale
            self.sparse.copy_(functional.relu(self.sparse.abs() - limit) * self.sparse.sign())
            if "mask" in self.model.weights:
                mask = self.model.weights["mask"]
                mask.div_(mask.norm(dim=1, keepdim=True))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def time_expert(task: Problem, steps: int) -> tuple[float, str]:
    """Seconds per trial-step of (b), the best of its variants."""
    features = torch.from_numpy(task.half.reshape(len(task.half), -1)).float()
    targets = torch.from_numpy(task.targets)
    stream = task.trainer(compiled=False).stream
    best = (float("inf"), "")
    for threads in (1, 2):
        for fused in (True, False):
            torch.set_num_threads(threads)
            loop = ExpertLoop(task, task.trials[0], 0, fused)
            batches = [torch.from_numpy(stream.batch(k)) for k in range(steps)]

            def run(loop: ExpertLoop = loop, batches: list[Tensor] = batches) -> None:
                for rows in batches:
                    loop.step(features[rows], targets[rows][:, loop.units])

            run()
            each = seconds(run, 3) / steps
            name = f"{'fused' if fused else 'foreach'}, {threads} threads"
            best = min(best, (each, name))
    torch.set_num_threads(os.cpu_count() or 1)
    return best


def time_columns(task: Problem, compiled: bool, steps: int) -> float:
    """Seconds per trial-step of (c)."""
    trainer = task.trainer(compiled=compiled)
    state = trainer.start(task.columns())
    trainer.advance(state, 0, 2)
    done = 2

    def run() -> None:
        nonlocal done
        trainer.advance(state, done, done + steps)
        done += steps

    return seconds(run, 3) / steps / (REGIONS * TRIALS)


def disagreement(task: Problem, compiled: bool, steps: int = 40) -> float:
    """Largest relative difference in validation loss between (b) and (c), two trials of one region."""
    trainer = task.trainer(compiled=compiled)
    state = trainer.start(task.columns())
    trainer.advance(state, 0, steps)
    loss = trainer.validate(state).sum(1) / VALIDATION
    features = torch.from_numpy(task.half.reshape(len(task.half), -1)).float()
    targets = torch.from_numpy(task.targets)
    cut = len(features) - VALIDATION
    worst = 0.0
    for number in (0, TRIALS - 1):
        loop = ExpertLoop(task, task.trials[number], 0, fused=True)
        for k in range(steps):
            rows = torch.from_numpy(trainer.stream.batch(k))
            loop.step(features[rows], targets[rows][:, loop.units])
        with torch.no_grad():
            error = (loop.model(features[cut:]) - targets[cut:][:, loop.units]).square().mean(0)
        mine = loss[state.columns.trial == number]
        worst = max(worst, float(np.max(np.abs(mine / error.numpy() - 1))))
    return worst


def time_predecessor(readout: str, layer: str) -> tuple[float, float]:
    """Seconds per trial-step of (a) and of (c) at 224 px on one layer.

    A step of (a): a batch of 70 and 100 validation images through the whole network and the readout, and Adam. Two steps
    are timed after one that is not: each is the same work.
    """
    train, _ = crops(170, 1, 224, 0)
    images = PreparedImages(ArrayImages(train.images), 224, "error")
    backbone = load_backbone("vgg19", "random")
    found = extract(backbone, [layer], images, None, max_grid=28, cache=None)[layer]
    shape = FeatureShape(*found.shape)
    repeated = np.concatenate([found.train] * 2)
    task = problem(readout, shape, repeated)
    columns = time_columns(task, compiler() is not None, 3)
    pixels = torch.from_numpy(train.images).permute(0, 3, 1, 2).float() / 255
    loop = ExpertLoop(task, task.trials[0], 0, fused=False)
    targets = torch.from_numpy(task.targets)

    def features(batch: Tensor) -> Tensor:
        with torch.no_grad():
            maps = backbone.features(batch, [layer, backbone.layers[-1]])[layer]
        return found.normalization.apply(maps).flatten(1)

    def step() -> None:
        loop.step(features(pixels[:70]), targets[:70][:, loop.units])
        with torch.no_grad():
            loop.model(features(pixels[70:170]))

    step()
    return seconds(step, 2), columns


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    train, _ = crops(IMAGES, 1, 64, 0)
    images = PreparedImages(ArrayImages(train.images), 64, "error")
    backbone = load_backbone("vgg19", "random")
    layers = extract(backbone, list(LAYERS), images, None, max_grid=28, cache=None)
    lines = []
    for readout in ("full", "factorized"):
        for layer in LAYERS:
            found = layers[layer]
            task = problem(readout, FeatureShape(*found.shape), found.train)
            expert, variant = time_expert(task, given.steps)
            fast = time_columns(task, True, given.steps)
            eager = time_columns(task, False, given.steps)
            apart = disagreement(task, True)
            lines.append(
                f"| {readout} | {layer}, {'x'.join(map(str, found.shape))} | {1e3 * expert:.1f} ({variant}) | "
                f"{1e3 * fast:.2f} | {1e3 * eager:.2f} | {expert / fast:.1f} | {expert / eager:.1f} | "
                f"{1 / fast / 900:.2f} | {apart:.1e} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    old = []
    for readout in ("full", "factorized"):
        slow, fast = time_predecessor(readout, "features.19")
        old.append(
            f"| {readout} | features.19 | {1e3 * slow:.0f} | {1e3 * fast:.2f} | {slow / fast:.0f} |"
        )
        print(old[-1], file=sys.stderr, flush=True)
    text = (
        "# Throughput\n\n"
        f"`python -m benchmarks.throughput`, {time.strftime('%Y-%m-%d')}, {_processor()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, load before {load:.1f}. Not measured on a GPU.\n\n"
        f"{REGIONS} regions of {UNITS} units, {TRIALS} trials a study, batches of {BATCH}, VGG-19 at 64 px; "
        "milliseconds per trial-step\n(one step of one trial of one study), medians.\n\n"
        "| readout | layer | (b) expert | (c) fused | (c) eager | b / c fused | b / c eager | "
        "trials/s of 900 steps, (c) | largest difference in validation loss |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n"
        "At 224 px, as in its code, against the predecessor's loop:\n\n"
        "| readout | layer | (a) predecessor, ms | (c), ms | a / c |\n|---|---|---|---|---|\n"
        + "\n".join(old)
        + "\n"
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(
            line.split(":")[1].strip() for line in text.splitlines() if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
