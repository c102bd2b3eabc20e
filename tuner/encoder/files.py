"""Encoders on disk: two files of one folder, written at once, checked on load, never unpickled.

``encoder.safetensors`` holds the readout, the normalisations, check images with the encoder's
answers, and the backbone where it was embedded; ``encoder.json`` everything else, readable. On load
the check images are run again, and an encoder that answers them differently is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.atomic import write_bytes
from tuner.backbones.precision import FULL, Precision
from tuner.encoder.model import Encoder
from tuner.encoder.prepare import as_batch
from tuner.encoder.stacked import StackedEncoder
from tuner.errors import EnvironmentFailure, InputError
from tuner.features.normalize import Normalization

if TYPE_CHECKING:
    from tuner.backbones import Backbone

_log = logging.getLogger("tuner")

TENSORS = "encoder.safetensors"
DESCRIPTION = "encoder.json"
FORMAT = 1
STACKED_FORMAT = 2
"""Of several encoders as one; earlier versions refuse it."""

TOLERANCE = 1e-3
"""Largest difference to the check outputs, relative to the larger of output and response scale."""


@dataclass(frozen=True)
class EncoderFiles:
    """The contents of ``encoder.safetensors`` and ``encoder.json``."""

    tensors: bytes
    description: bytes


def save_encoder(
    folder: str | Path,
    encoder: Encoder | StackedEncoder,
    *,
    check_images: NDArray[np.uint8],
    with_backbone: bool = False,
) -> Path:
    """Write ``encoder.safetensors`` and ``encoder.json`` into a folder, each at once or not at all.

    Parameters
    ----------
    folder
        Created if need be.
    encoder
        What to save.
    check_images
        ``(k, S, S, 3)`` uint8, a handful: stored with the encoder's answers, which
        :func:`load_encoder` reproduces.
    with_backbone
        Embed the part of the backbone that the layer needs; otherwise it is named with its digest.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the check images are none, or not what the encoder reads, or answered with NaN.
    EnvironmentFailure
        If the disk is full or the folder cannot be written.
    """
    files = encoder_files(encoder, check_images=check_images, with_backbone=with_backbone)
    return write_encoder(folder, files)


def encoder_files(
    encoder: Encoder | StackedEncoder,
    *,
    check_images: NDArray[np.uint8],
    with_backbone: bool = False,
) -> EncoderFiles:
    """What :func:`save_encoder` writes; see there for parameters and errors."""
    from safetensors.torch import save

    images = np.asarray(check_images)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise InputError("check images must be (k, S, S, 3) uint8 with k at least 1")
    with torch.no_grad():
        outputs = encoder(as_batch(images, encoder.device)).cpu()
    if not torch.isfinite(outputs).all():
        raise InputError("the encoder answers its check images with NaN or infinity: not saved")
    tensors = {
        **encoder.tensors(),
        "check.images": torch.from_numpy(images),
        "check.outputs": outputs.contiguous(),
    }
    if with_backbone:
        for layer in _layers(encoder):
            state = encoder.backbone.truncated_state(layer)
            tensors |= {
                f"backbone.{name}": value.detach().cpu().contiguous().clone()
                for name, value in state.items()
            }
    payload = save(tensors)
    description = _describe(encoder, with_backbone, hashlib.blake2b(payload).hexdigest())
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return EncoderFiles(payload, text.encode())


def write_encoder(folder: str | Path, files: EncoderFiles) -> Path:
    """Write the two files of an encoder, each at once or not at all.

    Raises
    ------
    EnvironmentFailure
        If the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / TENSORS, files.tensors, durable=True)
        write_bytes(folder / DESCRIPTION, files.description, durable=True)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write the encoder to {folder}: {error}") from error
    return folder


def _layers(encoder: Encoder | StackedEncoder) -> list[str]:
    return encoder.layers if isinstance(encoder, StackedEncoder) else [encoder.layer]


def _describe(encoder: Encoder | StackedEncoder, embedded: bool, checksum: str) -> dict[str, Any]:
    backbone = encoder.backbone
    stacked = isinstance(encoder, StackedEncoder)
    source = encoder.encoders[0] if isinstance(encoder, StackedEncoder) else encoder
    # left away where it is full, as in the files of before
    precision = {} if backbone.precision == FULL else {"precision": backbone.precision}
    description: dict[str, Any] = {
        "format": STACKED_FORMAT if stacked else FORMAT,
        "file": TENSORS,
        "file_blake2b": checksum,
        "encoder_checksum": encoder.checksum(),
        "backbone": {
            "name": backbone.name,
            "digest": backbone.digest,
            "weights": source.weights,
            "seed": source.weights_seed,
            "embedded": embedded,
            "mean": list(backbone.preprocessing.mean),
            "std": list(backbone.preprocessing.std),
            "tokens": backbone.keep,
            **precision,
        },
        "image_size": encoder.image_size,
        "loss": encoder.loss,
        "n_units": encoder.n_units,
        "unit_indices": [int(index) for index in encoder.unit_indices],
        "units": {name: _column_to_json(column) for name, column in encoder.units.items()},
        "meta": encoder.meta,
    }
    if isinstance(encoder, StackedEncoder):
        digests = {layer: backbone.digest_upto(layer) for layer in encoder.layers}
        members = [
            {"layer": m.layer, "readout": m.readout.name, "meta": m.meta} for m in encoder.encoders
        ]
        return description | {"layer_digests": digests, "members": members}
    description["backbone"] |= {"layer_digest": backbone.digest_upto(encoder.layer)}
    return description | {"layer": encoder.layer, "readout": encoder.readout.name}


def _column_to_json(column: NDArray[Any]) -> dict[str, Any]:
    kind = {"f": "float", "i": "int", "u": "int", "b": "bool"}.get(column.dtype.kind, "str")
    if kind == "str":
        return {"type": kind, "values": [str(value) for value in column.tolist()]}
    values = [
        None if isinstance(value, float) and not math.isfinite(value) else value
        for value in column.tolist()
    ]
    return {"type": kind, "values": values}


def _column_from_json(column: Mapping[str, Any]) -> NDArray[Any]:
    values, kind = column["values"], column["type"]
    if kind == "float":
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype={"int": np.int64, "bool": np.bool_, "str": np.str_}[kind])


def load_encoder(
    path: str | Path,
    *,
    backbone: Backbone | None = None,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Encoder | StackedEncoder:
    """Load an encoder and check that it still answers as it did.

    Parameters
    ----------
    path
        Its folder, or either of its two files.
    backbone
        The backbone, if it is loaded already; by default it is taken from the file where it was
        embedded, else found locally by name and weights.
    weights
        Where the backbone's weights are now, if not where they were.
    device
        Where to put the encoder.

    Returns
    -------
    Encoder or StackedEncoder
        In evaluation mode; the latter where it was exported with ``--stacked``.

    Raises
    ------
    InputError
        If a file is missing, damaged, of another format, in need of another backbone than the one
        found, or if the check outputs are not reproduced to 1e-3.

    Examples
    --------
    After ``tuner export best -o results``:

    >>> import torch
    >>> import tuner
    >>> encoder = tuner.load_encoder("results/efficientnet_lite0/_blocks.2/A/full")
    >>> encoder.image_size, encoder.n_units, encoder.unit_names()[:2]
    (64, 6, ['unit00', 'unit01'])
    >>> images = torch.rand(2, 3, encoder.image_size, encoder.image_size)  # RGB in [0, 1]
    >>> tuple(encoder(images).shape)
    (2, 6)
    """
    tensors_path, description_path = _files(Path(path))
    description = _read_description(description_path)
    tensors = _read_tensors(tensors_path, description)
    try:
        backbone = _find_backbone(description, tensors, tensors_path, backbone, weights)
        encoder = _assemble(description, tensors, backbone)
        outputs = tensors["check.outputs"]
        images = tensors["check.images"].numpy()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{description_path}: damaged or incomplete ({error!r}); export the encoder again"
        ) from error
    encoder.to(device)
    _check_outputs(encoder, images, outputs, tensors_path)
    if encoder.meta.get("fit_failed"):
        _log.warning("%s: not surely better than predicting the mean", tensors_path.parent)
    return encoder


def _files(path: Path) -> tuple[Path, Path]:
    if path.is_dir() or path.name in (TENSORS, DESCRIPTION):
        folder = path if path.is_dir() else path.parent
    elif path.suffix in (".safetensors", ".json") or not path.exists():
        raise InputError(
            f"{path}: no such encoder; give a folder with {TENSORS} and {DESCRIPTION}, "
            "or one of the two"
        )
    else:
        raise InputError(
            f"{path}: not an encoder; encoders are read from {TENSORS} with {DESCRIPTION} only, "
            "nothing is unpickled"
        )
    for name in (TENSORS, DESCRIPTION):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: missing; an encoder is {TENSORS} with {DESCRIPTION}"
            )
    return folder / TENSORS, folder / DESCRIPTION


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); export the encoder again") from error
    if not isinstance(description, dict) or "format" not in description:
        raise InputError(f"{path}: does not describe an encoder; export the encoder again")
    if description["format"] not in (FORMAT, STACKED_FORMAT):
        raise InputError(
            f"{path}: encoder format {description['format']}, "
            f"but this version reads formats {FORMAT} and {STACKED_FORMAT}; "
            "export the encoder again"
        )
    return description


def _read_tensors(path: Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        payload = path.read_bytes()
        if hashlib.blake2b(payload).hexdigest() != description.get("file_blake2b"):
            raise InputError(
                f"{path}: damaged, or not the file that {DESCRIPTION} beside it describes; "
                "export the encoder again"
            )
        tensors: dict[str, Tensor] = load(payload)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); export it again") from error
    return tensors


def _find_backbone(
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    path: Path,
    given: Backbone | None,
    weights: str | Path | None,
) -> Backbone:
    from tuner.backbones import load_backbone, load_truncated
    from tuner.backbones.registry import assumed_before

    wanted = description["backbone"]
    if given is None and wanted["embedded"] and weights is None:
        embedded = load_truncated(
            _trusted(wanted["name"], path),
            _part(tensors, "backbone."),
            list(_digests(description)),
            image_size=description["image_size"],
            tokens=_kept(wanted),
            precision=_precision(wanted),
        )
        _check_backbone(embedded, description, path)
        embedded.digest = wanted["digest"]  # it stands for the whole network that it was cut from
        return embedded
    if given is None:
        source = wanted["weights"] if weights is None else weights
        name = _trusted(wanted["name"], path)
        mean, std = wanted.get("mean"), wanted.get("std")
        if mean is None and source not in ("imagenet", "random"):  # of before it was written down
            assumed = assumed_before(name)
            mean, std = assumed.mean, assumed.std
        given = load_backbone(
            name,
            source,
            seed=wanted["seed"],
            image_size=description["image_size"],
            mean=mean,
            std=std,
            tokens=_kept(wanted),
            precision=_precision(wanted),
        )
    if given.digest != wanted["digest"]:  # the head may differ, what runs below the layer may not
        _check_backbone(given, description, path)
    return given


def _trusted(name: str, path: Path) -> str:
    """Refuse to import what a file names: only a person may."""
    if ":" in name:
        raise InputError(
            f"{path}: fitted on a network of your own, {name}, and no code is run because a file names "
            f"it; pass load_encoder(..., backbone=tuner.backbones.load_backbone({name!r}, ...))"
        )
    return name


def _kept(wanted: Mapping[str, Any]) -> Literal["grid", "class"]:
    return "class" if wanted.get("tokens") == "class" else "grid"


def _precision(wanted: Mapping[str, Any]) -> Precision:
    named: dict[object, Precision] = {"bfloat16": "bfloat16", "float16": "float16"}
    return named.get(wanted.get("precision"), FULL)


def _digests(description: Mapping[str, Any]) -> dict[str, str]:
    """What each layer that is read depends on."""
    if description["format"] == STACKED_FORMAT:
        return dict(description["layer_digests"])
    return {description["layer"]: description["backbone"]["layer_digest"]}


def _check_backbone(backbone: Backbone, description: Mapping[str, Any], path: Path) -> None:
    wanted = description["backbone"]
    for layer, digest in _digests(description).items():
        found = backbone.digest_upto(layer)
        if backbone.name != wanted["name"] or found != digest:
            raise InputError(
                f"{path}: fitted on backbone {wanted['name']} (up to {layer}: {digest[:12]}), "
                f"but the one found is {backbone.name} ({found[:12]}); "
                "give its weights, or export with the backbone"
            )


def _assemble(
    description: Mapping[str, Any], tensors: Mapping[str, Tensor], backbone: Backbone
) -> Encoder | StackedEncoder:
    if description["format"] == FORMAT:
        return _member(description, description, tensors, backbone)
    members = [
        _member(description, one, _part(tensors, f"member{number}."), backbone)
        for number, one in enumerate(description["members"])
    ]
    return StackedEncoder(members, tensors["weights"], description["meta"])


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _member(
    description: Mapping[str, Any],
    own: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    backbone: Backbone,
) -> Encoder:
    return Encoder(
        backbone=backbone,
        layer=own["layer"],
        normalization=Normalization.from_state(_part(tensors, "normalization.")),
        readout=own["readout"],
        parameters=_part(tensors, "readout."),
        response_mean=tensors["response_mean"],
        response_scale=tensors["response_scale"],
        loss=description["loss"],
        image_size=description["image_size"],
        units={name: _column_from_json(column) for name, column in description["units"].items()},
        unit_indices=description["unit_indices"],
        weights=description["backbone"]["weights"],
        weights_seed=description["backbone"]["seed"],
        meta=own["meta"],
    )


def _check_outputs(
    encoder: Encoder | StackedEncoder, images: NDArray[np.uint8], expected: Tensor, path: Path
) -> None:
    with torch.no_grad():
        try:
            outputs = encoder(as_batch(images, encoder.device)).cpu()
        except RuntimeError as error:
            raise InputError(f"{path}: does not run ({error}); export the encoder again") from error
    if outputs.shape != expected.shape:
        raise InputError(f"{path}: check outputs of another shape; export the encoder again")
    scale = torch.maximum(expected.abs(), encoder.response_scale.cpu().abs()[None])
    difference = ((outputs - expected).abs() / scale).nan_to_num(nan=math.inf).max().item()
    if not difference <= TOLERANCE:
        raise InputError(
            f"{path}: its check images are answered differently here "
            f"(relative difference {difference:.2g}, at most {TOLERANCE:g} allowed); "
            "use the versions it was exported with, or export it again"
        )
