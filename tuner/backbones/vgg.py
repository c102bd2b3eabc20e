"""The VGG networks (Simonyan & Zisserman 2015), with every convolution as a layer.

Their activations work in place: what a convolution returns is overwritten by the ReLU after it.
Layers named here are the convolutions themselves, signed, as ``Backbone.features`` returns them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tuner.backbones.family import Family
from tuner.backbones.published import Source, hub_source
from tuner.backbones.torchvision_models import (
    build_without_classifier,
    convolutions,
    published,
)
from tuner.backbones.trace import Traced


class Vgg(Family):
    """VGG networks; ``vgg19`` has the 16 convolutions ``features.0`` to ``features.34``."""

    name = "vgg"
    heads = ("classifier",)

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        return tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier."""
        return build_without_classifier(name, self.heads)

    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""
        return hub_source(published(name).url)

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return every convolution."""
        return tuple(convolutions(module, traced, "features."))


FAMILY = Vgg()
