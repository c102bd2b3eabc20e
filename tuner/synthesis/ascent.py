"""Optimisers of images. Each row of a parameter is an image of its own and never meets another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LAST_RATE = 1e-10


def per_row(values: Tensor, rows: Tensor) -> Tensor:
    """Shape ``(B,)`` values so that they multiply rows."""
    return values.view(-1, *[1] * (rows.ndim - 1))


def mean_normalised(gradient: Tensor) -> Tensor:
    """Divide each row by its mean absolute value; a gradient of 0 stays 0."""
    size = gradient.abs().flatten(1).mean(1)
    return gradient / per_row(size.clamp_min(torch.finfo(gradient.dtype).tiny), gradient)


class FallingAscent(torch.optim.Optimizer):
    """Steps of mean-normalised gradient whose length falls linearly to almost nothing.

    As published for generator codes (Nguyen et al. 2016).

    Parameters
    ----------
    parameters
        What to optimise, one row an image.
    learning_rate
        Mean absolute change of a code unit in the first step.
    steps
        Number of steps over which it falls.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, steps: int) -> None:
        super().__init__(parameters, {"lr": learning_rate})
        self.steps = steps
        self.done = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step down the loss."""
        for group in self.param_groups:
            first = group["lr"]
            rate = first + (LAST_RATE - first) * min(self.done / self.steps, 1.0)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(rate * mean_normalised(parameter.grad))
        self.done += 1


class TurningAscent(torch.optim.Optimizer):
    """Momentum on unit gradients, in steps that are a share of the parameter's own length.

    Where mean and contrast are fixed, only the direction of a spectrum counts, and this turns it
    by about the learning rate at each step, less and less. Unlike Adam it leaves the coefficients
    their relative sizes: what the parameterisation holds to be rare in natural images (high
    frequencies, colour) stays rare, and the image does not fill with patterns that only the network
    likes.

    Parameters
    ----------
    parameters
        What to optimise, one row an image.
    learning_rate
        Share of its length that a row moves in the first step.
    steps
        In how many steps the share falls to 0, linearly.
    momentum
        Weight of what was before in the running mean of gradients.
    weight_decay
        Of the parameters, per step, relative to the learning rate.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        learning_rate: float,
        steps: int,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        )
        self.steps = steps
        self.done = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step down the loss."""
        for group in self.param_groups:
            rate = group["lr"] * (1 - min(self.done / self.steps, 1.0))
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                length = parameter.grad.flatten(1).norm(dim=1)
                tiny = torch.finfo(parameter.dtype).tiny
                unit = parameter.grad / per_row(length.clamp_min(tiny), parameter)
                state = self.state[parameter]
                before = state.get("mean")
                keep = group["momentum"]
                state["mean"] = unit if before is None else keep * before + (1 - keep) * unit
                own = parameter.flatten(1).norm(dim=1).clamp_min(1.0)
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(per_row(rate * own, parameter) * state["mean"])
        self.done += 1
