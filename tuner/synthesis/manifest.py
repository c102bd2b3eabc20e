"""What images were made with, as ``manifest.json`` beside them tells it, and read back to make them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.encoder import Encoder
from tuner.errors import InputError
from tuner.synthesis.mei import MeiSettings

MANIFEST = "manifest.json"
FORMAT = 1
KIND = "most exciting images"


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

    Parameters
    ----------
    path
        ``manifest.json`` or its folder.
    prior_options
        In place of those of the manifest: a generator that lies elsewhere now. What it hashes to must
        be the same.

    Raises
    ------
    InputError
        If it is missing, damaged or of another kind.
    """
    path = Path(path)
    path = path / MANIFEST if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["kind"] != KIND:
            raise InputError(
                f"{path}: not a manifest of images, or of another version "
                f"(format {content['format']})"
            )
        given = dict(content["settings"])
        given["prior_options"] = {**given.get("prior_options", {}), **(prior_options or {})}
        encoders = content["encoders"]
        return Manifest(
            path,
            MeiSettings(**given),
            [int(entry["unit"]) for entry in content["units"]],
            str(encoders[0]["meta"].get("study")),
            [encoder["meta"].get("trial") for encoder in encoders],
            [str(encoder["checksum"]) for encoder in encoders],
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged manifest ({error!r})") from error
