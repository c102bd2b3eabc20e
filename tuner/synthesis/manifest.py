"""What images were made with, as ``manifest.json`` beside them tells it, and read back to make them again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.encoder import Encoder
from tuner.errors import InputError
from tuner.synthesis.described import read_description, rows, table, text, whole
from tuner.synthesis.mei import MeiSettings

MANIFEST = "manifest.json"
FORMAT = 1
KIND = "most exciting images"

LIMITS = {
    "steps": 1_000_000,
    "variants": 1_000,
    "keep_every": 1_000_000,
    "chunk": 4_096,
    "seed": 2**63 - 1,
}
"""Most of each setting that a manifest may ask for."""

MAX_CODE = 10_000_000
"""Numbers in a generator's code, at most."""


@dataclass(frozen=True)
class Manifest:
    """What is needed to make images again.

    Attributes
    ----------
    path
        The file that it was read from.
    settings
        How the images were made.
    units
        Indices of the units in the recording.
    study
        Name of the study whose encoders made them, as their own record has it.
    trials
        Trial of each encoder: its number, or what stands for it.
    checksums
        Checksum of each encoder.
    """

    path: Path
    settings: MeiSettings
    units: list[int]
    study: str
    trials: list[Any]
    checksums: list[str]

    def check_same(self, encoders: Sequence[Encoder]) -> None:
        """Refuse to make the images again with other encoders.

        Raises
        ------
        InputError
            If the encoders are not those that made them.
        """
        found = [encoder.checksum() for encoder in encoders]
        if found != self.checksums:
            raise InputError(
                f"{self.path}: made with the encoders {', '.join(c[:12] for c in self.checksums)}, "
                f"but these are {', '.join(c[:12] for c in found)}; "
                "export the images from the search that they were made from"
            )


def describe(encoder: Encoder) -> dict[str, Any]:
    """Describe an encoder, so that it can be found again."""
    return {
        "checksum": encoder.checksum(),
        "backbone": encoder.backbone.name,
        "backbone_digest": encoder.backbone.digest,
        "layer": encoder.layer,
        "readout": encoder.readout.name,
        "loss": encoder.loss,
        "image_size": encoder.image_size,
        "meta": encoder.meta,
    }


def read_manifest(path: str | Path, prior_options: Mapping[str, Any] | None = None) -> Manifest:
    """Read what is needed to make the images of a manifest again.

    A manifest may come from anybody. It names no file that is opened, and no program that is run: a generator is the file
    that the caller names, and only if it hashes to what the manifest says.

    Parameters
    ----------
    path
        ``manifest.json`` or its folder.
    prior_options
        In place of those of the manifest: the ``path`` of a generator, and of its ``bounds`` where those are a file.

    Raises
    ------
    InputError
        If it is missing, damaged, of another kind or beyond the limits, or a generator is needed and not given, or another.
    """
    path = Path(path)
    path = path / MANIFEST if path.is_dir() else path
    content = read_description(path, "name a manifest.json that 'tuner export mei' wrote")
    if content.get("format") != FORMAT or content.get("kind") != KIND:
        raise InputError(
            f"{path}: not a manifest of images, or of another version (format "
            f"{str(content.get('format'))[:40]})"
        )
    try:
        settings = _settings(content.get("settings"), dict(prior_options or {}))
        encoders = rows("encoders", content.get("encoders"))
        metas = [table(f"encoders[{k}].meta", e.get("meta")) for k, e in enumerate(encoders)]
        for k, meta in enumerate(metas):
            if not isinstance(meta.get("trial"), int | str | None):
                raise ValueError(f"encoders[{k}].meta.trial is no number")
        return Manifest(
            path,
            settings,
            [
                whole("unit", entry.get("unit"), 2**31)
                for entry in rows("units", content.get("units"))
            ],
            str(metas[0].get("study")),
            [meta.get("trial") for meta in metas],
            [text(f"encoders[{k}].checksum", e.get("checksum")) for k, e in enumerate(encoders)],
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: damaged manifest ({str(error)[:200]})") from error


def _settings(stored: Any, given: dict[str, Any]) -> MeiSettings:
    """Settings of a manifest, within limits."""
    values = table("settings", stored)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"settings.{name} is not finite")
    for name, most in LIMITS.items():
        if name in values:
            whole(f"settings.{name}", values[name], most)
    options = dict(table("settings.prior_options", values.get("prior_options", {})))
    if values.get("prior") == "generator":
        options = _generator(options, given)
    else:
        options |= given
    return MeiSettings(**(values | {"prior_options": options}))


def _generator(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a generator: its files as they are given, all else and what they hash to as stored."""
    checksum = text("settings.prior_options.blake2b", stored.get("blake2b"))
    if "path" not in given:
        raise InputError(
            f"made with a generator (there {str(stored.get('path'))[:200]!r}), and a manifest's files are not opened; "
            "name the file that you trust: --prior-option path=FILE"
        )
    if isinstance(stored.get("bounds"), str) and "bounds" not in given:
        raise InputError(
            f"made with bounds from a file (there {str(stored['bounds'])[:200]!r}), and a manifest's files are not "
            "opened; name the file: --prior-option bounds=FILE"
        )
    code = stored.get("code", [])
    for length in code if isinstance(code, list) else [code]:
        whole("settings.prior_options.code", length, MAX_CODE, 1)
    if isinstance(code, list) and math.prod(code) > MAX_CODE:
        raise ValueError(f"settings.prior_options.code has more than {MAX_CODE} numbers")
    return {**stored, **given, "blake2b": checksum}
