"""Features of an experiment's layers: brought into the cache, verified, and laid where training reads them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tuner.errors import EnvironmentFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from studies.networks import Networks
    from tuner.features.cache import FeatureCache
    from tuner.features.extract import LayerFeatures
    from tuner.features.normalize import Normalization
    from tuner.features.tiers import FeatureStore, Tier
    from tuner.progress import Progress
    from tuner.readouts.readout import FeatureShape
    from tuner.recordings import PreparedImages

_log = logging.getLogger("tuner")


class Features:
    """What the layers of an experiment's networks make of the recording's images.

    Parameters
    ----------
    networks
        The experiment's networks.
    images, test_images
        The recording's images, as the networks see them.
    fitted
        Indices of the training images that are fitted to.
    cache
        Where features are kept.
    progress
        Told how far an extraction is.
    """

    def __init__(
        self,
        networks: Networks,
        images: PreparedImages,
        test_images: PreparedImages | None,
        *,
        fitted: NDArray[np.int64],
        cache: FeatureCache,
        progress: Progress,
    ) -> None:
        self.networks = networks
        self.images = images
        self.test_images = test_images
        self.fitted = fitted
        self.cache = cache
        self.progress = progress
        self.device = networks.device
        self._experiment = networks.experiment
        self._at_hand: dict[tuple[str, str], LayerFeatures] = {}
        self._centers: dict[tuple[str, str], Tensor] = {}

    def of(self, alias: str, layer: str) -> LayerFeatures:
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
            del found, self._at_hand[alias, layer]  # what is in use is not removed
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
        if (alias, layer) not in self._at_hand:
            layers = self._together(alias, layer)
            if len(layers) == 1:
                # The cache does not hold all of them, and keeps none that is still in use from being replaced.
                self._at_hand.clear()
            self.extract(alias, layers)
        return self._at_hand[alias, layer]

    def store(self, alias: str, layer: str, memory: int) -> FeatureStore:
        """Training features of a layer in the fastest tier that ``memory`` bytes for training leave room for."""
        from tuner.features.computed import ComputedFeatures
        from tuner.features.tiers import open_store

        features = self.of(alias, layer)
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

        if not self._experiment.training.center:
            return None
        if (alias, layer) not in self._centers:
            shape = FeatureShape(*store.shape)
            self._centers[alias, layer] = feature_mean(store, self.fitted, shape)
        return self._centers[alias, layer]

    def cached_bytes(self, shape: FeatureShape) -> int:
        """What a layer's features of all images take on disk."""
        n_test = 0 if self.test_images is None else len(self.test_images)
        return 2 * (len(self.images) + n_test) * shape.size

    def tier(self, shape: FeatureShape, memory: int) -> Tier:
        """Where features of a shape are kept while they are trained on; a layer bigger than the cache may be: nowhere."""
        if not self.cache.holds(self.cached_bytes(shape)):
            return "recompute"
        return self._tier(2 * len(self.images) * shape.size, memory)

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

    def held_bytes(self, shape: FeatureShape, memory: int) -> int:
        """Bytes of a layer's training features that lie in the memory that training may take."""
        tier = self.tier(shape, memory)
        there = tier == "device" or (tier == "host" and self.device.type == "cpu")
        return 2 * len(self.images) * shape.size if there else 0

    def _together(self, alias: str, layer: str) -> list[str]:
        shapes = self.networks.shapes(alias)
        together = sum(self.cached_bytes(shape) for shape in shapes.values())
        return list(shapes) if together <= self.together_bytes else [layer]

    @property
    def together_bytes(self) -> float:
        """Bytes of features of a backbone up to which all its layers are extracted in one sweep."""
        return 0.9 * self._experiment.storage.cache_limit

    def extract(self, alias: str, layers: list[str]) -> None:
        """Bring features of these layers into the cache."""
        from tuner.features.extract import extract

        found = extract(
            self.networks.backbone(alias),
            layers,
            self.images,
            self.test_images,
            max_grid=self.networks.settings(alias).max_grid,
            cache=self.cache,
            device=self.device,
            progress=self.progress,
            called=alias,
        )
        for layer, features in found.items():
            self._at_hand[alias, layer] = features
