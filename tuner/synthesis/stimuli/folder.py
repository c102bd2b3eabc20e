"""The folder for the rig: PNGs, a manifest with predictions, an order, and checksums of it all.

``manifest.csv`` has a row per image: what it is, whom it is meant for, where it belongs on the
screen, its checksum, and the predicted response of every unit of every encoder to it as shown.
``order.csv`` says what is shown when. ``stimuli.json`` vouches for every file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.encoder import Encoder
from tuner.errors import EnvironmentFailure, InputError
from tuner.figures.tables import write_bytes, write_csv
from tuner.synthesis.determinism import surroundings
from tuner.synthesis.evaluate import responses
from tuner.synthesis.export import describe, png_bytes
from tuner.synthesis.photometry import statistics
from tuner.synthesis.stimuli.choice import Stimulus
from tuner.synthesis.stimuli.placement import Light, Rig, light_of, show

DESCRIPTION = "stimuli.json"
MANIFEST = "manifest.csv"
ORDER = "order.csv"
NOTE = "README.txt"
IMAGES = "images"
FORMAT = 1

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
    "blake2b",
)
"""First columns of the manifest; then ``<encoder>#<unit>``, the predictions."""


@dataclass(frozen=True)
class Folder:
    """A stimulus folder that was read and found whole.

    Attributes
    ----------
    path
        Where it is.
    description
        ``stimuli.json``.
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
    def images(self) -> list[str]:
        """File names, in the order of the rows."""
        return [str(row["image"]) for row in self.rows]

    def unit_names(self) -> dict[int, str]:
        """Unit index to what the unit is called, for all units of the encoders."""
        names: dict[int, str] = {}
        for entry in self.description["encoders"]:
            names |= {int(u): str(n) for u, n in zip(entry["units"], entry["names"], strict=True)}
        return names


def write_stimuli(
    folder: str | Path,
    stimuli: Sequence[Stimulus],
    encoders: Mapping[str, Encoder],
    rig: Rig,
    *,
    mean: float = 0.5,
    blocks: int = 20,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the folder.

    Parameters
    ----------
    folder
        Must not hold another set of stimuli.
    stimuli
        What is shown.
    encoders
        By name: whose predictions are written down.
    rig
        How it is shown.
    mean
        The background, 0 to 1.
    blocks
        How often each image is shown: each block has every image once, in an order of its own.
    seed
        Of the orders.
    extra
        Further plain values for the description.
    progress
        Called with images done and to do.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds other stimuli already, or ``blocks`` is less than 1.
    EnvironmentFailure
        If it cannot be written.
    """
    folder = Path(folder)
    if blocks < 1:
        raise InputError(f"blocks = {blocks}: must be at least 1")
    if (folder / DESCRIPTION).exists() or (folder / IMAGES).exists():
        raise InputError(f"{folder}: holds stimuli already; name another folder, or remove it")
    grey = round(255 * mean)
    lights = _lights(stimuli, rig, grey)
    shown = [
        show(stimulus.image, rig, grey, stimulus.field, light)
        for stimulus, light in zip(stimuli, lights, strict=True)
    ]
    seen = np.stack([each.seen for each in shown])
    names = list(encoders)
    predicted = responses([encoders[name] for name in names], seen, progress)
    means, contrasts = statistics(seen)
    rows: list[dict[str, Any]] = []
    checksums: dict[str, str] = {}
    width = len(str(len(stimuli)))
    try:
        for k, (stimulus, each) in enumerate(zip(stimuli, shown, strict=True)):
            file = _file_name(k + 1, width, stimulus)
            payload = png_bytes(each.pixels)
            write_bytes(folder / IMAGES / file, payload)
            checksums[f"{IMAGES}/{file}"] = _hash(payload)
            row = _row(file, stimulus, rig, _hash(payload))
            row |= _place(len(each.pixels), each.x, each.y, rig)
            row |= {"mean": round(float(means[k]), 4), "contrast": round(float(contrasts[k]), 4)}
            for name, answers in zip(names, predicted, strict=True):
                for unit, value in zip(encoders[name].unit_indices, answers[k], strict=True):
                    row[f"{name}#{int(unit)}"] = float(value)
            rows.append(row)
        write_csv(rows, list(rows[0]), folder / MANIFEST)
        order = block_order([row["image"] for row in rows], blocks, seed)
        write_csv(order, ("block", "position", "image"), folder / ORDER)
        write_bytes(folder / NOTE, _note(rows, rig, encoders, blocks, mean).encode())
        for file in (MANIFEST, ORDER, NOTE):
            checksums[file] = _hash((folder / file).read_bytes())
        description = {
            "format": FORMAT,
            "kind": "stimuli",
            "simulated": any(encoder.simulated for encoder in encoders.values()),
            **(extra or {}),
            "rig": asdict(rig),
            "background": grey,
            "blocks": blocks,
            "seed": seed,
            "encoders": [
                {
                    "name": name,
                    **describe(encoder),
                    "units": [int(unit) for unit in encoder.unit_indices],
                    "names": encoder.unit_names(),
                }
                for name, encoder in encoders.items()
            ],
            "surroundings": surroundings(next(iter(encoders.values())).device),
            "files": checksums,
        }
        text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
        write_bytes(folder / DESCRIPTION, text.encode())
    except OSError as error:
        raise EnvironmentFailure(f"cannot write stimuli to {folder}: {error}") from error
    return folder


def _lights(stimuli: Sequence[Stimulus], rig: Rig, grey: int) -> list[Light | None]:
    """Say what mean and contrast each image is brought to: those of its unit's first own image.

    The own image itself is shown as it was made.
    """
    own: dict[tuple[str, int], Light] = {}
    for stimulus in stimuli:
        key = stimulus.study, stimulus.unit
        if stimulus.kind == "mei" and key not in own:
            own[key] = light_of(stimulus.image, rig, grey, stimulus.field)
    return [
        None
        if stimulus.kind == "grey" or (stimulus.kind == "mei" and stimulus.variant == 0)
        else own.get((stimulus.study, stimulus.unit))
        for stimulus in stimuli
    ]


def _hash(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=20).hexdigest()


def _file_name(number: int, width: int, stimulus: Stimulus) -> str:
    parts = [f"{number:0{max(4, width)}d}", stimulus.kind]
    if stimulus.unit >= 0:
        parts.append(re.sub(r"[^\w.+-]+", "-", stimulus.name).strip("-.")[:60] or "unit")
    return "_".join(parts) + ".png"


def _row(file: str, stimulus: Stimulus, rig: Rig, checksum: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    return row | {
        "image": file,
        "kind": stimulus.kind,
        "study": stimulus.study,
        "unit": stimulus.unit if stimulus.unit >= 0 else None,
        "name": stimulus.name,
        "variant": stimulus.variant,
        "origin": stimulus.origin,
        "blake2b": checksum,
    }


def _place(width: int, x: float, y: float, rig: Rig) -> dict[str, Any]:
    place: dict[str, Any] = {"width_px": width, "x_px": x, "y_px": y}
    if rig.pixels_per_degree > 0:
        for name in ("width", "x", "y"):
            place[f"{name}_deg"] = round(place[f"{name}_px"] / rig.pixels_per_degree, 4)
    return place


def block_order(images: Sequence[str], blocks: int, seed: int) -> list[dict[str, Any]]:
    """Order the images: every block has each once; block b depends on (seed, b) alone."""
    rows = []
    for block in range(blocks):
        order = np.random.default_rng((seed, 0xB10C, block)).permutation(len(images))
        rows += [
            {"block": block + 1, "position": k + 1, "image": images[int(index)]}
            for k, index in enumerate(order)
        ]
    return rows


def _note(
    rows: Sequence[Mapping[str, Any]],
    rig: Rig,
    encoders: Mapping[str, Encoder],
    blocks: int,
    mean: float,
) -> str:
    simulated = any(encoder.simulated for encoder in encoders.values())
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row["kind"])] = counts.get(str(row["kind"]), 0) + 1
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if rig.placement == "full":
        where = "Show every image in the middle of the screen."
    else:
        where = (
            "Each image is cut out around a receptive field and fades into the background. Show "
            "its middle at x_px, y_px (pixels of the screen from its middle, right and up)."
        )
    scale = (
        f"The screen is taken to have {rig.pixels_per_degree:g} pixels per degree."
        if rig.pixels_per_degree > 0
        else "Pixels per degree of the screen were not given: columns in degrees are empty."
    )
    return f"""\
{"SIMULATED: predictions of encoders fitted to simulated units." if simulated else "Stimuli"}
{len(rows)} images ({kinds}), each shown once in each of {blocks} blocks: see order.csv.

Screen
  Background grey {round(255 * mean)} of 255. {where}
  {scale} Do not scale the files.

Luminance and gamma
  Pixel values, mean and contrast are those of the 8-bit files, not of luminance. The encoders know
  images only as files, shown on the screen of the recording they were fitted to. Show these on the
  same screen with the same look-up table. With a gamma of 2.2 a pixel value of half the range is
  22 % of the largest luminance; if one session was linearised and the other was not, contrast and
  mean luminance differ between them, and predictions do not hold.

Coming back
  tuner stimuli score <this folder> <responses>
  takes the responses in the generic HDF5 format, or as a CSV with a column "image" (the file
  names), a column "repeat" if images were shown more than once, and a column per unit, headed by
  its index or its name. Do not edit or rename files here: all are checked against stimuli.json.
"""


# reading


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
        rows = [_typed({name: row[name] for name in COLUMNS}) for row in table]
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
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path / MANIFEST}: damaged ({error!r})") from error
    return Folder(path, description, rows, predictions, units)


def _read_description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if description["kind"] != "stimuli" or description["format"] != FORMAT:
            raise InputError(f"{file}: of another kind or format; this version reads {FORMAT}")
        dict(description["files"])
        list(description["encoders"])
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); name a folder that "
            "'tuner stimuli export' wrote"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged ({error!r})") from error
    return description


def check(path: Path, files: Mapping[str, str]) -> list[str]:
    """Compare a folder with the checksums of its files; returns what is wrong, file by file."""
    found = {
        str(file.relative_to(path).as_posix()): _hash(file.read_bytes())
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
    return typed
