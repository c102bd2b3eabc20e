"""What a family of networks must say about itself to be a source of backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.backbones.preprocessing import IMAGENET, Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from tuner.backbones.published import Source
    from tuner.backbones.trace import Traced


class Family(ABC):
    """One kind of network: how to build it, what it expects, which of its modules are layers.

    A new family is one file with a subclass, and one line in the registry.
    """

    name: str
    #: first parts of the names of weights that belong to the classifier, which never runs
    heads: tuple[str, ...] = ()

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""

    @abstractmethod
    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier; weights are put in afterwards."""

    @abstractmethod
    def source(self, name: str) -> Source:
        """Say where the ImageNet weights come from."""

    @abstractmethod
    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the canonical layers in depth order, of those that were seen to run."""

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range for weights that are "imagenet", "random" or "file"."""
        return IMAGENET
