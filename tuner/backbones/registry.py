"""Which backbones there are, and how one is loaded by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuner.backbones import timm_models
from tuner.backbones.backbone import Backbone, Rectify
from tuner.backbones.family import Family
from tuner.backbones.precision import FULL, Precision
from tuner.backbones.preprocessing import IMAGENET, Preprocessing
from tuner.backbones.tokens import Keep
from tuner.backbones.weights import load_into, read_state
from tuner.errors import InputError, unknown

# one line per family; the first that knows a name has it
FAMILIES = (
    "tuner.backbones.efficientnet_lite",
    "tuner.backbones.inceptionv1",
    "tuner.backbones.vgg",
    "tuner.backbones.torchvision_models",
    "tuner.backbones.timm_models",
    "tuner.backbones.baselines",
    "tuner.backbones.functions",
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
        if family.knows(name):
            return family
    raise unknown("backbone", name, backbone_names())


def load_backbone(
    name: str,
    weights: str | Path = "imagenet",
    *,
    seed: int = 0,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    tokens: Keep = "grid",
    rectify: Rectify = "auto",
    precision: Precision = FULL,
    size: int | None = None,
) -> Backbone:
    """Load a network, frozen and ready to give features.

    Parameters
    ----------
    name
        One of ``backbone_names``, ``timm/NAME``, or ``package.module:function``, which is called.
    weights
        "imagenet" (the published ones, whatever they were trained on; those that a function brings along), "random",
        or the path of a state dict (``.pth``, ``.pt``, ``.safetensors``), whose classifier may have any number of classes.
    seed
        Draws random weights; not used otherwise.
    image_size
        Side of the images that it will get, px: some transformers are built for one size. Their own where
        not given.
    mean, std
        What the network expects of its input, per channel, for images in [0, 1]; needed with a file, and
        with a function that does not say.
    tokens
        What becomes of a transformer's tokens: "grid" lays those of the patches out by rows and columns,
        "class" takes the class token as a map of one cell.
    rectify
        Which layers are centred and rectified: "auto" those that can return values below 0, True all,
        False none.
    precision
        What the network computes in: "float32", or half, "bfloat16" or "float16", on a device that has it.
    size
        Side of the only images that the network takes, px; None where it takes any, or is known.

    Raises
    ------
    InputError
        For an unknown name, weights that are not here and cannot be had, a file that does not
        fit the network or holds more than tensors, a file without ``mean`` and ``std``, and an
        ``image_size`` that is not ``size``.
    """
    if size is not None and image_size not in (None, size):
        raise InputError(
            f"backbone {name}: size is {size} and data.image_size {image_size}, and the network takes no "
            "other images than those of its size; make them equal"
        )
    image_size = size or image_size
    family = family_of(name)
    kind = weights if weights in ("imagenet", "random") else "file"
    if kind == "random":
        module = _build_random(family, name, seed, image_size)
    else:  # some bring their weights along, or have none
        module = _build_empty(family, name, image_size)
    if kind == "file" or (kind == "imagenet" and family.source(name) is not None):
        path = family.fetch(name) if kind == "imagenet" else Path(weights).expanduser()
        where = f"backbone {name}, weights file {path}"
        state = family.adapt(name, module, read_state(path))
        load_into(module, state, ignore=family.heads, where=where)
    if kind == "file" and (mean is None or std is None):
        described = family.described(name, path)
        if described is not None:
            mean, std = mean or described.mean, std or described.std
    preprocessing = _preprocessing(family, name, str(kind), mean, std)
    return Backbone(
        name,
        module,
        preprocessing,
        family,
        keep=tokens,
        rectify=rectify,
        precision=precision,
        size=size,
    )


def assumed_before(name: str) -> Preprocessing:
    """Return the input range that was assumed for a weights file before it had to be given."""
    return family_of(name).preprocessing(name, "file")


def _preprocessing(
    family: Family,
    name: str,
    kind: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    if kind == "file" and (mean is None or std is None):
        published = family.preprocessing(name, "imagenet")
        raise InputError(
            f"backbone {name}: weights from a file need mean and std, what the network was trained to "
            "expect of images in [0, 1]; ImageNet's are mean = "
            f"{_numbers(IMAGENET.mean)}, std = {_numbers(IMAGENET.std)}, those of the weights published "
            f"for it mean = {_numbers(published.mean)}, std = {_numbers(published.std)}"
        )
    if mean is None or std is None:
        own = family.preprocessing(name, kind)
        mean, std = own.mean if mean is None else mean, own.std if std is None else std
    if min(std) <= 0:
        raise InputError(f"backbone {name}: std is {_numbers(std)}; it must be above 0")
    return Preprocessing(_three(mean), _three(std))


def _three(given: Sequence[float]) -> tuple[float, float, float]:
    one, two, three = (float(value) for value in given)
    return one, two, three


def _numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"


def load_truncated(
    name: str,
    state: Mapping[str, Tensor],
    layers: Sequence[str],
    *,
    image_size: int | None = None,
    tokens: Keep = "grid",
    precision: Precision = FULL,
) -> Backbone:
    """Rebuild the part of a network that ``Backbone.truncated_state`` returned.

    Parameters
    ----------
    name
        The network.
    state
        Its weights up to some layer, and its preprocessing.
    layers
        The layers that will be asked for; all must lie within the part.
    image_size, tokens, precision
        As for ``load_backbone``.

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
    module = _build_empty(family, name, image_size)
    _cut(module, weights)
    load_into(module, weights, ignore=(), where=where)
    backbone = Backbone(name, module, preprocessing, family, keep=tokens, precision=precision)
    backbone.resolve(layers)
    return backbone


def list_backbones(pattern: str | None = None) -> list[dict[str, Any]]:
    """Describe every backbone that can be loaded by name.

    Parameters
    ----------
    pattern
        Only names that it fits, timm's too, as in a shell; None: all but timm's.

    Returns
    -------
    list of dict
        ``name``, ``family``, ``imagenet`` (True where the published weights are on this machine) and
        ``where`` (the file that is looked for; empty for what needs none).

    Raises
    ------
    InputError
        If nothing fits the pattern.
    """
    rows: dict[str, dict[str, Any]] = {}
    for family in families():
        for name in family.names():
            if pattern is None or fnmatchcase(name, pattern):
                rows.setdefault(name, _row(family, name))
    if pattern is not None and pattern.startswith(timm_models.PREFIX):
        rows |= {n: _row(timm_models.FAMILY, n) for n in timm_models.FAMILY.listed(pattern)}
    if not rows:
        raise InputError(
            f"no backbone fits {pattern!r}; 'tuner backbone list' lists all but timm's, which are named "
            '"timm/..."'
        )
    return list(rows.values())


def _row(family: Family, name: str) -> dict[str, Any]:
    source = family.source(name)
    return {
        "name": name,
        "family": family.name,
        "imagenet": source is None or source.here,
        "where": "" if source is None else str(source.path),
    }


def _build_empty(family: Family, name: str, image_size: int | None = None) -> nn.Module:
    """Build a network whose weights have shapes and no storage, where it can be built so."""
    with torch.random.fork_rng(devices=[]):
        if not family.storage_free:
            return family.build_for(name, image_size)
        try:
            with torch.device("meta"):
                return family.build_for(name, image_size)
        except NotImplementedError:  # its constructor wants to see numbers
            return family.build_for(name, image_size).to("meta")


def _build_random(family: Family, name: str, seed: int, image_size: int | None) -> nn.Module:
    module = _build_empty(family, name, image_size)
    if not family.storage_free:
        family.initialise(module, seed)
        return module
    norms = (nn.modules.batchnorm._BatchNorm,)
    constants = [
        key
        for child in module.modules()
        if not isinstance(child, norms)
        for key, _ in child.named_buffers(recurse=False)
    ]
    if constants:  # tables that only the network's own code can fill
        with torch.random.fork_rng(devices=[]):
            module = family.build_for(name, image_size)
    else:
        module.to_empty(device="cpu")
    family.initialise(module, seed)
    return module


class _Absent(nn.Module):
    """Stands where a truncated network has no weights."""

    def forward(self, *_: object) -> Tensor:
        """Refuse to run."""
        raise RuntimeError("this network was cut off below the layer that is asked for")


def _cut(module: nn.Module, present: Iterable[str]) -> None:
    """Replace every module that lacks one of its own weights, so that no empty ones remain."""
    have = set(present)
    stored = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
    lacking = {key.rpartition(".")[0] for key in stored - have} - {""}
    for name in sorted(lacking, key=lambda path: path.count(".")):
        parent, _, last = name.rpartition(".")
        if not any(name.startswith(f"{other}.") for other in lacking):
            setattr(module.get_submodule(parent), last, _Absent())
