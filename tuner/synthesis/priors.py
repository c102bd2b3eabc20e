"""Image priors, by name: what is optimised in place of pixels.

A prior gives a *canvas*: tensors to optimise, one row an image, and the images in [0, 1] that they
stand for. A new prior is one class that keeps to :class:`~tuner.synthesis.canvas.ImagePrior`, and
one line in :data:`PRIORS`; the conformance suite of the tests then holds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.errors import InputError, unknown
from tuner.synthesis import generator, lucent_bridge
from tuner.synthesis.ascent import TurningAscent
from tuner.synthesis.canvas import Canvas, ImagePrior, Job, draw

COLOUR = 0.15
"""What served best on simulated units that see no colour; those that do need 1 to 2 (``benchmarks/judges.py``)."""
DECAY = 1.5
"""Of the spectrum with frequency, as a power; lucent's is 1. Fewer patterns that only the network likes."""
ASCENTS = ("turning", "adam")


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
    """What lucent's two plain images share: drawn small, colours decorrelated, squashed.

    Parameters
    ----------
    colour
        Size of the two colour directions against lucent's, which are those of natural images; 0:
        no colour at all.
    ascent
        ``"turning"`` (:class:`~tuner.synthesis.ascent.TurningAscent`) or ``"adam"``, as lucent.
    """

    name: str
    learning_rate: float

    def __init__(self, *, colour: float = COLOUR, ascent: str = "turning") -> None:
        if ascent not in ASCENTS:
            raise unknown("ascent", ascent, ASCENTS, f"prior {self.name}")
        if not (isinstance(colour, int | float) and 0 <= colour < float("inf")):
            raise InputError(f"prior {self.name}: colour = {colour}: must be 0 or more")
        self.colour, self.ascent = float(colour), ascent
        self.learning_rate = 0.05

    @property
    def options(self) -> dict[str, Any]:
        """All that makes this prior again."""
        return {"colour": self.colour, "ascent": self.ascent}

    def build(
        self, shape: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """What is optimised, and the image that it stands for."""
        raise NotImplementedError

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
        values, image = self.build((len(jobs), 3, size, size), device)
        with torch.no_grad():
            for row, job in zip(values, jobs, strict=True):
                row.copy_(torch.from_numpy(draw(seed, job, row.shape) * 0.01))
        matrix = lucent_bridge.colour_matrix()
        matrix[:, 1:] *= self.colour
        matrix = matrix.to(device)
        optimizer: torch.optim.Optimizer
        if self.ascent == "adam":
            optimizer = _adam([values], learning_rate, weight_decay)
        else:
            optimizer = TurningAscent([values], learning_rate, steps, weight_decay=weight_decay)
        return Canvas(
            parameters=[values],
            image=lambda: _to_rgb(image(), matrix),
            optimizer=optimizer,
        )


class FourierPrior(_LucentImage):
    """lucent's Fourier image with decorrelated colours: low frequencies move first.

    Parameters
    ----------
    colour, ascent
        As for the pixel prior.
    decay
        The spectrum is scaled by frequency to the power of minus this; 1 is lucent's.
    """

    name = "fft"

    def __init__(
        self, *, colour: float = COLOUR, ascent: str = "turning", decay: float = DECAY
    ) -> None:
        super().__init__(colour=colour, ascent=ascent)
        if not (isinstance(decay, int | float) and 0 <= decay <= 4):
            raise InputError(f"prior fft: decay = {decay}: must lie between 0 and 4")
        self.decay = float(decay)

    @property
    def options(self) -> dict[str, Any]:
        """All that makes this prior again."""
        return {**super().options, "decay": self.decay}

    def build(
        self, shape: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """A spectrum and its image."""
        return lucent_bridge.fourier_image(shape, device, self.decay)


class PixelPrior(_LucentImage):
    """Plain pixels with decorrelated colours: no preference for any frequency."""

    name = "pixel"

    def build(
        self, shape: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """Pixels."""
        return lucent_bridge.pixel_image(shape, device)


class CppnPrior:
    """One pattern-producing network per image (Mordvintsev et al. 2018): smooth at any size.

    Eight 1x1 convolutions of 24 channels over the pixel coordinates, with lucent's composite
    activation, as in lucent's ``cppn``; there it holds one image, here one per row.
    """

    name = "cppn"
    learning_rate = 0.005
    options: dict[str, Any] = {}  # noqa: RUF012 - none, ever
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


def _from(kind: Callable[..., ImagePrior], *keys: str) -> Callable[[Mapping[str, Any]], ImagePrior]:
    """Make a prior from options of these names."""

    def make(options: Mapping[str, Any]) -> ImagePrior:
        for key in options:
            if key not in keys:
                raise unknown("option", key, keys, f"prior {kind.name}")  # type: ignore[attr-defined]
        return kind(**options)

    return make


PRIORS: dict[str, Callable[[Mapping[str, Any]], ImagePrior]] = {
    "fft": _from(FourierPrior, "colour", "ascent", "decay"),
    "pixel": _from(PixelPrior, "colour", "ascent"),
    "cppn": _from(CppnPrior),
    "generator": generator.from_options,
}
"""Name to what makes the prior from its options."""


def get(name: str, options: Mapping[str, Any] | None = None) -> ImagePrior:
    """Return the prior called ``name``; the same object for the same options.

    Raises
    ------
    InputError
        If there is none, listing those there are, or an option is not one of its own.
    """
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return _made(name, json.dumps(dict(options or {}), sort_keys=True))


@lru_cache(maxsize=4)
def _made(name: str, options: str) -> ImagePrior:
    return PRIORS[name](json.loads(options))
