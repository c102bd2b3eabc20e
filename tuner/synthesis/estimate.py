"""How long images will take, said before they are made."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from tuner.encoder import Encoder
from tuner.progress import about
from tuner.synthesis import beside, evaluate
from tuner.synthesis.chunks import chunk_size
from tuner.synthesis.evaluate import Images, responses
from tuner.synthesis.mei import Ensemble, MeiSettings
from tuner.synthesis.photometry import Photometry

_TIMED = 8
"""Natural images that looking is timed on."""


def announced(
    encoders: Sequence[Encoder],
    n_units: int,
    settings: MeiSettings,
    *,
    natural: Images | None = None,
    judges: Sequence[Encoder] = (),
) -> str:
    """Say how much work some images are: one step of a batch is timed, and looking at a few natural images.

    Parameters
    ----------
    encoders
        What the images will be made with.
    n_units
        Number of units.
    settings
        How the images will be made.
    natural
        Images among which each unit's best one will be looked for.
    judges
        Encoders that will judge the images, and look for their own best natural ones.

    Returns
    -------
    str
        Such as ``51 images in 26 batches of 2, 200 steps, judged by 4 encoders: about 7 min``.
    """
    ensemble = Ensemble(encoders)
    chunk = settings.chunk or chunk_size(ensemble.image_size, ensemble.device.type)
    images = n_units * settings.variants
    batches = math.ceil(images / chunk)
    seconds = batches * settings.steps * _step(ensemble, chunk)
    if natural is not None and len(natural):
        looked = min(len(natural), beside.MOST) + n_units * (beside.CANDIDATES + 1)
        seconds += looked * _look(encoders, natural, settings.photometry)
    if judges and natural is not None and len(natural):
        seconds += (len(natural) + 3 * images) * _look(judges, natural, settings.photometry)
        # Each judge looks alone at the best candidates inside each unit's field, and at one of them scrambled.
        alone = sum(_look([judge], natural, settings.photometry) for judge in judges)
        seconds += n_units * (evaluate.CANDIDATES + 1) * alone
    some = (
        f"{images} image{'s' * (images != 1)} in {batches} batch{'es' * (batches != 1)} of {chunk}"
    )
    by = f", judged by {len(judges)} encoder{'s' * (len(judges) != 1)}" if judges else ""
    return f"{some}, {settings.steps} steps{by}: {about(seconds)}"


def _look(encoders: Sequence[Encoder], images: Images, photometry: Photometry) -> float:
    """Seconds of one natural image: read, brought to the wanted contrast, and seen by all encoders together.

    The first time also makes ready, and is not counted.
    """
    some = np.arange(min(_TIMED, len(images)))
    spent = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        responses(encoders, photometry.match(images.read(some)))
        spent = time.perf_counter() - begun
    return spent / len(some)


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
