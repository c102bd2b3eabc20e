"""Contender (b): what an expert would write today, one trial after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.throughput.problem import BATCH, CPU, REPORT_EVERY, Problem
from tuner import readouts
from tuner.fitting.schedule import DECAY, FLOOR, BatchStream
from tuner.readouts.penalties import GROUP_EPSILON
from tuner.readouts.readout import ADAM_BETA2, ADAM_EPSILON, FeatureShape

STENCIL = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])


class Full(nn.Module):
    """A dense readout of all units of a region."""

    forms = ("linear",)
    sparse = "weight"

    def __init__(self, start: dict[str, Tensor], shape: FeatureShape, form: str) -> None:
        super().__init__()
        maps = start["weight"].view(-1, shape.channels, shape.height, shape.width)
        self.weight = nn.Parameter(maps.clone())
        self.bias = nn.Parameter(start["bias"][:, 0].clone())
        self.register_buffer("stencil", STENCIL.repeat(shape.channels, 1, 1, 1))
        self.scale = 1 / math.sqrt(shape.size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n)`` responses to ``(B, F)`` features."""
        return torch.addmm(self.bias, x, self.weight.flatten(1).T, alpha=self.scale)

    def penalty(self, trial: dict[str, float]) -> Tensor:
        """All but the L1 term, summed over units."""
        rough = functional.conv2d(self.weight, self.stencil, padding=1, groups=self.weight.shape[1])
        squares = self.weight.square().sum((2, 3))
        groups = trial["group_sparsity"] * (squares + GROUP_EPSILON).sqrt().sum()
        smooth = trial["smoothness"] * rough.square().sum()
        return smooth + groups + trial["weight_decay"] * squares.sum()

    def rates(self, rate: float) -> list[tuple[nn.Parameter, float]]:
        """Learning rate of each parameter."""
        return [(self.weight, rate), (self.bias, rate)]

    def normalize(self) -> None:
        """Nothing is."""


class Factorized(nn.Module):
    """A mask times feature weights for all units of a region."""

    forms = ("mask first", "outer product")
    sparse = "features"

    def __init__(self, start: dict[str, Tensor], shape: FeatureShape, form: str) -> None:
        super().__init__()
        self.mask = nn.Parameter(start["mask"].clone())
        self.features = nn.Parameter(start["features"].clone())
        self.bias = nn.Parameter(start["bias"][:, 0].clone())
        self.register_buffer("stencil", STENCIL.repeat(len(self.bias), 1, 1, 1))
        self.shape, self.form = shape, form
        self.scale = 1 / math.sqrt(shape.channels)

    def unit_mask(self) -> Tensor:
        """The mask, never negative, of unit norm."""
        mask = self.mask.abs()
        return mask / mask.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n)`` responses to ``(B, F)`` features."""
        if self.form == "outer product":
            weight = (self.features[:, :, None] * self.unit_mask()[:, None, :]).flatten(1)
            return torch.addmm(self.bias, x, weight.T, alpha=self.scale)
        pooled = x.view(len(x), self.shape.channels, -1) @ self.unit_mask().T
        return (pooled * self.features.T).sum(1) * self.scale + self.bias

    def penalty(self, trial: dict[str, float]) -> Tensor:
        """All but the L1 term, summed over units."""
        maps = self.unit_mask().view(1, -1, self.shape.height, self.shape.width)
        rough = functional.conv2d(maps, self.stencil, padding=1, groups=maps.shape[1])
        decay = self.features.square().sum()
        return trial["smoothness"] * rough.square().sum() + trial["weight_decay"] * decay

    def rates(self, rate: float) -> list[tuple[nn.Parameter, float]]:
        """Learning rate of each parameter."""
        mask_rate = rate / math.sqrt(self.shape.cells)
        return [(self.mask, mask_rate), (self.features, rate), (self.bias, rate)]

    def normalize(self) -> None:
        """Back to unit norm."""
        self.mask.div_(self.mask.norm(dim=1, keepdim=True))


MODULES: dict[str, type[Full | Factorized]] = {"full": Full, "factorized": Factorized}


@dataclass(frozen=True)
class Variant:
    """How the loop is run; the fastest is taken."""

    threads: int
    adam: str
    form: str

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.adam} Adam, {self.form}, {threads}"


def variants(readout: str, threads: int) -> list[Variant]:
    """All that are tried."""
    return [
        Variant(count, adam, form)
        for count in sorted({1, threads})
        for adam in ("fused", "foreach")
        for form in MODULES[readout].forms
    ]


class Trial:
    """One trial of one region."""

    def __init__(
        self, problem: Problem, trial: dict[str, float], units: NDArray[np.int64], variant: Variant
    ) -> None:
        kernel = readouts.get(problem.readout).kernel(problem.shape, CPU)
        start = kernel.initial([int(unit) for unit in units], 0)
        self.trial = trial
        self.model = MODULES[problem.readout](start, problem.shape, variant.form)
        groups = [
            {"params": [parameter], "lr": rate, "first": rate}
            for parameter, rate in self.model.rates(trial["learning_rate"])
        ]
        chosen = {"fused": True} if variant.adam == "fused" else {"foreach": True}
        self.optimizer = torch.optim.Adam(groups, **chosen)
        self.done = 0

    def step(self, x: Tensor, target: Tensor) -> None:
        """One optimiser step: Adam, then soft thresholding in Adam's metric."""
        rate = self.trial["learning_rate"]
        decayed = max(rate * DECAY ** (self.done // int(self.trial["drop"])), min(rate, FLOOR))
        for group in self.optimizer.param_groups:
            group["lr"] = group["first"] * decayed / rate
        self.optimizer.zero_grad()
        loss = (self.model(x) - target).square().mean(0).sum() + self.model.penalty(self.trial)
        loss.backward()
        self.optimizer.step()
        self.done += 1
        with torch.no_grad():
            sparse = getattr(self.model, self.model.sparse)
            second = self.optimizer.state[sparse]["exp_avg_sq"]
            limit = second.mul(1 / (1 - ADAM_BETA2**self.done)).sqrt_().add_(ADAM_EPSILON)
            limit = limit.reciprocal_().mul_(decayed * self.trial["sparsity"])
            sparse.sub_(torch.clamp(sparse, -limit, limit))
            self.model.normalize()


class Expert:
    """Features as float32 in memory, and the trials one by one."""

    def __init__(self, problem: Problem, variant: Variant) -> None:
        torch.set_num_threads(variant.threads)
        self.problem, self.variant = problem, variant
        flat = problem.half.reshape(len(problem.half), -1)
        self.features = torch.from_numpy(flat.astype(np.float32))
        self.targets = torch.from_numpy(problem.targets)
        self.stream = BatchStream(problem.fit, BATCH, 0)

    def begin(self, trial: int = 0, region: int = 0) -> tuple[Trial, Tensor]:
        """A trial of a region, and the region's targets."""
        units = self.problem.regions[region]
        mine = Trial(self.problem, self.problem.trials[trial], units, self.variant)
        return mine, self.targets[:, torch.from_numpy(units)].contiguous()

    def advance(self, trial: Trial, targets: Tensor, steps: int) -> None:
        """Train on the batches that follow."""
        for step in range(trial.done, trial.done + steps):
            rows = torch.from_numpy(self.stream.batch(step))
            trial.step(self.features.index_select(0, rows), targets.index_select(0, rows))

    def validate(self, trial: Trial, targets: Tensor) -> float:
        """Mean over units of the validation loss."""
        cut = self.problem.fit
        with torch.no_grad():
            return float((trial.model(self.features[cut:]) - targets[cut:]).square().mean())

    def interval(self, trial: Trial, targets: Tensor, steps: int = REPORT_EVERY) -> float:
        """What lies between two reports: so many steps, and a validation."""
        self.advance(trial, targets, steps)
        return self.validate(trial, targets)
