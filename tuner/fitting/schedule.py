"""Which images each step sees, the learning rate at each step, and the steps that are reported."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DECAY = 0.85
FLOOR = 1e-6


class BatchStream:
    """Permuted epochs, one after another, cut into batches of equal size.

    Epoch ``e`` is a permutation drawn from ``(seed, e)``; a batch may span two epochs, so every batch is full. The
    stream depends on nothing else: every study, round and resumption reads the same.

    Parameters
    ----------
    n_images
        Number of fit images.
    batch_size
        Images a step.
    seed
        Seed of the stream.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int) -> None:
        self.n_images = n_images
        self.batch_size = batch_size
        self.seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            if len(self._epochs) > 8:
                self._epochs.clear()
            rng = np.random.default_rng((self.seed, epoch))
            self._epochs[epoch] = rng.permutation(self.n_images)
        return self._epochs[epoch]

    def batch(self, step: int) -> NDArray[np.int64]:
        """Positions of the fit images of ``step`` (from 0), ``(batch_size,)``."""
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        epochs, places = np.divmod(positions, self.n_images)
        out = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._epoch(int(epoch))[places[here]]
        return out


def learning_rates(initial: Tensor, drop: Tensor, step: int) -> Tensor:
    """Learning rate of each column at ``step`` (from 0).

    ``initial * 0.85 ** (step // drop)``, never below ``min(initial, 1e-6)``.

    Parameters
    ----------
    initial, drop
        ``(K,)`` initial learning rates, and steps between drops.
    step
        Steps done so far.
    """
    decayed = initial * DECAY ** torch.div(step, drop, rounding_mode="floor")
    return torch.maximum(decayed, initial.clamp(max=FLOOR))


def report_steps(steps: int, report_every: int) -> tuple[int, ...]:
    """Numbers of steps after which the validation loss is reported; the last step is always one."""
    reports = list(range(report_every, steps + 1, report_every))
    if not reports or reports[-1] != steps:
        reports.append(steps)
    return tuple(reports)
