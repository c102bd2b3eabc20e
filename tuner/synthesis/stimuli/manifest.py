"""A folder of stimuli, read again: found whole, or what is wrong with it, file by file."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.sources import decode
from tuner.synthesis.described import read_description, rows, table, text, whole
from tuner.synthesis.stimuli.placement import Rig, as_seen

DESCRIPTION = "stimuli.json"
MANIFEST = "manifest.csv"
ORDER = "order.csv"
NOTE = "README.txt"
IMAGES = "images"
FORMAT = 1

MAX_SIDE = 16_384
"""Pixels of an image's side, at most."""

COLUMNS = (
    "image",
    "kind",
    "study",
    "unit",
    "name",
    "variant",
    "origin",
    "width_px",
    "x_px",
    "y_px",
    "width_deg",
    "x_deg",
    "y_deg",
    "mean",
    "contrast",
    "mean_inside",
    "contrast_inside",
    "blake2b",
)
"""First columns of the manifest; then ``<encoder>#<unit>``, the predictions."""

LATER = ("mean_inside", "contrast_inside")
"""Those that a folder of an earlier release is without."""


@dataclass(frozen=True)
class Folder:
    """A stimulus folder that was read and found whole.

    Attributes
    ----------
    path
        The folder.
    description
        Content of its ``stimuli.json``.
    rows
        The manifest's first :data:`COLUMNS`, a row per image; numbers are numbers.
    predictions
        Encoder to ``(n_images, n_units)``.
    units
        Encoder to ``(n_units,)``: the units' indices in the recording.
    """

    path: Path
    description: dict[str, Any]
    rows: list[dict[str, Any]]
    predictions: dict[str, NDArray[np.float64]]
    units: dict[str, NDArray[np.int64]]

    @property
    def simulated(self) -> bool:
        """Whether the encoders were fitted to simulated responses."""
        return bool(self.description.get("simulated", False))

    @property
    def background(self) -> int:
        """The grey around the images, 0 to 255."""
        return int(self.description["background"])

    @property
    def images(self) -> list[str]:
        """File names, in the order of the rows."""
        return [str(row["image"]) for row in self.rows]

    def about(self, encoder: str) -> str:
        """What an encoder is, in words; empty where the folder does not say, as one of an earlier release."""
        for entry in self.description["encoders"]:
            if entry["name"] == encoder:
                return str(entry.get("about", ""))
        return ""

    def measured_in(self, encoder: str) -> str:
        """What an encoder's responses are measured in; empty where that is not known."""
        for entry in self.description["encoders"]:
            if entry["name"] == encoder:
                return str((entry.get("meta") or {}).get("measured_in", ""))
        return ""

    def unit_names(self) -> dict[int, str]:
        """Unit index to what the unit is called, for all units of the encoders."""
        names: dict[int, str] = {}
        for entry in self.description["encoders"]:
            names |= {int(u): str(n) for u, n in zip(entry["units"], entry["names"], strict=True)}
        return names


def file_hash(payload: bytes) -> str:
    """Hash a file's content, as the folder's checksums are."""
    return hashlib.blake2b(payload, digest_size=20).hexdigest()


def read_stimuli(folder: str | Path) -> Folder:
    """Read a folder and check that every file in it is as it was written.

    Raises
    ------
    InputError
        Naming each image that was edited, removed, renamed or added, or another file that is not
        as it was.
    """
    path = Path(folder)
    description = _read_description(path)
    problems = check(path, description["files"])
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise InputError(f"{path}: not as it was written: {'; '.join(problems[:8])}{more}")
    try:
        with (path / MANIFEST).open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        typed = [
            _typed({n: row[n] if n not in LATER else row.get(n, "") for n in COLUMNS})
            for row in table
        ]
        units = {
            str(entry["name"]): np.array(entry["units"], dtype=np.int64)
            for entry in description["encoders"]
        }
        predictions = {
            name: np.array(
                [[float(row[f"{name}#{unit}"]) for unit in own] for row in table], dtype=np.float64
            ).reshape(len(table), len(own))
            for name, own in units.items()
        }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path / MANIFEST}: damaged ({error!r})") from error
    for row in typed:
        if f"{IMAGES}/{row['image']}" not in description["files"]:
            raise InputError(
                f"{path / MANIFEST}: {row['image'][:200]!r} is none of the folder's images; it was edited"
            )
    return Folder(path, description, typed, predictions, units)


def _read_description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    description = read_description(file, "name a folder that 'tuner stimuli export' wrote")
    if description.get("kind") != "stimuli" or description.get("format") != FORMAT:
        raise InputError(f"{file}: of another kind or format; this version reads {FORMAT}")
    try:
        for name, checksum in table("files", description.get("files")).items():
            text(f"files.{name}", checksum)
        for k, entry in enumerate(rows("encoders", description.get("encoders"))):
            text(f"encoders[{k}].name", entry.get("name"))
            text(f"encoders[{k}].about", entry.get("about", ""))
            whole(f"encoders[{k}].image_size", entry.get("image_size"), MAX_SIDE, 1)
            units, called = entry.get("units"), entry.get("names")
            if not isinstance(units, list) or not isinstance(called, list):
                raise ValueError(f"encoders[{k}]: units or names missing")
            if len(units) != len(called):
                raise ValueError(f"encoders[{k}]: other many units than names")
            for unit in units:
                whole(f"encoders[{k}].units", unit, 2**31)
        whole("background", description.get("background"), 255)
        rig = table("rig", description.get("rig"))
        whole("rig.size", rig.get("size", 0), MAX_SIDE)
        Rig(**rig)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: damaged ({str(error)[:200]})") from error
    return description


def check(path: Path, files: Mapping[str, str]) -> list[str]:
    """Compare a folder with the checksums of its files; returns what is wrong, file by file."""
    found = {
        str(file.relative_to(path).as_posix()): file_hash(file.read_bytes())
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != DESCRIPTION
    }
    unknown = {name: checksum for name, checksum in found.items() if name not in files}
    problems = []
    for name, checksum in files.items():
        if name not in found:
            now = [other for other, value in unknown.items() if value == checksum]
            if now:
                problems.append(f"{name} was renamed to {now[0]}")
                unknown.pop(now[0])
            else:
                problems.append(f"{name} is missing")
        elif found[name] != checksum:
            problems.append(f"{name} was edited")
    problems += [
        f"{name} does not belong here"
        for name in unknown
        if name.startswith(f"{IMAGES}/") and not Path(name).name.startswith(".")
    ]
    return problems


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    typed: dict[str, Any] = dict(row)
    typed["unit"] = int(row["unit"]) if row["unit"] else -1
    typed["variant"] = int(row["variant"])
    for name in ("width_px", "x_px", "y_px", "mean", "contrast"):
        typed[name] = float(row[name])
        if not math.isfinite(typed[name]):
            raise ValueError(f"{name} = {row[name]}")
    return typed


def seen_images(folder: Folder) -> NDArray[np.uint8]:
    """Return what the encoders see of each image as it is shown, ``(n, S, S, 3)``.

    Showing these to an encoder gives the predictions of the manifest.
    """
    rig = Rig(**folder.description["rig"])
    size = int(folder.description["encoders"][0]["image_size"])
    seen = []
    for row in folder.rows:
        pixels = decode(folder.path / IMAGES / row["image"])
        seen.append(
            as_seen(pixels, row["x_px"], row["y_px"], rig.side(size), size, folder.background)
        )
    return np.stack(seen)
