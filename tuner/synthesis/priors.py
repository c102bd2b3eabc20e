"""Image priors, by name: what is optimised in place of pixels.

A prior gives a *canvas*: tensors to optimise, one row an image, and the images in [0, 1] that they
stand for. A new prior is one class with ``name``, ``learning_rate`` and ``start``, and one line in
:data:`PRIORS`; the conformance suite of the tests then holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.errors import unknown
from tuner.synthesis import lucent_bridge


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


class ImagePrior(Protocol):
    """A way to parameterise images."""

    name: str
    learning_rate: float
    """Used where no other is asked for."""

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


def draw(seed: int, job: Job, shape: Sequence[int]) -> NDArray[np.float32]:
    """Draw standard normal numbers that depend on (seed, unit, variant) alone."""
    generator = np.random.default_rng((seed, job.unit, job.variant))
    return generator.standard_normal(tuple(shape), dtype=np.float32)


def _adam(
    parameters: list[Tensor], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay)


def _to_rgb(decorrelated: Tensor, matrix: Tensor) -> Tensor:
    """Correlate colours as in natural images, then squash to [0, 1] (lucent's ``to_valid_rgb``)."""
    # a sum of three products and no matrix product: bits do not depend on the size of the batch
    mixed = sum(
        decorrelated[:, k : k + 1] * matrix[:, k].view(1, 3, 1, 1) for k in range(matrix.shape[1])
    )
    return torch.sigmoid(torch.as_tensor(mixed))


class _LucentImage:
    """What lucent's two plain images share: drawn small, colours decorrelated, squashed."""

    name: str
    learning_rate = 0.05
    _build: Callable[[Sequence[int], torch.device], tuple[Tensor, Callable[[], Tensor]]]

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
        """Begin with small normal numbers, as lucent does."""
        values, image = type(self)._build((len(jobs), 3, size, size), device)
        with torch.no_grad():
            for row, job in zip(values, jobs, strict=True):
                row.copy_(torch.from_numpy(draw(seed, job, row.shape) * 0.01))
        matrix = lucent_bridge.colour_matrix().to(device)
        return Canvas(
            parameters=[values],
            image=lambda: _to_rgb(image(), matrix),
            optimizer=_adam([values], learning_rate, weight_decay),
        )


class FourierPrior(_LucentImage):
    """lucent's Fourier image with decorrelated colours: low frequencies move first."""

    name = "fft"
    _build = staticmethod(lucent_bridge.fourier_image)


class PixelPrior(_LucentImage):
    """Plain pixels with decorrelated colours: no preference at all."""

    name = "pixel"
    _build = staticmethod(lucent_bridge.pixel_image)


class CppnPrior:
    """One pattern-producing network per image (Mordvintsev et al. 2018): smooth at any size.

    Eight 1x1 convolutions of 24 channels over the pixel coordinates, with lucent's composite
    activation, as in lucent's ``cppn``; there it holds one image, here one per row.
    """

    name = "cppn"
    learning_rate = 0.005
    hidden, depth = 24, 8

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
        """Begin; the last layer starts at 0, as lucent's does, so every image from flat grey."""
        widths = [2, *[self.hidden] * (self.depth - 1), 3]
        fans = [widths[0], *(2 * width for width in widths[1:-1])]
        sizes = [(out, fan) for out, fan in zip(widths[1:], fans, strict=True)]
        total = sum(out * fan for out, fan in sizes)
        drawn = torch.from_numpy(np.stack([draw(seed, job, (total,)) for job in jobs])).to(device)
        parameters: list[Tensor] = []
        for (out, fan), block in zip(
            sizes, torch.split(drawn, [out * fan for out, fan in sizes], dim=1), strict=True
        ):
            weight = block.reshape(len(jobs), out, fan) / fan**0.5
            parameters += [weight, torch.zeros(len(jobs), out, 1, device=device)]
        parameters[-2] = torch.zeros_like(parameters[-2])
        for parameter in parameters:
            parameter.requires_grad_(True)
        axis = torch.linspace(-(3**0.5), 3**0.5, size, device=device)
        x, y = axis.expand(size, size), axis[:, None].expand(size, size)
        grid = torch.stack([x, y]).reshape(2, -1)
        activation = lucent_bridge.composite_activation()

        def image() -> Tensor:
            pictures = []
            # one image at a time: a batched matrix product would round by batch size
            for row in range(len(jobs)):
                hidden = grid
                for k in range(self.depth):
                    hidden = parameters[2 * k][row] @ hidden + parameters[2 * k + 1][row]
                    if k < self.depth - 1:
                        hidden = activation(hidden[None])[0]
                pictures.append(torch.sigmoid(hidden).view(3, size, size))
            return torch.stack(pictures)

        return Canvas(parameters, image, _adam(parameters, learning_rate, weight_decay))


PRIORS: dict[str, ImagePrior] = {
    prior.name: prior for prior in (FourierPrior(), PixelPrior(), CppnPrior())
}


def get(name: str) -> ImagePrior:
    """Return the prior called ``name``.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return PRIORS[name]
