"""Which backbones there are, and how one is loaded by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuner.backbones.backbone import Backbone
from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.published import fetch
from tuner.backbones.weights import initialise, load_into, read_state
from tuner.errors import InputError, unknown

# one line per family; the first that knows a name has it
FAMILIES = (
    "tuner.backbones.efficientnet_lite",
    "tuner.backbones.inceptionv1",
    "tuner.backbones.vgg",
    "tuner.backbones.torchvision_models",
)


def families() -> tuple[Family, ...]:
    """Return every family of networks, in the order in which they claim names."""
    return tuple(import_module(path).FAMILY for path in FAMILIES)


def backbone_names() -> tuple[str, ...]:
    """Return every name that ``load_backbone`` accepts."""
    return tuple(dict.fromkeys(name for family in families() for name in family.names()))


def family_of(name: str) -> Family:
    """Return the family that a name belongs to.

    Raises
    ------
    InputError
        If no family knows the name; lists those that are known.
    """
    for family in families():
        if name in family.names():
            return family
    raise unknown("backbone", name, backbone_names())


def load_backbone(name: str, weights: str | Path = "imagenet", *, seed: int = 0) -> Backbone:
    """Load a network, frozen and ready to give features.

    Parameters
    ----------
    name
        One of ``backbone_names``.
    weights
        "imagenet", "random", or the path of a state dict (``.pth``, ``.pt``, ``.safetensors``),
        whose classifier may have any number of classes.
    seed
        Draws random weights; not used otherwise.

    Raises
    ------
    InputError
        For an unknown name, weights that are not here and cannot be had, and a file that does not
        fit the network or holds more than tensors.
    """
    family = family_of(name)
    if weights == "random":
        module = _build_random(family, name, seed)
        return Backbone(name, module, family.preprocessing(name, "random"), family)
    module = _build_empty(family, name)
    kind = "imagenet" if weights == "imagenet" else "file"
    path = fetch(family.source(name), name) if kind == "imagenet" else Path(weights).expanduser()
    where = f"backbone {name}, weights file {path}"
    load_into(module, read_state(path), ignore=family.heads, where=where)
    return Backbone(name, module, family.preprocessing(name, kind), family)


def load_truncated(name: str, state: Mapping[str, Tensor], layers: Sequence[str]) -> Backbone:
    """Rebuild the part of a network that ``Backbone.truncated_state`` returned.

    Parameters
    ----------
    name
        The network.
    state
        Its weights up to some layer, and its preprocessing.
    layers
        The layers that will be asked for; all must lie within the part.

    Raises
    ------
    InputError
        If weights that the layers need are missing or have another shape.
    """
    family = family_of(name)
    where = f"embedded backbone {name}"
    weights = {key: value for key, value in state.items() if not key.startswith("preprocessing.")}
    try:
        mean = tuple(float(v) for v in state["preprocessing.mean"])
        std = tuple(float(v) for v in state["preprocessing.std"])
        preprocessing = Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    except (KeyError, IndexError) as error:
        raise InputError(f"{where}: entries preprocessing.mean and .std are missing") from error
    module = _build_empty(family, name)
    _cut(module, weights)
    load_into(module, weights, ignore=(), where=where)
    backbone = Backbone(name, module, preprocessing, family)
    backbone.resolve(layers)
    return backbone


def list_backbones() -> list[dict[str, Any]]:
    """Describe every backbone that can be loaded by name.

    Returns
    -------
    list of dict
        ``name``, ``family``, ``imagenet`` (True where those weights are on this machine) and
        ``where`` (the file that is looked for).
    """
    rows: dict[str, dict[str, Any]] = {}
    for family in families():
        for name in family.names():
            source = family.source(name)
            rows.setdefault(
                name,
                {
                    "name": name,
                    "family": family.name,
                    "imagenet": source.here,
                    "where": str(source.path),
                },
            )
    return list(rows.values())


def _build_empty(family: Family, name: str) -> nn.Module:
    """Build a network whose weights have shapes and no storage."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return family.build(name)
        except NotImplementedError:  # its constructor wants to see numbers
            return family.build(name).to("meta")


def _build_random(family: Family, name: str, seed: int) -> nn.Module:
    module = _build_empty(family, name)
    norms = (nn.modules.batchnorm._BatchNorm,)
    constants = [
        key
        for child in module.modules()
        if not isinstance(child, norms)
        for key, _ in child.named_buffers(recurse=False)
    ]
    if constants:  # tables that only the network's own code can fill
        with torch.random.fork_rng(devices=[]):
            module = family.build(name)
    else:
        module.to_empty(device="cpu")
    initialise(module, seed)
    return module


class _Absent(nn.Module):
    """Stands where a truncated network has no weights."""

    def forward(self, _: Tensor) -> Tensor:
        """Refuse to run."""
        raise RuntimeError("this network was cut off below the layer that is asked for")


def _cut(module: nn.Module, present: Iterable[str]) -> None:
    """Replace every module that lacks one of its own weights, so that no empty ones remain."""
    have = set(present)
    for name, child in list(module.named_modules()):
        own = [
            f"{name}.{key}" if name else key
            for key, _ in (
                *child.named_parameters(recurse=False),
                *child.named_buffers(recurse=False),
            )
            if key != "num_batches_tracked"
        ]
        if name and any(key not in have for key in own):
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, _Absent())
