"""What a prior hands to the loop: tensors to optimise, and the images that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Job:
    """One image to make: a unit (its index in the recording) and which of its variants."""

    unit: int
    variant: int = 0


def _nothing(step: int) -> None:
    """Do what most canvases do between steps."""


@dataclass
class Canvas:
    """Images being optimised.

    Parameters
    ----------
    parameters
        Leaf tensors that require gradients, one row an image.
    image
        The images they stand for, ``(B, 3, size, size)`` in [0, 1]; differentiable.
    optimizer
        Its step descends on the loss; the loop has set the gradients.
    after_step
        Called with the number of steps done: clipping, decay, schedules.
    """

    parameters: list[Tensor]
    image: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    after_step: Callable[[int], None] = field(default=_nothing)


def draw(seed: int, job: Job, shape: Sequence[int]) -> NDArray[np.float32]:
    """Draw standard normal numbers that depend on (seed, unit, variant) alone."""
    generator = np.random.default_rng((seed, job.unit, job.variant))
    return generator.standard_normal(tuple(shape), dtype=np.float32)


class ImagePrior(Protocol):
    """A way to parameterise images."""

    name: str
    learning_rate: float
    """Used where no other is asked for."""

    @property
    def options(self) -> dict[str, Any]:
        """Plain values that make this prior again; what they name is hashed in them."""
        ...

    def start(
        self,
        jobs: Sequence[Job],
        size: int,
        *,
        seed: int,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        device: torch.device,
    ) -> Canvas:
        """Begin images of ``size`` pixels, each from what (seed, unit, variant) alone decide."""
        ...
