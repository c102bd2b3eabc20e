"""The networks of an experiment: loaded with their weights when first asked for, and let go when memory is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuner.errors import InputError

if TYPE_CHECKING:
    import torch

    from studies.config.experiment import Experiment
    from studies.config.keys import BackboneConfig
    from tuner.backbones import Backbone, LayerInfo
    from tuner.readouts.readout import FeatureShape

HELD_BYTES = 2 * 10**9
"""Weights of networks that are held at a time, so that hundreds of networks can be compared; at least one network's."""


class Networks:
    """The ``[[backbone]]`` tables of an experiment as networks, each asked for by its alias.

    Parameters
    ----------
    experiment
        The validated configuration.
    device
        Where networks are to lie.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.experiment = experiment
        self.device = device
        self._loaded: dict[str, Backbone] = {}  # the last used last
        self._digests: dict[str, str] = {}
        self._layers: dict[str, list[LayerInfo]] = {}

    def settings(self, alias: str) -> BackboneConfig:
        """The ``[[backbone]]`` table of an alias."""
        return next(b for b in self.experiment.backbone if b.alias == alias)

    def backbone(self, alias: str) -> Backbone:
        """A backbone, its weights loaded, on the device. Those that were not used for longest are let go."""
        from tuner.backbones import load_backbone
        from tuner.backbones.functions import beside

        if alias not in self._loaded:
            settings = self.settings(alias)
            with (
                self._named(alias),
                beside(self.experiment.folder),
            ):  # where a function of one's own may lie
                loaded = load_backbone(
                    settings.name,
                    settings.weights,
                    seed=self.seed(alias),
                    image_size=self.experiment.data.image_size,
                    mean=settings.mean,
                    std=settings.std,
                    tokens=settings.tokens,
                    rectify=settings.rectify,
                    precision=settings.precision,
                    size=settings.size,
                )
            self._loaded[alias] = loaded.to(self.device)
        self._loaded[alias] = self._loaded.pop(alias)
        while len(self._loaded) > 1 and self._held_bytes > HELD_BYTES:
            del self._loaded[next(iter(self._loaded))]
        return self._loaded[alias]

    @contextmanager
    def _named(self, alias: str) -> Iterator[None]:
        """Say of what is wrong with a backbone which file, and which table of it, says so."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.experiment.file}: backbone {alias}: {error}") from error

    @property
    def _held_bytes(self) -> int:
        return sum(backbone.n_bytes for backbone in self._loaded.values())

    def digest(self, alias: str) -> str:
        """Digest of a backbone, which is loaded for it once."""
        if alias not in self._digests:
            self._digests[alias] = self.backbone(alias).digest
        return self._digests[alias]

    def seed(self, alias: str) -> int:
        """Seed of random weights: that of the search, and the next ones for further draws."""
        return self.experiment.search.seed + self.settings(alias).draw

    def layers(self, alias: str) -> list[LayerInfo]:
        """The wanted layers of a backbone in depth order."""
        if alias not in self._layers:
            size = self.experiment.data.image_size
            backbone = self.backbone(alias)
            self.digest(alias)  # while it is here
            with self._named(alias):
                wanted = backbone.resolve(self.settings(alias).layers, size)
            self._layers[alias] = backbone.describe(wanted, size)
        return self._layers[alias]

    def shapes(self, alias: str) -> dict[str, FeatureShape]:
        """Wanted layer, in depth order, to the shape of its features as they are fitted on."""
        from tuner.features.normalize import pooling
        from tuner.readouts.readout import FeatureShape

        shapes = {}
        for layer in self.layers(alias):
            _, cells = pooling(layer.height, layer.width, self.settings(alias).max_grid)
            shapes[layer.name] = FeatureShape(layer.channels, *cells)
        return shapes
