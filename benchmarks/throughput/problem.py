"""What all contenders train: features of real images, simulated responses, trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tuner
from tuner import readouts
from tuner.backbones import Backbone, load_backbone
from tuner.features.extract import LayerFeatures, extract
from tuner.features.tiers import open_store
from tuner.fitting.columns import Columns
from tuner.fitting.losses import response_scaling
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts.readout import FeatureShape
from tuner.recordings import PreparedImages
from tuner.recordings.recording import Recording

UNITS = 12
"""Units a region, as in the embedded recording."""

TRIALS = 8
BATCH = 50
REPORT_EVERY = 45
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Scene:
    """Images as a backbone sees them, and what the units answered."""

    recording: Recording
    images: PreparedImages
    backbone: Backbone
    validation: int

    @classmethod
    def of(cls, size: int, images: int, validation: int) -> Scene:
        """Crops of photographs at ``size`` pixels and the simulated regions; VGG-19 with seeded random weights."""
        recording = tuner.load_recording(
            None, "simulated", image_size=size, n_train=images, n_test=2, n_repeats=2,
            units_per_region=UNITS,
        )  # fmt: skip
        prepared = PreparedImages(recording.train_images, size, "error")
        return cls(recording, prepared, load_backbone("vgg19", "random"), validation)

    def extract(self, layers: list[str]) -> dict[str, LayerFeatures]:
        """Features of some layers, pooled to at most 28 cells a side."""
        return extract(self.backbone, layers, self.images, None, max_grid=28, cache=None)


@dataclass(frozen=True)
class Problem:
    """One readout on one layer.

    Attributes
    ----------
    half
        ``(n, C, h, w)`` features in half precision; the last ``validation`` images validate.
    targets
        ``(n, units)`` scaled responses.
    regions
        Unit indices of each region.
    trials
        Hyperparameters of the trials, the same for each region.
    """

    readout: str
    half: NDArray[np.float16]
    targets: NDArray[np.float32]
    validation: int
    regions: list[NDArray[np.int64]]
    trials: list[dict[str, float]]

    @classmethod
    def of(cls, scene: Scene, readout: str, half: NDArray[np.float16]) -> Problem:
        """The scene's responses, and eight random settings in the middle of the search ranges."""
        responses = scene.recording.train_responses
        fit = responses[: len(responses) - scene.validation]
        rng = np.random.default_rng(1)
        trials = [
            {name: float(10 ** rng.uniform(-5, -3)) for name in readouts.get(readout).penalties}
            | {
                "learning_rate": float(10 ** rng.uniform(-2.3, -1)),
                "drop": int(rng.integers(20, 60)),
            }
            for _ in range(TRIALS)
        ]
        return cls(
            readout,
            half,
            response_scaling("mse", fit).apply(responses),
            scene.validation,
            list(scene.recording.regions("area").values()),
            trials,
        )

    @property
    def shape(self) -> FeatureShape:
        """Of the features."""
        _, channels, height, width = self.half.shape
        return FeatureShape(channels, height, width)

    @property
    def fit(self) -> int:
        """Number of images that are fitted."""
        return len(self.half) - self.validation

    def trainer(self, *, compiled: bool) -> Trainer:
        """The column trainer."""
        rows = np.arange(len(self.half))
        cut = self.fit
        return Trainer(
            readouts.get(self.readout).kernel(self.shape, CPU, compiled=compiled),
            open_store(self.half, "host", CPU),
            Targets(self.targets[:cut], self.targets[cut:], rows[:cut], rows[cut:], rows[cut:] % 2),
            loss="mse",
            batch_size=BATCH,
            seed=0,
            device=CPU,
        )

    def columns(self, trials: int = TRIALS) -> Columns:
        """So many trials of each region, one region after the other."""
        settings = [self.trials[i % TRIALS] for i in range(trials)]
        units = [group for group in self.regions for _ in range(trials)]
        return Columns.of_trials(settings * len(self.regions), units)

    def batch_rows(self, step: int) -> Tensor:
        """Images of a step, for contenders that loop themselves."""
        return torch.from_numpy(self.trainer(compiled=False).stream.batch(step))
