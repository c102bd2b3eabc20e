"""The reference: random trials by an autograd loop that shares no code with the column trainer.

One trial after another, as somebody would write it today: cached features as they come (not centred), one cut, all steps of
every trial, a validation every :data:`EVERY` steps. It has the readouts, penalties, ranges and schedule of the tool, so that
both search the same problem.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

EVERY = 30
"""Steps between validations."""

STENCIL = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])


@dataclass(frozen=True)
class Data:
    """One layer's features and one region's responses.

    Attributes
    ----------
    fit, validation, test
        ``(n, C, h, w)`` features of the images of each part.
    fit_target, validation_target, test_target
        ``(n, n_units)`` scaled responses; NaN = missing; of the test images the mean over repeats.
    mean_loss
        What validation losses are divided by.
    """

    fit: Tensor
    validation: Tensor
    test: Tensor
    fit_target: Tensor
    validation_target: Tensor
    test_target: Tensor
    mean_loss: float


@dataclass(frozen=True)
class Reference:
    """What the reference reached.

    Attributes
    ----------
    value, test
        Lowest validation loss, and test loss of the trial that has it.
    seconds
        CPU seconds of all its trials.
    macs
        Multiply-adds of features with weights.
    """

    value: float
    test: float
    seconds: float
    macs: float


class _Full(torch.nn.Module):
    def __init__(self, shape: tuple[int, int, int], units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(units, *shape))
        self.bias = torch.nn.Parameter(torch.zeros(units))
        self.scale = 1 / math.sqrt(math.prod(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1) @ self.weight.flatten(1).T + self.bias

    def penalty(self, p: Mapping[str, float]) -> Tensor:
        channels = self.weight.shape[1]
        kernel = STENCIL.expand(channels, 1, 3, 3)
        rough = functional.conv2d(self.weight, kernel, padding=1, groups=channels)
        squares = self.weight.square().sum((2, 3))
        return (
            p["smoothness"] * rough.square().sum()
            + p["group_sparsity"] * (squares + 1e-12).sqrt().sum()
            + p["weight_decay"] * squares.sum()
        )

    def rates(self, rate: float) -> list[dict[str, object]]:
        return [{"params": [self.weight, self.bias], "lr": rate, "at": rate}]

    sparse = property(lambda self: self.weight)

    def after(self) -> None:
        pass


class _Factorized(torch.nn.Module):
    def __init__(self, shape: tuple[int, int, int], units: int, generator: torch.Generator) -> None:
        super().__init__()
        channels, *self.grid = shape
        cells = math.prod(self.grid)
        self.mask = torch.nn.Parameter(torch.full((units, cells), cells**-0.5))
        drawn = torch.randn(units, channels, generator=generator)
        self.features = torch.nn.Parameter(0.01 * drawn)
        self.bias = torch.nn.Parameter(torch.zeros(units))
        self.scale = channels**-0.5

    def unit_mask(self) -> Tensor:
        mask = self.mask.abs()
        return mask / mask.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(2) @ self.unit_mask().T
        return self.scale * (pooled * self.features.T).sum(1) + self.bias

    def penalty(self, p: Mapping[str, float]) -> Tensor:
        maps = self.unit_mask().view(len(self.mask), 1, *self.grid)
        rough = functional.conv2d(maps, STENCIL.view(1, 1, 3, 3), padding=1)
        decay = self.features.square().sum()
        return p["smoothness"] * rough.square().sum() + p["weight_decay"] * decay

    def rates(self, rate: float) -> list[dict[str, object]]:
        slow = rate / math.sqrt(self.mask.shape[1])
        return [
            {"params": [self.mask], "lr": slow, "at": slow},
            {"params": [self.features, self.bias], "lr": rate, "at": rate},
        ]

    sparse = property(lambda self: self.features)

    def after(self) -> None:
        self.mask.div_(self.mask.norm(dim=1, keepdim=True))


MODELS: dict[str, type[_Full] | type[_Factorized]] = {"full": _Full, "factorized": _Factorized}


def loss_of(y: Tensor, target: Tensor) -> float:
    """Mean over units of the mean squared error over valid responses."""
    return float((y.double() - target.double()).square().nanmean(0).nanmean())


def trial(
    data: Data, readout: str, settings: Mapping[str, float], *, steps: int, batch: int, seed: int
) -> tuple[float, float]:
    """Validation loss of one trial at its best validation, and the test loss there."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in data.fit.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    model = MODELS[readout](shape, data.fit_target.shape[1], generator)  # type: ignore[arg-type]
    rate = settings["learning_rate"]
    optimizer = torch.optim.Adam(model.rates(rate), foreach=True)
    best, test = math.inf, math.nan
    order: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for step in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, rng.permutation(len(data.fit))])
        rows, order = torch.from_numpy(order[:batch]), order[batch:]
        factor = max(0.85 ** (step // int(settings["drop"])), min(1.0, 1e-6 / rate))
        for group in optimizer.param_groups:
            group["lr"] = group["at"] * factor
        optimizer.zero_grad()
        target = data.fit_target[rows]
        there = ~target.isnan()
        gaps = torch.where(there, model(data.fit[rows]) - target.nan_to_num(), 0.0).square()
        data_term = (gaps.sum(0) / there.sum(0).clamp_min(1)).sum()
        (data_term + model.penalty(settings)).backward()
        optimizer.step()
        with torch.no_grad():
            second = optimizer.state[model.sparse]["exp_avg_sq"]
            root = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            limit = rate * factor * settings["sparsity"] / root
            model.sparse.sub_(torch.clamp(model.sparse, -limit, limit))
            model.after()
            if (step + 1) % EVERY and step + 1 < steps:
                continue
            value = loss_of(model(data.validation), data.validation_target) / data.mean_loss
            if value < best:
                best = value
                test = loss_of(model(data.test), data.test_target)
    return best, test


def search(
    data: Data, readout: str, drawn: list[dict[str, float]], *, steps: int, batch: int, seed: int
) -> Reference:
    """Run all trials; the best on validation counts."""
    begin = time.process_time()
    found = [
        trial(data, readout, settings, steps=steps, batch=batch, seed=seed + i)
        for i, settings in enumerate(drawn)
    ]
    seconds = time.process_time() - begin
    value, test = min(found)
    weights = data.fit[0].numel() * data.fit_target.shape[1]
    images = 2 * steps * batch + len(data.validation) * -(-steps // EVERY)
    return Reference(value, test, seconds, float(len(drawn)) * weights * images)
