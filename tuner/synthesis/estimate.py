"""How long images will take, said before they are made."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from tuner.encoder import Encoder
from tuner.synthesis.chunks import chunk_size
from tuner.synthesis.mei import Ensemble, MeiSettings


def announced(encoders: Sequence[Encoder], n_units: int, settings: MeiSettings) -> str:
    """Say how much work some images are: one step of a batch is timed.

    Parameters
    ----------
    encoders
        What the images will be made with.
    n_units
        Number of units.
    settings
        How the images will be made.

    Returns
    -------
    str
        Such as ``51 images in 26 batches of 2, 200 steps: about 7 min``.
    """
    ensemble = Ensemble(encoders)
    chunk = settings.chunk or chunk_size(ensemble.image_size, ensemble.device.type)
    images = n_units * settings.variants
    batches = math.ceil(images / chunk)
    seconds = batches * settings.steps * _step(ensemble, chunk)
    some = (
        f"{images} image{'s' * (images != 1)} in {batches} batch{'es' * (batches != 1)} of {chunk}"
    )
    return f"{some}, {settings.steps} steps: {about(seconds)}"


def _step(ensemble: Ensemble, chunk: int) -> float:
    """Seconds of a step; the first one also makes ready, and is not counted."""
    side = ensemble.image_size
    images = torch.full((chunk, 3, side, side), 0.5, device=ensemble.device, requires_grad=True)
    rows = torch.zeros(chunk, dtype=torch.long, device=ensemble.device)
    spent = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        (gradient,) = torch.autograd.grad(ensemble.own_drive(images, rows).sum(), images)
        gradient.sum().item()  # waits for the device
        spent = time.perf_counter() - begun
    return spent


def about(seconds: float) -> str:
    """Write a duration as roughly as it is known.

    Examples
    --------
    >>> about(0.4), about(42), about(430), about(9000)
    ('a moment', 'about 40 s', 'about 7 min', 'about 2.5 h')
    """
    if seconds < 5:
        return "a moment"
    if seconds < 90:
        return f"about {round(seconds, -1 if seconds > 15 else 0):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
