"""An experiment opened for work: recording, split, backbones, grid and features, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.cuts import Cuts
from studies.features import Features
from studies.fingerprint import Fingerprint, array_digest, fingerprint
from studies.grid import Spec
from studies.names import StudyKey
from studies.networks import Networks
from tuner.errors import InputError
from tuner.progress import Progress, nobody

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from studies.config.experiment import Experiment
    from tuner.features.cache import FeatureCache
    from tuner.fitting.losses import ResponseScaling
    from tuner.fitting.targets import Targets
    from tuner.recordings import PreparedImages, Recording

LOCATED_IMAGES = 1500
"""Training images below which ``training.start = "auto"`` is the closed form: its time grows with their cube."""

LOCATED_CELLS = 4
"""Cells along a grid's shorter side from which it is: on fewer there is no place to know."""


Scorer = Callable[["Workspace", Spec, "Mapping[str, Tensor]", float, int], Mapping[str, Any]]
"""Given a study, its best weights, their validation loss and the trials that they were chosen from: scores by name."""


class Workspace:
    """What the commands share.

    Parameters
    ----------
    experiment
        The validated configuration.
    progress
        Called with (what, done, total) by whatever takes long; nobody is told where not given.
    """

    def __init__(self, experiment: Experiment, progress: Progress | None = None) -> None:
        self.experiment = experiment
        self.progress = progress or nobody
        self.scorer: Scorer | None = None  # of best trials, once a search has ended
        self._digests: dict[str, str] = {}

    @cached_property
    def device(self) -> torch.device:
        """The device that work runs on."""
        from tuner.fitting.plan import resolve_device

        return resolve_device(self.experiment.training.device)

    @cached_property
    def algebra_device(self) -> str:
        """The device that closed forms are computed on, in double precision, which not every device knows."""
        return "cpu" if self.device.type == "mps" else str(self.device)

    @cached_property
    def networks(self) -> Networks:
        """The networks, loaded when asked for."""
        return Networks(self.experiment, self.device)

    @cached_property
    def features(self) -> Features:
        """What their layers make of the images, extracted when asked for."""
        return Features(
            self.networks,
            self.images,
            self.test_images,
            fitted=self.cuts.fitted,
            cache=self.cache,
            progress=self.progress,
        )

    @cached_property
    def recording(self) -> Recording:
        """The recording, checked."""
        from studies.equal_images import separated
        from studies.recording import open_recording

        opened = open_recording(self.experiment)
        self._check(opened)  # what is wrong with it is said before every image is read
        recording = separated(self.experiment, opened, self.progress)
        return recording if recording is opened else self._check(recording)

    def _check(self, recording: Recording) -> Recording:
        """Refuse responses that cannot be fitted on both sides of every cut."""
        from tuner.recordings import check_responses

        loss, column = self.experiment.training.loss, self.experiment.data.region
        splits = Cuts(self.experiment, recording).splits
        for fold, split in enumerate(splits):
            check_responses(recording, split, loss, column, None if len(splits) == 1 else fold)
        return recording

    @cached_property
    def regions(self) -> dict[str, NDArray[np.int64]]:
        """Region to the indices of its units."""
        return self.recording.regions(self.experiment.data.region)

    @cached_property
    def areas(self) -> dict[str, str] | None:
        """Region to area, where regions are something finer, such as arrays."""
        columns = self.recording.units
        if self.experiment.data.region == "area" or "area" not in columns:
            return None
        return {name: str(columns["area"][units[0]]) for name, units in self.regions.items()}

    @cached_property
    def cuts(self) -> Cuts:
        """Which training images studies are fitted to and judged on."""
        return Cuts(self.experiment, self.recording)

    def start(self, spec: Spec) -> str:
        """What ``training.start`` means for a study: ``closed_form`` or ``readout``."""
        start = self.experiment.training.start
        if start != "auto":
            return start
        few = self.recording.n_train < LOCATED_IMAGES
        wide = min(spec.shape.height, spec.shape.width) >= LOCATED_CELLS
        return "closed_form" if few and wide else "readout"

    @cached_property
    def scoring(self) -> dict[str, Any]:
        """How test scores are computed: what `tuner.scores.score_units` is told besides predictions and responses."""
        data = self.experiment.data
        return {
            "groups": self.recording.test_groups if data.intervals == "groups" else None,
            "drift": data.repeats == "drift",
            "times": self.recording.test_times,
        }

    @cached_property
    def scaling(self) -> ResponseScaling:
        """How responses become targets, from the images that are fitted to."""
        from tuner.fitting.losses import response_scaling

        fit = self.recording.train_responses[self.cuts.fitted]
        return response_scaling(self.experiment.training.loss, fit)

    @cached_property
    def targets(self) -> Targets:
        """Scaled responses of all units."""
        from tuner.fitting.targets import Targets

        scaled = self.scaling.apply(self.recording.train_responses)
        return Targets.of(scaled, self.cuts.splits, self.cuts.halves)

    @property
    def divided_by_mean(self) -> bool:
        """Whether a study's losses are divided by the mean predictor's on the same images.

        Not where that is 1 by construction (with folds the mean is over these very images, and under ``poisson`` the loss of
        the mean does not depend on the images), and not where `training.relative` is off.
        """
        training = self.experiment.training
        return training.relative and training.loss == "mse" and self.cuts.n_folds == 1

    def mean_loss(self, units: NDArray[np.int64]) -> float:
        """Loss of predicting every unit's mean on the held-out images, which a study's losses are divided by.

        1 where they are not, and where no unit varies there.

        Parameters
        ----------
        units
            Indices of the study's units.
        """
        from tuner.fitting.losses import mean_loss

        if not self.divided_by_mean:
            return 1.0
        return mean_loss(self.experiment.training.loss, self.targets.validation[:, units])

    @cached_property
    def images(self) -> PreparedImages:
        """Training images as the backbones see them."""
        return self._prepared("train")

    @cached_property
    def test_images(self) -> PreparedImages | None:
        """Test images as the backbones see them."""
        return None if self.recording.test_images is None else self._prepared("test")

    def _prepared(self, which: Literal["train", "test"]) -> PreparedImages:
        from tuner.recordings import PreparedImages

        source = self.recording.train_images if which == "train" else self.recording.test_images
        assert source is not None
        data = self.experiment.data
        return PreparedImages(source, data.image_size, data.fit)

    def untrained(self, layers: Mapping[str, Sequence[str]]) -> Workspace:
        """The same recording, cut and images under the same networks with random weights, seeded by ``search.seed``.

        Parameters
        ----------
        layers
            Alias to the layers that are wanted of it.
        """
        tables = tuple(
            table.model_copy(update={"weights": "random", "layers": tuple(layers[table.alias])})
            for table in self.experiment.backbone
            if table.alias in layers
        )
        twin = Workspace(self.experiment.model_copy(update={"backbone": tables}), self.progress)
        shared = ("device", "recording", "regions", "cuts", "images", "test_images", "cache")
        for name in shared:  # what was read and decoded once
            setattr(twin, name, getattr(self, name))
        return twin

    @cached_property
    def grid(self) -> list[Spec]:
        """Every study of the experiment, in order of backbone, depth, region and readout."""
        specs = []
        for table in self.experiment.backbone:
            shapes = self.networks.shapes(table.alias)
            for layer in self.networks.layers(table.alias):
                specs += [
                    Spec(
                        StudyKey(table.alias, layer.name, region, readout),
                        layer.index,
                        units,
                        shapes[layer.name],
                        space,
                    )
                    for region, units in self.regions.items()
                    for readout, space in self.experiment.search.space.items()
                ]
        if len({spec.name for spec in specs}) != len(specs):
            raise InputError(f"{self.experiment.file}: two studies have the same name")
        return specs

    @cached_property
    def _split_digest(self) -> str:
        if self.cuts.n_folds > 1:
            return array_digest(self.cuts.folds)
        return array_digest(self.cuts.fitted, self.cuts.held_out)

    def _responses_digest(self, region: str) -> str:
        """Of one region's units; the same for every layer and readout, so taken once."""
        if region not in self._digests:
            units = self.regions[region]
            self._digests[region] = array_digest(units, self.recording.train_responses[:, units])
        return self._digests[region]

    def fingerprint(self, spec: Spec) -> Fingerprint:
        """All that changes the results of a study."""
        return fingerprint(
            self.experiment,
            spec,
            responses=self._responses_digest(spec.key.region),
            images=self.images.digest(),
            split=self._split_digest,
            weights=self.networks.digest(spec.key.backbone),
            max_grid=self.networks.settings(spec.key.backbone).max_grid,
            tokens=self.networks.settings(spec.key.backbone).tokens,
            rectify=self.networks.settings(spec.key.backbone).rectify,
            precision=self.networks.settings(spec.key.backbone).precision,
            folds=self.cuts.n_folds,
            start=self.start(spec),
        )

    @cached_property
    def cache(self) -> FeatureCache:
        """The feature cache on disk."""
        from tuner.features.cache import FeatureCache

        storage = self.experiment.storage
        return FeatureCache(storage.cache, storage.cache_limit)

    @property
    def sights(self) -> Path:
        """Folder in which it is kept where the cells of each layer look."""
        return self.experiment.storage.cache / "sight"
