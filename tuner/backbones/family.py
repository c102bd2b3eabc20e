"""What a family of networks must say about itself to be a source of backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.backbones.preprocessing import IMAGENET, Preprocessing
from tuner.backbones.published import fetch
from tuner.backbones.tokens import Tokens
from tuner.backbones.weights import initialise
from tuner.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tuner.backbones.published import Source
    from tuner.backbones.tokens import Keep
    from tuner.backbones.trace import Traced

REFERENCE_SIZE = 224  # px; where nothing else is asked for, layers are looked up at this size


class Family(ABC):
    """One kind of network: how to build it, what it expects, which of its modules are layers.

    A new family is one file with a subclass, and one line in the registry.
    """

    name: str
    #: first parts of the names of weights that belong to the classifier, which never runs
    heads: tuple[str, ...] = ()
    #: whether it can be built without storage, all that it computes with being in its state dict
    storage_free = True

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names that a configuration may use."""

    def knows(self, name: str) -> bool:
        """Tell whether a name is one of this family's, also one that is too many to be listed."""
        return name in self.names()

    @abstractmethod
    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier; weights are put in afterwards."""

    def build_for(self, name: str, image_size: int | None) -> nn.Module:
        """Build it for images of a size, px, where it is built for one size; None for its own."""
        return self.build(name)

    @abstractmethod
    def source(self, name: str) -> Source | None:
        """Say where the published weights come from; None for a network without any."""

    @abstractmethod
    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the canonical layers in depth order, of those that were seen to run."""

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range for weights that are "imagenet", "random" or "file"."""
        return IMAGENET

    def fetch(self, name: str) -> Path:
        """Return the file of the published weights, downloading it where it is not here."""
        source = self.source(name)
        if source is None:
            raise InputError(f"backbone {name}: it has no published weights")
        return fetch(source, name)

    def described(self, name: str, path: Path) -> Preprocessing | None:
        """Return the input range that lies beside a weights file, in the form that the family's library writes; or None."""
        return None

    def adapt(self, name: str, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring weights as they are published or saved into the form of the network."""
        return state

    def initialise(self, module: nn.Module, seed: int) -> None:
        """Draw random weights."""
        initialise(module, seed)

    def identity(self, module: nn.Module) -> str:
        """Return what tells the network from others of its name and weights, for its digest."""
        return ""

    def tokens(self, name: str, module: nn.Module, keep: Keep) -> Tokens | None:
        """Say what is known of a network's tokens; None where it has none."""
        return None if keep == "grid" else Tokens(keep=keep)

    def only_size(self, name: str, module: nn.Module) -> int | None:
        """Return the side of the only images that the network takes, px; None where it takes any."""
        return None

    def reference_size(self, name: str) -> int:
        """Return the side of the images at which layers are looked up where nothing is said, px."""
        return REFERENCE_SIZE

    def check_size(self, name: str, module: nn.Module, image_size: int) -> None:  # noqa: B027 - most take any
        """Refuse a size of images that the network would crop or cannot take, naming the nearest that it takes."""
