"""A network and image sets small enough to extract from in milliseconds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tuner.backbones.backbone import Backbone
from tuner.backbones.family import Family
from tuner.backbones.preprocessing import IMAGENET
from tuner.backbones.published import Source
from tuner.backbones.trace import Traced
from tuner.backbones.weights import initialise


class Tiny(Family):
    """Three convolutions: signed, rectified, signed on a coarser grid."""

    name = "tiny"

    def names(self) -> tuple[str, ...]:
        return ("tiny",)

    def build(self, name: str) -> nn.Module:
        network = nn.Sequential()
        network.add_module("first", nn.Conv2d(3, 6, 3, padding=1))
        network.add_module("relu", nn.ReLU(inplace=True))
        network.add_module("second", nn.Conv2d(6, 8, 3, stride=2, padding=1))
        network.add_module("third", nn.Conv2d(8, 4, 3, stride=2, padding=1))
        return network

    def source(self, name: str) -> Source:
        return Source(Path("tiny.pth"))

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        return ("first", "relu", "second", "third")


def tiny(seed: int = 0) -> Backbone:
    """Return the network with random weights."""
    family = Tiny()
    module = family.build("tiny")
    initialise(module, seed)
    return Backbone("tiny", module, IMAGENET, family)


class Pictures:
    """Random images that count how often they are read."""

    def __init__(self, count: int, size: int = 16, seed: int = 0, delay: float = 0.0) -> None:
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (count, 4, 4, 3)).repeat(size // 4, 1)
        fine = generator.integers(0, 256, (count, size, size, 3))
        self.pixels = ((coarse.repeat(size // 4, 2) + fine) // 2).astype(np.uint8)
        self.size = size
        self.delay = delay
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        time.sleep(self.delay)
        self.reads += [int(index) for index in indices]
        return self.pixels[np.asarray(indices)]

    def digest(self) -> str:
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def raw(backbone: Backbone, pictures: Pictures, layer: str) -> torch.Tensor:
    """Return what a layer returns for all pictures at once."""
    images = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).float() / 255
    return backbone.features(images, [layer])[layer]
