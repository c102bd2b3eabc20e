"""A frozen network as a source of feature maps: its layers, its input range, the part that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.trace import Traced, trace
from tuner.backbones.weights import state_digest
from tuner.errors import InputError, unknown

T = TypeVar("T")

REFERENCE_SIZE = 224  # px; where nothing else is asked for, layers are looked up at this size


@dataclass(frozen=True)
class LayerInfo:
    """What a layer returns for an image of a given size, before any pooling.

    Attributes
    ----------
    name
        Module path.
    index
        Position in depth order among the backbone's canonical layers (and any others asked for).
    channels, height, width
        Shape of the map.
    receptive_field, stride
        Side of what a cell sees, and distance between neighbouring cells, px. Gates that look at
        the whole image to scale channels (squeeze and excitation) are not counted.
    offset
        Centre of the receptive field of cell 0, px, where pixel i has its centre at i; x and y
        alike. Padding on one side only is accounted for.
    rectified
        True where the layer cannot return values below 0.
    macs
        Multiply-adds from the image up to and including this layer, per image.
    """

    name: str
    index: int
    channels: int
    height: int
    width: int
    receptive_field: int
    stride: int
    offset: float
    rectified: bool
    macs: int


class _Enough(BaseException):
    """Ends a forward pass at the deepest layer that is wanted; no network may handle it."""


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Keep a GPU from rounding convolutions to 10 bits, and from timing its way to an algorithm."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


class Backbone:
    """A pretrained network, frozen, that turns images into feature maps.

    Parameters
    ----------
    name
        What the network is called in a configuration.
    module
        The network, taking preprocessed images (B, 3, H, W).
    preprocessing
        The input range it was trained with.
    family
        What kind of network it is: says which of its modules are its layers.

    Attributes
    ----------
    digest
        Hash of the architecture, the preprocessing and every weight: equal digests, equal features.
    layers
        The canonical layers in depth order.
    """

    def __init__(
        self, name: str, module: nn.Module, preprocessing: Preprocessing, family: Family
    ) -> None:
        self.name = name
        self.module = module.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self._family = family
        self._mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self._parts = {path: part for path, part in module.named_modules() if path}
        self._traces: dict[int, dict[str, Traced]] = {}
        self.digest = state_digest(self._identity, module.state_dict())
        self.layers: tuple[str, ...] = family.canonical(name, module, self._trace(REFERENCE_SIZE))

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, digest={self.digest[:8]}, {len(self.layers)} layers)"

    @property
    def _identity(self) -> str:
        return f"1 {self.name} {self.preprocessing.mean} {self.preprocessing.std}"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.module.parameters()), self._mean.device)

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights to a device; returns the same backbone."""
        self.module.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def preprocess(self, images: Tensor) -> Tensor:
        """Bring images (B, 3, H, W) in [0, 1] into the range that the network was trained with."""
        return (images - self._mean) / self._std

    # -- which layers -------------------------------------------------------------------------

    def resolve(
        self, layers: Sequence[str] | Literal["all"], image_size: int = REFERENCE_SIZE
    ) -> tuple[str, ...]:
        """Return the wanted layers in depth order.

        Parameters
        ----------
        layers
            Module paths, or "all" for the canonical list.
        image_size
            Side of the images, px.

        Raises
        ------
        InputError
            For a name that does not exist (lists the valid ones), a layer that returns no map of
            the image, one that runs several times per image, or one that an image of this size
            does not reach.
        """
        if isinstance(layers, str):
            if layers != "all":
                raise InputError(
                    f'backbone {self.name}: layers is {layers!r}; it must be "all" or a list of '
                    f"names: {', '.join(self.layers)}"
                )
            if not self.layers:
                raise InputError(
                    f"backbone {self.name}: its stages return tokens, not maps (channels, height, "
                    "width) of the image; transformers cannot be fitted, choose a convolutional "
                    "network"
                )
            layers = self.layers
        if not layers:
            raise InputError(
                f"backbone {self.name}: no layers are named; valid: {', '.join(self.layers)}"
            )
        seen: set[str] = set()
        for layer in layers:
            if layer in seen:
                raise InputError(f"backbone {self.name}: layer {layer!r} is named twice")
            seen.add(layer)
        traced = self._trace(image_size)
        checked = [self._check(layer, traced, image_size) for layer in layers]
        return tuple(entry.name for entry in sorted(checked, key=lambda entry: entry.order))

    def rectified(self, layer: str) -> bool:
        """Tell whether a layer cannot return values below 0, as after a ReLU."""
        return self._check(layer, self._trace(REFERENCE_SIZE), REFERENCE_SIZE).nonnegative

    def describe(
        self, layers: Sequence[str] | Literal["all"], image_size: int = REFERENCE_SIZE
    ) -> list[LayerInfo]:
        """Describe layers, in depth order, for images of a given size (px).

        Raises
        ------
        InputError
            As ``resolve`` does.
        """
        traced = self._trace(image_size)
        wanted = self.resolve(layers, image_size)
        ranked = {traced[name].order for name in (*self.layers, *wanted) if name in traced}
        position = {order: index for index, order in enumerate(sorted(ranked))}
        return [self._info(traced[name], position, image_size) for name in wanted]

    def _info(self, entry: Traced, position: Mapping[int, int], size: int) -> LayerInfo:
        assert entry.shape is not None
        channels, height, width = entry.shape
        window = entry.window
        if window is None:
            field, stride, offset = size, max(1, size // width), (size - 1) / 2
        else:
            field = max(window.high[a] - window.low[a] + 1 for a in (0, 1))
            stride = max(window.stride)
            offset = (window.low[1] + window.high[1]) / 2
        return LayerInfo(
            name=entry.name,
            index=position[entry.order],
            channels=channels,
            height=height,
            width=width,
            receptive_field=field,
            stride=stride,
            offset=offset,
            rectified=entry.nonnegative,
            macs=entry.macs,
        )

    def _trace(self, image_size: int) -> dict[str, Traced]:
        if image_size not in self._traces:
            self._traces[image_size] = trace(self.module, image_size)
        return self._traces[image_size]

    def _check(self, layer: str, traced: Mapping[str, Traced], image_size: int) -> Traced:
        if layer not in self._parts:
            close = get_close_matches(layer, self._parts, n=5)
            names = dict.fromkeys((*self.layers, *close))
            if not self.layers:
                raise InputError(
                    f"backbone {self.name}: unknown layer {layer!r}; its stages return tokens, which "
                    "are not supported; choose a convolutional network"
                    + (f" (similar names: {', '.join(close)})" if close else "")
                )
            raise unknown("layer", layer, names, f"backbone {self.name}")
        entry = traced.get(layer)
        if entry is None:
            needed = self._trace(REFERENCE_SIZE).get(layer)
            if needed is not None and image_size < REFERENCE_SIZE:
                raise InputError(
                    f"backbone {self.name}: images of {image_size} px are too small for layer "
                    f"{layer!r}; raise image_size or name a shallower layer"
                )
            raise InputError(
                f"backbone {self.name}: layer {layer!r} does not run on images of {image_size} "
                f"px; valid: {', '.join(self.layers)}"
            )
        if entry.calls > 1:
            raise InputError(
                f"backbone {self.name}: layer {layer!r} runs {entry.calls} times per image, so "
                f"its output is ambiguous; valid: {', '.join(self.layers)}"
            )
        if entry.shape is None:
            raise InputError(
                f"backbone {self.name}: layer {layer!r} returns tokens or a vector, not a map "
                "(channels, height, width) of the image; only maps can be fitted"
                + (f"; valid: {', '.join(self.layers)}" if self.layers else "")
            )
        return entry

    # -- what they return ---------------------------------------------------------------------

    def features(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return what each layer's module returns, before anything downstream overwrites it.

        Only the part of the network up to the deepest of the layers runs. Gradients flow back to
        the images.

        Parameters
        ----------
        images
            (B, 3, H, W), float, in [0, 1], on the backbone's device.
        layers
            Module paths.

        Returns
        -------
        dict
            Layer to (B, C, h, w), in the order asked for.
        """
        return self.capture(images, layers, lambda _layer, output: output.clone())

    def capture(
        self, images: Tensor, layers: Sequence[str], keep: Callable[[str, Tensor], T]
    ) -> dict[str, T]:
        """Run up to the deepest layer and keep what ``keep(layer, output)`` makes of each output.

        ``keep`` sees an output at the moment its module returns it. It must not hold on to the tensor
        itself, which the next module may overwrite (VGG's activations work in place).
        """
        self._check_images(images)
        wanted = dict.fromkeys(layers)
        kept: dict[str, T] = {}

        def hook(layer: str) -> Callable[[nn.Module, object, Tensor], None]:
            def returned(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                kept[layer] = keep(layer, output)
                if len(kept) == len(wanted):
                    raise _Enough

            return returned

        traced = self._trace(REFERENCE_SIZE)
        modules = {
            layer: self._parts[self._check(layer, traced, REFERENCE_SIZE).name] for layer in wanted
        }
        self._freeze()
        prepared = self.preprocess(images)
        handles = [m.register_forward_hook(hook(layer)) for layer, m in modules.items()]
        try:
            if modules:
                with _exact(prepared.device):
                    self.module(prepared)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return {layer: kept[layer] for layer in wanted}

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(
                f"backbone {self.name}: images must be float (batch, 3, height, width) in [0, 1], "
                f"not {images.dtype} of shape {tuple(images.shape)}"
            )

    def _freeze(self) -> None:
        # someone's .train() on a model that holds this one would switch on dropped connections
        # and let batch statistics drift
        for child in self.module.modules():
            if child.training:
                child.training = False

    # -- the part that runs -------------------------------------------------------------------

    def truncated_state(self, layer: str) -> dict[str, Tensor]:
        """Return the weights of the modules that run up to a layer, and the preprocessing.

        The entries ``preprocessing.mean`` and ``preprocessing.std`` stand beside the network's own
        names; ``load_truncated`` takes the dict back.
        """
        entry = self._check(layer, self._trace(REFERENCE_SIZE), REFERENCE_SIZE)
        run = set(trace(self.module, REFERENCE_SIZE, upto=[entry.name]))
        parts = entry.name.split(".")
        run |= {".".join(parts[:depth]) for depth in range(len(parts))}  # those it lies in
        state = {
            name: value
            for name, value in self.module.state_dict().items()
            if name.rpartition(".")[0] in run
        }
        for key in ("mean", "std"):
            numbers = getattr(self.preprocessing, key)
            state[f"preprocessing.{key}"] = torch.tensor(numbers, dtype=torch.float64)
        return state

    def digest_upto(self, layer: str) -> str:
        """Return the hash of what determines one layer's features, whatever lies above it."""
        return state_digest(f"1 {self.name} {layer}", self.truncated_state(layer))
