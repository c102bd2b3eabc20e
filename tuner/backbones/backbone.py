"""A frozen network as a source of feature maps: its layers, its input range, the part that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from tuner.backbones.family import Family
from tuner.backbones.precision import FULL, Precision, computing
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.tokens import MAP, Arrangement, Keep
from tuner.backbones.trace import Traced, trace
from tuner.backbones.weights import state_digest
from tuner.errors import InputError, unknown
from tuner.exact import exact

T = TypeVar("T")
Rectify = Literal["auto"] | bool


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
    whole_image
        True where every cell sees the whole image, as after attention; ``receptive_field`` is then the
        image's side and ``offset`` its middle. :func:`tuner.backbones.sight.measure` says where it looks.
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
    whole_image: bool = False


class _Enough(BaseException):
    """Ends a forward pass at the deepest layer that is wanted; no network may handle it."""


def _within(parts: Sequence[str]) -> list[str]:
    """Return the paths of the modules that a module lies in, given the parts of its own."""
    return [".".join(parts[:depth]) for depth in range(len(parts))]


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
    keep
        What becomes of a transformer's tokens: those of the patches are laid out as a grid, or the class
        token alone is taken.
    rectify
        Which layers are centred and rectified before they are read: "auto", those that can return values below
        0, while others are only scaled; True, all; False, none, signed ones are centred and keep their sign.
    precision
        What the network computes in; what its layers return is float32 in any case.
    size
        Side of the only images that it takes, px, where its family does not know of it.

    Attributes
    ----------
    digest
        Hash of the architecture, the preprocessing and every weight: equal digests, equal features.
    layers
        The canonical layers in depth order.
    size
        Side of the only images that it takes, px; None where it takes any.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        preprocessing: Preprocessing,
        family: Family,
        *,
        keep: Keep = "grid",
        rectify: Rectify = "auto",
        precision: Precision = FULL,
        size: int | None = None,
    ) -> None:
        self.name = name
        self.module = module.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self._family = family
        self._mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self._parts = {path: part for path, part in module.named_modules() if path}
        self._traces: dict[int, dict[str, Traced]] = {}
        self.keep, self.rectify, self.precision = keep, rectify, precision
        self._tokens = family.tokens(name, module, keep)
        self.size = size or family.only_size(name, module)
        self.reference = self.size or family.reference_size(name)
        self.digest = state_digest(self._identity, module.state_dict())
        self.layers: tuple[str, ...] = family.canonical(name, module, self._trace(self.reference))

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, digest={self.digest[:8]}, {len(self.layers)} layers)"

    @property
    def _identity(self) -> str:
        return f"1 {self.name} {self.preprocessing.mean} {self.preprocessing.std}{self._how}" + (
            self._family.identity(self.module)
        )

    @property
    def _how(self) -> str:
        """What features depend on besides, left away where it is as it always was."""
        kept = "" if self.keep == "grid" else f" {self.keep}"
        return kept + ("" if self.precision == FULL else f" {self.precision}")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.module.parameters()), self._mean.device)

    @property
    def n_bytes(self) -> int:
        """Bytes of its weights."""
        return sum(t.numel() * t.element_size() for t in self.module.state_dict().values())

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
        self, layers: Sequence[str] | Literal["all"], image_size: int | None = None
    ) -> tuple[str, ...]:
        """Return the wanted layers in depth order.

        Parameters
        ----------
        layers
            Module paths, or "all" for the canonical list.
        image_size
            Side of the images, px; where not given, that of the images it takes, or 224.

        Raises
        ------
        InputError
            For a name that does not exist (lists the valid ones), a layer that returns no map of
            the image, one that runs several times per image, or one that an image of this size
            does not reach.
        """
        image_size = image_size or self.reference
        if isinstance(layers, str):
            if layers != "all":
                raise InputError(
                    f'backbone {self.name}: layers is {layers!r}; it must be "all" or a list of '
                    f"names: {', '.join(self.layers)}"
                )
            if not self.layers:
                raise InputError(self._no_layers())
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
        return self._check(layer, self._trace(self.reference), self.reference).nonnegative

    def describe(
        self, layers: Sequence[str] | Literal["all"], image_size: int | None = None
    ) -> list[LayerInfo]:
        """Describe layers, in depth order, for images of a given size (px), as in ``resolve``.

        Raises
        ------
        InputError
            As ``resolve`` does.
        """
        image_size = image_size or self.reference
        traced = self._trace(image_size)
        wanted = self.resolve(layers, image_size)
        position = self._positions(wanted, traced)
        return [self._info(traced[name], position, image_size) for name in wanted]

    def last_index(self, layers: Sequence[str], image_size: int) -> int:
        """Return the index, as ``describe`` counts, of the deepest of the canonical layers and those asked for."""
        return len(self._positions(layers, self._trace(image_size))) - 1

    def _positions(self, wanted: Sequence[str], traced: Mapping[str, Traced]) -> dict[int, int]:
        """Return the place in depth of each layer that counts, by when it returned."""
        ranked = {traced[name].order for name in (*self.layers, *wanted) if name in traced}
        return {order: index for index, order in enumerate(sorted(ranked))}

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
            whole_image=window is None,
        )

    def _trace(self, image_size: int) -> dict[str, Traced]:
        if image_size not in self._traces:
            if self.size not in (None, image_size):
                raise InputError(
                    f"backbone {self.name}: it was built for images of {self.size} px, not of "
                    f"{image_size} px; load it for that image_size"
                )
            self._family.check_size(self.name, self.module, image_size)
            self._traces[image_size] = trace(self.module, image_size, tokens=self._tokens)
        return self._traces[image_size]

    def _check(self, layer: str, traced: Mapping[str, Traced], image_size: int) -> Traced:
        if layer not in self._parts:
            close = get_close_matches(layer, self._parts, n=5)
            names = dict.fromkeys((*self.layers, *close))
            if not self.layers:
                raise InputError(
                    f"backbone {self.name}: unknown layer {layer!r}; its stages return tokens, which "
                    "are not supported; choose a convolutional network, or a transformer of timm's"
                    + (f" (similar names: {', '.join(close)})" if close else "")
                )
            raise unknown("layer", layer, names, f"backbone {self.name}")
        entry = traced.get(layer)
        if entry is None:
            needed = self._trace(self.reference).get(layer)
            if needed is not None and image_size < self.reference:
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
        if not self._is_map(entry, traced):
            asked = "a class token" if self.keep == "class" else "a map (channels, height, width)"
            raise InputError(
                f"backbone {self.name}: layer {layer!r} returns tokens or a vector, not {asked} of the "
                "image; only maps can be fitted"
                + (f"; valid: {', '.join(self.layers)}" if self.layers else "")
            )
        return entry

    def _is_map(self, entry: Traced, traced: Mapping[str, Traced]) -> bool:
        """Tell whether an output is a map; one that could not be followed has the cells of a canonical layer."""
        if entry.shape is None or entry.arrangement is None:
            return False
        if entry.window is not None or self._tokens is None or entry.name in self.layers:
            return True
        shapes = [traced[name].shape for name in self.layers if name in traced]
        return not shapes or entry.shape[1:] in {shape[1:] for shape in shapes if shape}

    def _no_layers(self) -> str:
        if self.keep == "class":
            return f'backbone {self.name}: tokens is "class", and it has no class token; set "grid"'
        if self._tokens is not None:
            return (
                f"backbone {self.name}: its stages return no maps of the image (channels, height, width), nor one "
                "token for each patch of a grid; choose another network"
            )
        return (
            f"backbone {self.name}: its stages return tokens, not maps (channels, height, width) of "
            "the image; choose a convolutional network, or a transformer of timm's (timm/NAME)"
        )

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

        def hook(layer: str, read: Arrangement) -> Callable[[nn.Module, object, object], None]:
            def returned(_module: nn.Module, _inputs: object, output: object) -> None:
                found = read.apply(output)
                kept[layer] = keep(layer, found if self.precision == FULL else found.float())
                if len(kept) == len(wanted):
                    raise _Enough

            return returned

        traced = self._trace(self.reference)
        entries = [self._check(layer, traced, self.reference) for layer in wanted]
        self._freeze()
        prepared = self.preprocess(images)
        handles = [
            self._parts[entry.name].register_forward_hook(
                hook(entry.name, entry.arrangement or MAP)
            )
            for entry in entries
        ]
        try:
            if entries:
                with exact(), computing(self.precision, prepared.device):
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
        if self.size is not None and tuple(images.shape[2:]) != (self.size, self.size):
            raise InputError(
                f"backbone {self.name}: it was built for images of {self.size} px, not of "
                f"{' x '.join(map(str, images.shape[2:]))} px"
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
        entry = self._check(layer, self._trace(self.reference), self.reference)
        run = set(trace(self.module, self.reference, upto=[entry.name]))
        parts = entry.name.split(".")
        run |= set(_within(parts))
        if self._tokens is not None:  # attention uses weights of parts that it does not call
            whole = [f"{name}." for name in run - set(_within(parts))]
            run |= {name for name in self._parts if name.startswith(tuple(whole))}
        # a module that lies at several paths is one
        ran = {id(self._parts[name]) for name in run if name} | {id(self.module)}
        everywhere = self.module.named_modules(remove_duplicate=False)
        paths = {path for path, part in everywhere if id(part) in ran}
        state = {
            name: value
            for name, value in self.module.state_dict().items()
            if name.rpartition(".")[0] in paths
        }
        for key in ("mean", "std"):
            numbers = getattr(self.preprocessing, key)
            state[f"preprocessing.{key}"] = torch.tensor(numbers, dtype=torch.float64)
        return state

    def digest_upto(self, layer: str) -> str:
        """Return the hash of what determines one layer's features, whatever lies above it."""
        return state_digest(f"1 {self.name} {layer}{self._how}", self.truncated_state(layer))
