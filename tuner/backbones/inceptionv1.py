"""InceptionV1 as lucent ships it: the TensorFlow network behind Distill's feature visualisations.

It wants x * 255 - 117 for x in [0, 1]. Its layers are the rectified maps after each convolution of
the stem and each concatenation of branches. Padding is heavier on the right and below.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import Source, hub_source
from tuner.backbones.trace import Traced

_MIXED = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
LAYERS = ("conv2d0", "conv2d1", "conv2d2", *(f"mixed{part}" for part in _MIXED))


class InceptionV1(Family):
    """lucent's InceptionV1, with true ReLU gradients."""

    name = "inceptionv1"
    heads = ("softmax2_pre_activation_matmul",)

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        return ("inceptionv1",)

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier."""
        # this module alone: lucent's rendering would bring kornia along
        from lucent.modelzoo.inceptionv1.InceptionV1 import InceptionV1 as Network

        module: nn.Module = Network(pretrained=False, redirected_ReLU=False)
        module.softmax2_pre_activation_matmul = nn.Identity()
        return module

    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""
        from lucent.modelzoo.inceptionv1.InceptionV1 import model_urls

        return hub_source(model_urls["inceptionv1"])

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range."""
        mean, std = 117 / 255, 1 / 255
        return Preprocessing((mean, mean, mean), (std, std, std))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the canonical layers in depth order."""
        return tuple(layer for layer in LAYERS if layer in traced)


FAMILY = InceptionV1()
