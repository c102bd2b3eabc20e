"""The folder for the rig: PNGs, a manifest with predictions, an order, and checksums of it all.

``manifest.csv`` has a row per image: what it is, whom it is meant for, where it belongs on the
screen, its checksum, and the predicted response of every unit of every encoder to it as shown.
``order.csv`` says what is shown when. ``stimuli.json`` vouches for every file.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tuner.atomic import write_bytes
from tuner.encoder import Encoder
from tuner.errors import EnvironmentFailure, InputError
from tuner.figures.captions import in_units
from tuner.figures.tables import write_csv
from tuner.synthesis.determinism import surroundings
from tuner.synthesis.evaluate import responses
from tuner.synthesis.export import png_bytes
from tuner.synthesis.manifest import describe
from tuner.synthesis.photometry import statistics
from tuner.synthesis.stimuli.choice import Stimulus
from tuner.synthesis.stimuli.manifest import (
    COLUMNS,
    DESCRIPTION,
    FORMAT,
    IMAGES,
    MANIFEST,
    NOTE,
    ORDER,
    file_hash,
    read_stimuli,
)
from tuner.synthesis.stimuli.placement import Light, Rig, light_inside, light_of, show

__all__ = ["read_stimuli", "write_stimuli"]


def write_stimuli(
    folder: str | Path,
    stimuli: Sequence[Stimulus],
    encoders: Mapping[str, Encoder],
    rig: Rig,
    *,
    mean: float = 0.5,
    blocks: int = 20,
    seed: int = 0,
    about: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the folder.

    Parameters
    ----------
    folder
        Must not hold another set of stimuli.
    stimuli
        The images that are shown.
    encoders
        Encoders by name, whose predictions are written down.
    rig
        How the images are shown.
    mean
        The background, 0 to 1.
    blocks
        How often each image is shown: each block has every image once, in an order of its own.
    seed
        Seed of the orders in which blocks show the images.
    about
        Encoder by name to what it is, see :func:`tuner.figures.captions.encoder`: in the note, in the description, and on
        figures of what comes back.
    notes
        What else whoever shows the images is to know, a sentence each: in the note.
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
    names, about = list(encoders), dict(about or {})
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
            checksums[f"{IMAGES}/{file}"] = file_hash(payload)
            row = _row(file, stimulus, rig, file_hash(payload))
            row |= _place(len(each.pixels), each.x, each.y, rig)
            row |= {"mean": round(float(means[k]), 4), "contrast": round(float(contrasts[k]), 4)}
            if stimulus.field is not None:
                inside = light_inside(each.seen, rig, stimulus.field)
                row["mean_inside"] = round(inside.mean / 255, 4)
                row["contrast_inside"] = round(inside.rms / 255, 4)
            for name, answers in zip(names, predicted, strict=True):
                for unit, value in zip(encoders[name].unit_indices, answers[k], strict=True):
                    row[f"{name}#{int(unit)}"] = float(value)
            rows.append(row)
        write_csv(rows, list(rows[0]), folder / MANIFEST)
        order = block_order([row["image"] for row in rows], blocks, seed)
        write_csv(order, ("block", "position", "image"), folder / ORDER)
        write_bytes(folder / NOTE, _note(rows, rig, encoders, blocks, mean, about, notes).encode())
        for file in (MANIFEST, ORDER, NOTE):
            checksums[file] = file_hash((folder / file).read_bytes())
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
                    **({"about": about[name]} if about.get(name) else {}),
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


def _listed(heading: str, sentences: Sequence[str]) -> str:
    """A part of the note, a paragraph each; nothing where there is none."""
    if not sentences:
        return ""
    lines = [
        textwrap.fill(line, 98, initial_indent="  ", subsequent_indent="    ") for line in sentences
    ]
    return "\n".join(["", heading, *lines, ""])


def _past_the_border(row: Mapping[str, Any], side: int) -> bool:
    """Whether the window of a centred image reaches past the picture that it is cut out of.

    Two pixels more are cut out than the window is wide, which show nothing.
    """
    reach = max(abs(row["x_px"]), abs(row["y_px"])) + row["width_px"] / 2
    return row["kind"] != "grey" and bool(reach - 2 > side / 2)


def _note(
    rows: Sequence[Mapping[str, Any]],
    rig: Rig,
    encoders: Mapping[str, Encoder],
    blocks: int,
    mean: float,
    about: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    simulated = any(encoder.simulated for encoder in encoders.values())
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row["kind"])] = counts.get(str(row["kind"]), 0) + 1
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    side = rig.size or next(iter(encoders.values())).image_size
    where = f"Background grey {round(255 * mean)} of 255. "
    if rig.placement == "full":
        where += "Show every image in the middle of the screen."
    else:
        where += (
            "Each image is cut out around a receptive field and fades into the background. Show "
            "its middle at x_px, y_px (pixels of the screen from its middle, right and up)."
        )
        past = sum(_past_the_border(row, side) for row in rows)
        if past:
            where += (
                f" Of {past} images the field reaches past the border of the picture: there the picture ends in a "
                "straight edge, with the background beyond, and the file can be wider than a whole image. "
                "Encoders were shown them so."
            )
    where = textwrap.fill(where, 98, initial_indent="  ", subsequent_indent="  ")
    scale = (
        f"The screen is taken to have {rig.pixels_per_degree:g} pixels per degree."
        if rig.pixels_per_degree > 0
        else "Pixels per degree of the screen were not given: columns in degrees are empty."
    )
    said = [f"{name}: {about[name]}" for name in encoders if about.get(name)]
    units = {str(encoder.meta.get("measured_in", "")) for encoder in encoders.values()}
    scaled = in_units(units.pop() if len(units) == 1 else "")
    described = _listed("Encoders", said) + _listed("What is lacking", notes)
    return f"""\
{"SIMULATED: predictions of encoders fitted to simulated units." if simulated else "Stimuli"}
{len(rows)} images ({kinds}), each shown once in each of {blocks} blocks: see order.csv.
{described}
Screen
{where}
  {scale}
  A whole image is {side} pixels a side on this screen. That must be as large, in degrees, as the
  images of the recording were shown: the encoders know them at that size alone (--size makes
  others). Do not scale the files.

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
  # and its index, as in manifest.csv ("#7"), or by its name.
  Predictions in manifest.csv are {scaled}.
  Do not edit or rename files here: all are checked against stimuli.json.
"""
