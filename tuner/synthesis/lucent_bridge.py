"""The only door to lucent: its images, its transforms and its loop, made to behave.

lucent (torch-lucent 0.1.8, the last release, of 2021) warns on import through the kornia it pins,
chooses a GPU for itself whenever one is there, draws from numpy's global generator, turns a
RuntimeError of the model into a warning, swallows Ctrl-C and never removes its hooks. All of that
ends in this module, and no other of this package imports lucent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Transform = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` to images; the same random draw for all of them."""


@lru_cache(maxsize=1)
def lucent() -> SimpleNamespace:
    """Import lucent on first use, without the warnings of its old companions."""
    homes = ("render", "transform", "param.color", "param.cppn", "param.gan", "param.spatial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # by full path: lucent's packages bind functions of the same names over their modules
        modules = {
            home.rpartition(".")[2]: import_module(f"lucent.optvis.{home}") for home in homes
        }
    return SimpleNamespace(**modules)


@contextmanager
def on_device(device: torch.device) -> Iterator[SimpleNamespace]:
    """lucent, with the device that it looks up in its own modules set to ``device``."""
    modules = lucent()
    before = modules.spatial.device, modules.transform.device
    modules.spatial.device = modules.transform.device = device
    try:
        yield modules
    finally:
        modules.spatial.device, modules.transform.device = before


@contextmanager
def numpy_seeded(*key: int) -> Iterator[None]:
    """Seed numpy's global generator, from which lucent draws, and put it back afterwards."""
    state = np.random.get_state()
    np.random.seed(np.random.SeedSequence(key).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(state)


def fourier_image(
    shape: Sequence[int], device: torch.device, decay: float = 1.0
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Build lucent's Fourier image: the spectrum to optimise, and the image it stands for.

    The spectrum ``(B, 3, H, W // 2 + 1, 2)`` is scaled by frequency to the power of minus ``decay``
    (1 is lucent's own); what it starts with is for the caller to set.
    """
    with on_device(device) as modules, torch.random.fork_rng(devices=[]):
        parameters, image = modules.spatial.fft_image(list(shape), decay_power=decay)
    return parameters[0], image


def pixel_image(shape: Sequence[int], device: torch.device) -> tuple[Tensor, Callable[[], Tensor]]:
    """Build lucent's pixel image: the pixels to optimise ``(B, 3, H, W)``, which are the image."""
    with on_device(device) as modules, torch.random.fork_rng(devices=[]):
        parameters, image = modules.spatial.pixel_image(list(shape))
    return parameters[0], image


def colour_matrix() -> Tensor:
    """Return the ``(3, 3)`` colour correlations of natural images: rgb = matrix @ decorrelated."""
    return torch.from_numpy(lucent().color.color_correlation_normalized.copy())


def composite_activation() -> nn.Module:
    """Return the activation of lucent's pattern-producing networks; it doubles the channels."""
    module: nn.Module = lucent().cppn.CompositeActivation()
    return module


def upconvolution(layer: str) -> nn.Module:
    """Lay out the generator that inverts a layer of AlexNet; its weights are to be loaded."""
    gan = lucent().gan
    with torch.device("meta"):
        module: nn.Module = gan.upconvGAN(layer, pretrained=False)
    return module


class _EscapedError(Exception):
    """Carries an exception out of lucent's loop, which would swallow it."""


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (RuntimeError, KeyboardInterrupt) as error:
            raise _EscapedError from error

    return guarded


class _Scored(nn.Module):
    """What lucent sees as the model: one child, whose output is the score of each image.

    The encoder is reached through a closure and not as a sub-module, because lucent hooks every
    sub-module and leaves the hooks there.
    """

    class _Score(nn.Module):
        def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.compute = score

        def forward(self, images: Tensor) -> Tensor:
            return self.compute(images)

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = self._Score(score)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(images)
        return scores


class _Stepper:
    """Stands in for the optimiser in lucent's loop, and sees every step from both sides."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        seed: int,
        after_step: Callable[[int], None],
    ) -> None:
        self.optimizer = optimizer
        self.seed = seed
        self.after_step = after_step
        self.done = 0

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self, closure: Callable[[], Any]) -> None:
        try:
            with numpy_seeded(self.seed, self.done):
                closure()
            self.optimizer.step()
            self.done += 1
            self.after_step(self.done)
        except (RuntimeError, KeyboardInterrupt) as error:
            raise _EscapedError from error


def ascend(
    *,
    score: Callable[[Tensor], Tensor],
    image: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    transforms: Sequence[Transform],
    image_size: int,
    steps: int,
    seed: int,
    after_step: Callable[[int], None],
) -> None:
    """Run lucent's optimisation loop on a batch of images, to the end.

    Parameters
    ----------
    score
        ``(B, 3, S, S)`` images in [0, 1] to ``(B,)``, what each image is to maximise; the loss is
        minus their sum.
    image
        The images that the parameters stand for.
    parameters
        The tensors that are optimised.
    optimizer
        The optimiser of those tensors.
    transforms
        Applied to the images at each step. The numpy draws of step ``t`` depend on ``(seed, t)``
        alone.
    image_size
        What the transformed images are scaled to.
    steps
        Number of steps of gradient ascent.
    seed
        Seed of the transforms that are drawn at each step.
    after_step
        Called with the number of steps done.
    """
    stepper = _Stepper(optimizer, seed, after_step)
    device = parameters[0].device
    try:
        with on_device(device) as modules:
            modules.render.render_vis(
                _Scored(_guarded(score)),
                lambda hook: -hook("score").sum(),
                param_f=lambda: (list(parameters), _guarded(image)),
                optimizer=lambda _: stepper,
                transforms=[_guarded(transform) for transform in transforms],
                thresholds=(steps,),
                verbose=False,
                preprocess=False,
                progress=False,
                show_image=False,
                fixed_image_size=image_size,
            )
    except _EscapedError as escape:
        raise escape.__cause__ or escape from None
    if stepper.done < steps:  # interrupted between two steps, where lucent caught it
        raise KeyboardInterrupt
