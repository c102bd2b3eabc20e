"""An experiment opened for work: recording, split, backbones, grid and features, each made when first asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.cuts import Cuts
from studies.fingerprint import Fingerprint, array_digest, fingerprint
from studies.grid import Spec
from studies.names import StudyKey
from tuner.errors import EnvironmentFailure, InputError
from tuner.progress import Progress, nobody

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from studies.config.experiment import Experiment
    from studies.config.keys import BackboneConfig
    from tuner.backbones import Backbone, LayerInfo
    from tuner.features.cache import FeatureCache
    from tuner.features.extract import LayerFeatures
    from tuner.features.normalize import Normalization
    from tuner.features.tiers import FeatureStore, Tier
    from tuner.fitting.losses import ResponseScaling
    from tuner.fitting.targets import Targets
    from tuner.readouts.readout import FeatureShape
    from tuner.recordings import PreparedImages, Recording

_log = logging.getLogger("tuner")


LOCATED_IMAGES = 1500
"""Training images below which ``training.start = "auto"`` is the closed form: its time grows with their cube."""

LOCATED_CELLS = 4
"""Cells along a grid's shorter side from which it is: on fewer there is no place to know."""

HELD_BYTES = 2 * 10**9
"""Weights of networks that are held at a time, so that hundreds of networks can be compared; at least one network's."""


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
        self._backbones: dict[str, Backbone] = {}  # the last used last
        self._weights: dict[str, str] = {}
        self._layers: dict[str, list[LayerInfo]] = {}
        self._digests: dict[str, str] = {}
        self._features: dict[tuple[str, str], LayerFeatures] = {}
        self._centers: dict[tuple[str, str], Tensor] = {}

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

    def settings(self, alias: str) -> BackboneConfig:
        """The ``[[backbone]]`` table of an alias."""
        return next(b for b in self.experiment.backbone if b.alias == alias)

    def backbone(self, alias: str) -> Backbone:
        """A backbone, its weights loaded, on the device. Those that were not used for longest are let go."""
        from tuner.backbones import load_backbone
        from tuner.backbones.functions import beside

        if alias not in self._backbones:
            settings = self.settings(alias)
            with (
                self._named(alias),
                beside(self.experiment.folder),
            ):  # where a function of one's own may lie
                loaded = load_backbone(
                    settings.name,
                    settings.weights,
                    seed=self.weights_seed(alias),
                    image_size=self.experiment.data.image_size,
                    mean=settings.mean,
                    std=settings.std,
                    tokens=settings.tokens,
                    rectify=settings.rectify,
                    precision=settings.precision,
                    size=settings.size,
                )
            self._backbones[alias] = loaded.to(self.device)
        self._backbones[alias] = self._backbones.pop(alias)
        while len(self._backbones) > 1 and self._held_bytes > HELD_BYTES:
            del self._backbones[next(iter(self._backbones))]
        return self._backbones[alias]

    @contextmanager
    def _named(self, alias: str) -> Iterator[None]:
        """Say of what is wrong with a backbone which file, and which table of it, says so."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.experiment.file}: backbone {alias}: {error}") from error

    @property
    def _held_bytes(self) -> int:
        return sum(backbone.n_bytes for backbone in self._backbones.values())

    def weights_digest(self, alias: str) -> str:
        """Digest of a backbone, which is loaded for it once."""
        if alias not in self._weights:
            self._weights[alias] = self.backbone(alias).digest
        return self._weights[alias]

    def weights_seed(self, alias: str) -> int:
        """Seed of random weights: that of the search, and the next ones for further draws."""
        return self.experiment.search.seed + self.settings(alias).draw

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

    def layers(self, alias: str) -> list[LayerInfo]:
        """The wanted layers of a backbone in depth order."""
        if alias not in self._layers:
            size = self.experiment.data.image_size
            backbone = self.backbone(alias)
            self.weights_digest(alias)  # while it is here
            with self._named(alias):
                wanted = backbone.resolve(self.settings(alias).layers, size)
            self._layers[alias] = backbone.describe(wanted, size)
        return self._layers[alias]

    @cached_property
    def grid(self) -> list[Spec]:
        """Every study of the experiment, in order of backbone, depth, region and readout."""
        from tuner.features.normalize import pooling
        from tuner.readouts.readout import FeatureShape

        specs = []
        for settings in self.experiment.backbone:
            for layer in self.layers(settings.alias):
                _, (height, width) = pooling(layer.height, layer.width, settings.max_grid)
                shape = FeatureShape(layer.channels, height, width)
                specs += [
                    Spec(
                        StudyKey(settings.alias, layer.name, region, readout),
                        layer.index,
                        units,
                        shape,
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
            weights=self.weights_digest(spec.key.backbone),
            max_grid=self.settings(spec.key.backbone).max_grid,
            tokens=self.settings(spec.key.backbone).tokens,
            rectify=self.settings(spec.key.backbone).rectify,
            precision=self.settings(spec.key.backbone).precision,
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

    def features(self, alias: str, layer: str) -> LayerFeatures:
        """Cached features of a layer, each read through and compared with its checksums once in this process.

        All wanted layers of the backbone come from one sweep where the cache holds them.
        """
        found = self._cached(alias, layer)
        problem = self.cache.verify_once(found.key)
        if problem is not None:
            _log.warning(
                "features of %s/%s in %s are damaged (%s); they are extracted again",
                alias,
                layer,
                self.cache.folder,
                problem,
            )
            key = found.key
            del found, self._features[alias, layer]  # what is in use is not removed
            if not self.cache.remove(key):
                raise EnvironmentFailure(
                    f"storage.cache: features of {alias}/{layer} in {self.cache.folder} are damaged and "
                    "another process reads them; stop it and run the command again"
                )
            found = self._cached(alias, layer)
            if self.cache.verify_once(found.key) is not None:
                raise EnvironmentFailure(
                    f"storage.cache: features of {alias}/{layer} in {self.cache.folder} are damaged as "
                    "soon as they are written; check the disk and the memory of this machine"
                )
        return found

    def normalization(self, alias: str, layer: str) -> Normalization:
        """How features of a layer come from what it returns; the features themselves are not read."""
        return self._cached(alias, layer).normalization

    def _cached(self, alias: str, layer: str) -> LayerFeatures:
        if (alias, layer) not in self._features:
            layers = self._together(alias, layer)
            if len(layers) == 1:
                # The cache does not hold all of them, and keeps none that is still in use from being replaced.
                self._features.clear()
            self.extract(alias, layers)
        return self._features[alias, layer]

    def store(self, alias: str, layer: str, memory: int) -> FeatureStore:
        """Training features of a layer in the fastest tier that ``memory`` bytes for training leave room for."""
        from tuner.features.computed import ComputedFeatures
        from tuner.features.tiers import open_store

        features = self.features(alias, layer)
        if isinstance(features.train, ComputedFeatures):
            return features.train.store
        tier = self._tier(features.train.nbytes, memory)
        assert tier != "recompute"
        return open_store(features.train, tier, self.device)

    def center(self, alias: str, layer: str, store: FeatureStore) -> Tensor | None:
        """Mean of a layer's features over the images that are fitted to, ``(F,)``, where ``training.center`` asks for it.

        Parameters
        ----------
        store
            The layer's training features, as :meth:`store` has them.
        """
        from tuner.fitting.center import feature_mean
        from tuner.readouts.readout import FeatureShape

        if not self.experiment.training.center:
            return None
        if (alias, layer) not in self._centers:
            shape = FeatureShape(*store.shape)
            self._centers[alias, layer] = feature_mean(store, self.cuts.fitted, shape)
        return self._centers[alias, layer]

    def cached_bytes(self, shape: FeatureShape) -> int:
        """What a layer's features of all images take on disk."""
        return 2 * (self.recording.n_train + self.recording.n_test) * shape.size

    def tier(self, shape: FeatureShape, memory: int) -> Tier:
        """Where features of a shape are kept while they are trained on; a layer bigger than the cache may be: nowhere."""
        if not self.cache.holds(self.cached_bytes(shape)):
            return "recompute"
        return self._tier(2 * self.recording.n_train * shape.size, memory)

    def _tier(self, size: int, memory: int) -> Tier:
        """Where features that the cache holds are kept: in at most 0.4 of the memory for training, else on disk.

        A mapped file is read through the operating system's own cache, which gives way when memory is short.
        """
        import psutil

        from tuner.features.tiers import choose_tier

        share = int(0.4 * memory)
        accelerator = self.device.type != "cpu"
        return choose_tier(
            size,
            device_bytes=share,
            host_bytes=int(0.4 * psutil.virtual_memory().total) if accelerator else share,
            disk_bytes=size,
            accelerator=accelerator,
        )

    def held_features(self, shape: FeatureShape, memory: int) -> int:
        """Bytes of a layer's training features that lie in the memory that training may take."""
        tier = self.tier(shape, memory)
        there = tier == "device" or (tier == "host" and self.device.type == "cpu")
        return 2 * self.recording.n_train * shape.size if there else 0

    def _together(self, alias: str, layer: str) -> list[str]:
        wanted = [spec for spec in self.grid if spec.key.backbone == alias]
        shapes = {spec.key.layer: spec.shape for spec in wanted}
        together = sum(self.cached_bytes(shape) for shape in shapes.values())
        return list(shapes) if together <= self.extracted_together else [layer]

    @property
    def extracted_together(self) -> float:
        """Bytes of features of a backbone up to which all its layers are extracted in one sweep."""
        return 0.9 * self.experiment.storage.cache_limit

    def extract(self, alias: str, layers: list[str]) -> None:
        """Bring features of these layers into the cache."""
        from tuner.features.extract import extract

        found = extract(
            self.backbone(alias),
            layers,
            self.images,
            self.test_images,
            max_grid=self.settings(alias).max_grid,
            cache=self.cache,
            device=self.device,
            progress=self.progress,
            called=alias,
        )
        for layer, features in found.items():
            self._features[alias, layer] = features
