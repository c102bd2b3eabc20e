"""Any network of timm's, as ``timm/NAME``: convolutional, hierarchical and plain transformers alike.

Its layers are what timm itself calls its intermediate features (``forward_intermediates``): stages, or blocks. Which module
returns each is found by comparing, once, what all modules return with what timm says; so class and register tokens, their
number and the order of the patches are the network's own. Where a network brings its patches into an order that no module's
output has as rows and columns, those layers are left out.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuner.backbones import timm_hub as hub
from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import Source, hub_source, offline
from tuner.backbones.timm_layers import matched, patch
from tuner.backbones.tokens import Keep, Tokens
from tuner.backbones.torchvision_models import stages
from tuner.backbones.trace import Traced
from tuner.backbones.weights import initialise
from tuner.errors import InputError

PREFIX = "timm/"

_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""What timm's files of networks call the function that brings weights into the form of the network."""
_ITEM = {"TNT": 1}
"""Networks whose blocks hand on something else before the patches' tokens: those of the pixels inside each patch."""
_CONFIG = "config.json"
"""What timm writes beside weights that it saves, and what lies beside those of the hub."""
_DRAWN = ("pos_embed", "token", "bias_table", "rel_pos", "rope")
"""Parts of names of parameters that a scale of 1 would make meaningless: positions and tokens."""


def timm() -> Any:
    """Return the library.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"networks named {PREFIX}NAME need timm: pip install 'cortex-tuner[timm]' ({error})"
        ) from error
    return timm


def installed() -> bool:
    """Tell whether timm is there."""
    try:
        timm()
    except InputError:
        return False
    return True


class TimmModels(Family):
    """timm's networks."""

    name = "timm"
    storage_free = False  # tables that are not in the state dict are made by the constructors

    def names(self) -> tuple[str, ...]:
        """Return no names: they are a thousand, and ``listed`` has those of a pattern."""
        return ()

    def knows(self, name: str) -> bool:
        """Tell whether a name begins with ``timm/``.

        Raises
        ------
        InputError
            If timm is not installed, or has no such network; lists similar names.
        """
        if not name.startswith(PREFIX):
            return False
        own = name.removeprefix(PREFIX)
        if timm().is_model(own) and (
            "." not in own or own in _published() or not _tags(own.partition(".")[0])
        ):
            return True
        architecture = own.partition(".")[0]
        tags = _tags(architecture)
        every = timm().list_models()
        beginning = [n for n in every if n.startswith(architecture)][:5]
        close = tags or beginning or get_close_matches(architecture, every, n=5, cutoff=0.4)
        raise InputError(
            f"unknown backbone {name!r}; similar: {', '.join(PREFIX + n for n in close) or 'none'}; "
            f"'tuner backbone list --filter \"{PREFIX}*\"' lists all"
        )

    def listed(self, pattern: str, *, published: bool = True) -> list[str]:
        """Return the names that fit a pattern.

        Parameters
        ----------
        pattern
            With or without ``timm/``; one with a dot asks for tags too, of which a network may have several.
        published
            Whether only those count of which there are published weights.
        """
        own = pattern.removeprefix(PREFIX)
        if not published:
            return [PREFIX + n for n in timm().list_models(own)]
        # a tag is matched only where the pattern has one
        tagged = timm().list_models(own if "." in own else f"{own}.*", pretrained=True)
        if "." in own:
            return [PREFIX + n for n in tagged]
        return [PREFIX + n for n in dict.fromkeys(n.partition(".")[0] for n in tagged)]

    def build(self, name: str) -> nn.Module:
        """Build the network without its classifier, for images of its own size."""
        return self.build_for(name, None)

    def build_for(self, name: str, image_size: int | None) -> nn.Module:
        """Build the network so that it takes images of a size, px; its positions are interpolated by timm.

        Raises
        ------
        InputError
            If it cannot be built for this size.
        """
        own = name.removeprefix(PREFIX)
        size = image_size or self.reference_size(name)
        for option in ({"dynamic_img_size": True}, {"img_size": size}, {}):
            try:
                return _created(own, option)
            except TypeError as error:
                if not any(key in str(error) for key in option):
                    raise
            except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(
                    f"backbone {name}: timm cannot build it for images of {size} px ({reason}); "
                    f"its own are of {self.reference_size(name)} px"
                ) from error
        raise AssertionError("a network without options is built or fails")

    def source(self, name: str) -> Source | None:
        """Say where the published weights come from."""
        config = _config(name)
        if config.hf_hub_id:
            return Source(hub.found(config) or hub.folder(config) / hub.files(config)[0])
        return hub_source(config.url) if config.url else None

    def fetch(self, name: str) -> Path:
        """Return the file of the published weights, through the hub's own cache.

        Raises
        ------
        InputError
            If it is not here and cannot be had.
        """
        config = _config(name)
        if not config.hf_hub_id:
            return super().fetch(name)
        found = hub.found(config)
        if found is not None:
            return found
        remedy = (
            f"get {hub.files(config)[0]} of https://huggingface.co/{config.hf_hub_id} and name it in "
            'weights (with mean and std), or set weights to "random"'
        )
        if offline():
            raise InputError(
                f"backbone {name}: published weights are not on this machine and TUNER_OFFLINE forbids "
                f"the download; {remedy}"
            )
        return hub.download(name, config, remedy)

    def preprocessing(self, name: str, weights: str) -> Preprocessing:
        """Return the input range that the network's own weights were trained with."""
        config = _config(name)
        mean, std = tuple(config.mean), tuple(config.std)
        return Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))

    def described(self, name: str, path: Path) -> Preprocessing | None:
        """Return mean and std of the ``config.json`` that timm writes beside weights, where it is of this network.

        Raises
        ------
        InputError
            If it is there and cannot be read.
        """
        beside = path.parent / _CONFIG
        if not beside.is_file():
            return None
        try:
            written = json.loads(beside.read_text(encoding="utf-8"))
            if written.get("architecture") != _architecture(name):
                return None
            config = written.get("pretrained_cfg", written)
            mean, std = ([float(value) for value in config[key]] for key in ("mean", "std"))
            return Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"backbone {name}: {beside} does not hold the mean and std of an architecture as timm writes "
                f"them ({type(error).__name__}: {error}); set mean and std"
            ) from error

    def adapt(self, name: str, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring weights into timm's form by timm's own function, and leave the classifier away."""
        home = sys.modules[timm().models.model_entrypoint(_architecture(name)).__module__]
        convert = next((getattr(home, f) for f in _FILTERS if hasattr(home, f)), None)
        if convert is not None:
            try:
                taken = len(inspect.signature(convert).parameters)
                state = dict(convert(state, module) if taken > 1 else convert(state))
            except (KeyError, RuntimeError, AttributeError, TypeError, IndexError) as error:
                raise InputError(
                    f"backbone {name}: timm cannot read these weights ({type(error).__name__}: {error}); "
                    "is the file from this network?"
                ) from error
        named = _config(name).classifier or ()
        heads = (named,) if isinstance(named, str) else tuple(named)
        wanted = module.state_dict()
        return {
            key: value
            for key, value in state.items()
            if key in wanted or not key.startswith(tuple(f"{head}." for head in (*heads, "head")))
        }

    def initialise(self, module: nn.Module, seed: int) -> None:
        """Draw random weights as for every network; positions and tokens from N(0, 0.02^2), as timm does."""
        initialise(module, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                last = name.rpartition(".")[2]
                if any(part in last for part in _DRAWN):
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(0.02 * drawn)

    def tokens(self, name: str, module: nn.Module, keep: Keep) -> Tokens | None:
        """Say what the network itself says of its tokens."""
        prefix = int(getattr(module, "num_prefix_tokens", -1))
        has_class = prefix > 0 and getattr(module, "cls_token", None) is not None
        last = getattr(module, "output_fmt", None) == "NHWC"
        item = _ITEM.get(type(module).__name__, 0)
        return Tokens(prefix, has_class, last, keep, item, _orders(module))

    def only_size(self, name: str, module: nn.Module) -> int | None:
        """Return the side of the images that the network was built for, where it takes no others."""
        return getattr(module, "built_for", None)

    def reference_size(self, name: str) -> int:
        """Return the side of the images that the network was trained with."""
        return int(_config(name).input_size[-1])

    def check_size(self, name: str, module: nn.Module, image_size: int) -> None:
        """Refuse images that patches do not cover.

        Raises
        ------
        InputError
            Naming the nearest sizes that they do.
        """
        side = patch(module)
        if side > 1 and image_size % side:
            below = image_size // side * side
            near = [str(size) for size in (below, below + side) if size >= side]
            raise InputError(
                f"backbone {name}: image_size {image_size} is no multiple of its patches of {side} px; "
                f"the nearest are {' and '.join(near)}"
            )

    def canonical(
        self, name: str, module: nn.Module, traced: Mapping[str, Traced]
    ) -> tuple[str, ...]:
        """Return the modules that return timm's intermediate features, in depth order."""
        found = _ends(module) or matched(module, traced, self.only_size(name, module))
        if found is None:
            found = [n for n in stages(module, traced) if traced.get(n) and traced[n].shape]
        readable = [n for n in found if n in traced and traced[n].shape is not None]
        return tuple(sorted(readable, key=lambda n: traced[n].order))


def _architecture(name: str) -> str:
    return name.removeprefix(PREFIX).partition(".")[0]


@cache
def _published() -> frozenset[str]:
    return frozenset(timm().list_models(pretrained=True))


def _tags(architecture: str) -> list[str]:
    return sorted(n for n in _published() if n.partition(".")[0] == architecture)


def _config(name: str) -> Any:
    return timm().models.get_pretrained_cfg(name.removeprefix(PREFIX)) or (
        timm().models.PretrainedCfg(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    )


def _created(own: str, option: Mapping[str, Any]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = timm().create_model(own, pretrained=False, num_classes=0, **option)
    if "img_size" in option and not _takes_any(module):
        module.built_for = int(option["img_size"])  # type: ignore[assignment]
    return module


def _takes_any(module: nn.Module) -> bool:
    """Tell whether a network that was built for one size is convolutional all the same: nothing in it has that size."""
    return not any(
        any(part in key for part in _DRAWN) for key, _ in module.named_parameters()
    ) and not any(
        key for key, _ in module.named_buffers() if "running" not in key and "num_" not in key
    )


def _orders(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Where each patch stands among a block's tokens in Hiera, which keeps what attends together together."""
    reroll, schedule = getattr(module, "reroll", None), {}
    if reroll is None or not hasattr(reroll, "schedule"):
        return {}
    for block, (_, size) in reroll.schedule.items():
        count = int(size[0]) * int(size[1])
        numbers = torch.arange(count, device="cpu").view(1, count, 1)
        schedule[f"blocks.{block}"] = tuple(reroll(numbers, block).flatten().tolist())
    return schedule


def _ends(module: nn.Module) -> list[str]:
    """The last block of each scale of CoaT, whose later blocks return several scales at once."""
    if type(module).__name__ != "CoaT":
        return []
    rows = [f"serial_blocks{scale}" for scale in range(1, 5)]
    return [f"{row}.{len(module.get_submodule(row)) - 1}" for row in rows]  # type: ignore[arg-type]


FAMILY = TimmModels()
