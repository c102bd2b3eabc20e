"""Any classification network that torchvision offers, by its name there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import IMAGENET, Preprocessing
from tuner.backbones.published import Source, hub_source
from tuner.backbones.trace import Traced

# their stages hand on tokens (or windows of them), which have no place in the image
_TRANSFORMERS = ("VisionTransformer", "SwinTransformer", "MaxVit")
# converted from TensorFlow: trained on [-1, 1]; torchvision undoes ImageNet's scaling inside them
_CONVERTED = ("googlenet", "inception_v3")


def build_without_classifier(name: str, heads: tuple[str, ...]) -> nn.Module:
    """Build a torchvision network and put nothing in the place of its classifier."""
    from torchvision import models

    options: dict[str, Any] = {}
    if name in _CONVERTED:
        options = {"aux_logits": False, "init_weights": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = models.get_model(name, weights=None, **options)
    for head in heads:
        if isinstance(getattr(module, head, None), nn.Module):
            setattr(module, head, nn.Identity())
    return module


def published(name: str) -> Any:
    """Return torchvision's record of a network's first ImageNet weights, IMAGENET1K_V1 for most."""
    from torchvision import models

    return next(iter(models.get_model_weights(name)))


class TorchvisionModels(Family):
    """torchvision's classification networks."""

    name = "torchvision"
    heads = ("classifier", "fc", "head", "heads", "AuxLogits", "aux1", "aux2")

    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""
        from torchvision import models

        return tuple(models.list_models(module=models))

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier."""
        return build_without_classifier(name, self.heads)

    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""
        return hub_source(published(name).url)

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range."""
        if weights != "imagenet":
            return IMAGENET
        if name in _CONVERTED:
            return Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        transforms = published(name).transforms()
        mean, std = tuple(transforms.mean), tuple(transforms.std)
        return Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return every convolution of a ``features.*`` network, or else the outputs of stages."""
        if type(module).__name__ in _TRANSFORMERS:
            return ()
        if isinstance(getattr(module, "features", None), nn.Module):
            found = convolutions(module, traced, "features.")
        else:
            found = [n for n in stages(module, traced) if _is_layer(traced.get(n))]
        return tuple(sorted(found, key=lambda n: traced[n].order))


def convolutions(module: nn.Module, traced: Mapping[str, Traced], prefix: str) -> list[str]:
    """Return the paths of all convolutions below a prefix that return maps."""
    return [
        name
        for name, child in module.named_modules()
        if name.startswith(prefix) and isinstance(child, nn.Conv2d) and _is_layer(traced.get(name))
    ]


def stages(module: nn.Module, traced: Mapping[str, Traced], prefix: str = "") -> list[str]:
    """Return the paths of the composite parts of a network, one per stage.

    A container whose parts differ in their grids is no stage but a row of them.
    """
    found: list[str] = []
    for name, child in module.named_children():
        path = prefix + name
        parts = [f"{path}.{part}" for part, _ in child.named_children()]
        if not parts:
            continue
        shapes = [traced[p].shape for p in parts if p in traced and traced[p].composite]
        grids = {shape[1:] for shape in shapes if shape is not None}
        if isinstance(child, nn.ModuleList) or (
            isinstance(child, nn.Sequential) and len(grids) > 1
        ):
            found.extend(stages(child, traced, f"{path}."))
        else:
            found.append(path)
    return found


def _is_layer(entry: Traced | None) -> bool:
    # a convolution inside a gate (squeeze and excitation) sees one cell, the mean of the image
    return entry is not None and entry.shape is not None and entry.window is not None


FAMILY = TorchvisionModels()
