"""Contender (a): the predecessor's loop, with backbone and validation images at every step, one trial at a time."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.throughput.expert import Trial, Variant
from benchmarks.throughput.problem import BATCH, Problem, Scene
from tuner.features.extract import LayerFeatures
from tuner.fitting.schedule import BatchStream

VALIDATION = 100
"""Images that are run after every step, as there."""


class Predecessor:
    """One trial of the first region.

    Its readout, penalties and update rule are those of the other contenders, so that all agree; what is the
    predecessor's is that the whole convolutional network runs on the batch and on 100 validation images at every step
    (its classifier, under 1 % of the work, is left out).
    """

    def __init__(self, scene: Scene, found: LayerFeatures, problem: Problem) -> None:
        self.scene, self.found = scene, found
        self.layers = [found.layer, scene.backbone.layers[-1]]
        self.units = torch.from_numpy(problem.regions[0])
        self.targets = torch.from_numpy(problem.targets)[:, self.units]
        self.fit = problem.fit
        self.stream = BatchStream(problem.fit, BATCH, 0)
        self.loop = Trial(
            problem, problem.trials[0], problem.regions[0], Variant(0, "foreach", "mask first")
        )
        self.validation = torch.arange(problem.fit, problem.fit + VALIDATION)

    def features(self, rows: Tensor) -> Tensor:
        """Images through the network; the wanted layer normalised, as it is cached elsewhere."""
        pixels = self.scene.images.read(rows.numpy().astype(np.int64))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            maps = self.scene.backbone.features(images, list(dict.fromkeys(self.layers)))
            return self.found.normalization.apply(maps[self.found.layer]).flatten(1)

    def step(self) -> float:
        """One step as the predecessor makes it; the validation loss."""
        rows = torch.from_numpy(self.stream.batch(self.loop.done))
        self.loop.step(self.features(rows), self.targets[rows])
        x = self.features(self.validation)
        with torch.no_grad():
            return float((self.loop.model(x) - self.targets[self.validation]).square().mean())

    def run(self, steps: int) -> tuple[float, float]:
        """Median seconds of a step, and the last validation loss."""
        seconds, loss = [], float("nan")
        for _ in range(steps):
            begin = time.perf_counter()
            loss = self.step()
            seconds.append(time.perf_counter() - begin)
        return float(np.median(seconds)), loss
