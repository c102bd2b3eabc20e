"""Recorded responses to the stimuli: from a CSV, or from a recording in the generic format."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.synthesis.stimuli.manifest import IMAGES, Folder

Floats = NDArray[np.float64]
_REPEATS = ("repeat", "block")


@dataclass(frozen=True)
class Answers:
    """What was recorded.

    Attributes
    ----------
    responses
        ``(n_repeats, n_images, n_units)``, images in the order of the folder; NaN = missing.
    units
        ``(n_units,)``: indices in the recording that the encoders were fitted to.
    notes
        How units were told, what is missing; one line each.
    """

    responses: Floats
    units: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def read_answers(path: str | Path, folder: Folder) -> Answers:
    """Read responses to the images of a folder.

    Parameters
    ----------
    path
        ``.csv``: a column ``image`` with the file names, optionally ``repeat`` (or ``block``), and
        a column per unit, headed by its index (``#7``, ``7`` or ``unit_7``) or its name; empty = missing. A
        plain number that is the index of one unit and the name of another is refused.
        Anything else is read as a recording in the generic HDF5 format, whose images are told by
        their file names, or by their pixels where they are stored in the file.
    folder
        The folder of stimuli that was shown.

    Returns
    -------
    Answers

    Raises
    ------
    InputError
        If the file cannot be read, holds an image that was not among the stimuli, no unit that is
        known, or a response that is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the responses as .csv or generic .h5")
    found = _from_csv(path, folder) if path.suffix.lower() == ".csv" else _from_hdf5(path, folder)
    if not np.isfinite(found.responses).any():
        raise InputError(f"{path}: holds no response to any of the stimuli")
    shown = np.isfinite(found.responses).any(axis=2).any(axis=0)
    missing = [
        name for name, there in zip(folder.images, np.atleast_1d(shown), strict=True) if not there
    ]
    notes = list(found.notes)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"no response to {len(missing)} images: {', '.join(missing[:5])}{more}")
    return Answers(found.responses, found.units, tuple(notes))


def _from_csv(path: Path, folder: Folder) -> Answers:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    if "image" not in header:
        raise InputError(f"{path}: has no column 'image' with the names of the image files")
    columns, notes = _unit_columns(path, header, folder)
    counter = next((name for name in _REPEATS if name in header), None)
    where = {name: k for k, name in enumerate(folder.images)}
    cells: dict[tuple[int, int], Floats] = {}
    seen: dict[int, int] = {}
    labels: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(
                f"{path}, line {line}: has {'more' if None in row else 'fewer'} cells than the {len(header)} of "
                "the first line"
            )
        name = Path(str(row["image"] or "").strip()).name
        if name not in where:
            raise InputError(f"{path}, line {line}: {name!r} is not one of the stimuli")
        image = where[name]
        if counter is None:
            repeat = seen.get(image, 0)
            seen[image] = repeat + 1
        else:
            repeat = labels.setdefault(str(row[counter]).strip(), len(labels))
        if (repeat, image) in cells:
            raise InputError(
                f"{path}, line {line}: {name} stands twice under {counter} {row[counter]}"
            )
        cells[repeat, image] = np.array(
            [_number(row[column], path, line, column) for column in columns], dtype=np.float64
        )
    repeats = 1 + max((repeat for repeat, _ in cells), default=0)
    responses = np.full((repeats, len(folder.images), len(columns)), np.nan)
    for (repeat, image), values in cells.items():
        responses[repeat, image] = values
    return Answers(responses, np.array(list(columns.values()), dtype=np.int64), tuple(notes))


_INDEX = re.compile(r"(?:#|unit[ _-]?)?(\d+)")
"""How the index of a unit may be written."""

_LARGEST = 1e12
"""Beyond what any amplifier or counter says; squares of it still have room."""


def _number(text: str | None, path: Path, line: int, column: str) -> float:
    text = (text or "").strip()
    if not text or text.lower() in ("nan", "na"):
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{path}, line {line}, column {column}: {text!r} is no number") from None
    if not np.isfinite(value):
        raise InputError(f"{path}, line {line}, column {column}: the response is infinite")
    if abs(value) > _LARGEST:
        raise InputError(
            f"{path}, line {line}, column {column}: {text} is no response; mend the file"
        )
    return value


def _unit_columns(
    path: Path, header: Sequence[str], folder: Folder
) -> tuple[dict[str, int], list[str]]:
    """Column to unit index, and what is to be said about it."""
    names = folder.unit_names()
    by_name = _unique({name: unit for unit, name in names.items()}, list(names.values()))
    columns: dict[str, int] = {}
    ignored = []
    for column in header:
        if column == "image" or column in _REPEATS:
            continue
        index = _INDEX.fullmatch(column)
        if column in by_name:
            unit = by_name[column]
            other = None if index is None else int(index.group(1))
            if other in names and other != unit:
                raise InputError(
                    f"{path}: column {column} may be the unit of index {other} ({names[other]}) or that of index {unit}, "
                    f"whose name is {column}; head columns by # and the index, such as #{unit}"
                )
        elif index and int(index.group(1)) in names:
            unit = int(index.group(1))
        else:
            ignored.append(column)
            continue
        if unit in columns.values():
            raise InputError(f"{path}: two columns are of unit {unit} ({names[unit]})")
        columns[column] = unit
    if not columns:
        raise InputError(
            f"{path}: no column is headed by the index or name of a unit of the stimuli "
            f"(such as {', '.join(f'#{u} or {n}' for u, n in list(names.items())[:2])})"
        )
    notes = []
    asked = dict.fromkeys(int(row["unit"]) for row in folder.rows if row["kind"] == "mei")
    absent = [unit for unit in asked if unit not in columns.values()]
    numbered = [column for column in ignored if _INDEX.fullmatch(column)]
    if numbered and absent:
        raise InputError(
            f"{path}: column {numbered[0]} is no unit of the stimuli, and unit {absent[0]} ({names[absent[0]]}) has no "
            "column; if units are counted from 1 there, head the columns by their indices from 0 (such as "
            f"#{absent[0]}), or by their names"
        )
    if ignored:
        notes.append(f"columns that name no unit are not used: {', '.join(ignored[:8])}")
    if absent:
        more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
        without = ", ".join(f"{unit} ({names[unit]})" for unit in absent[:8])
        notes.append(f"no column of units {without}{more}")
    return columns, notes


def _unique(mapping: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    return {name: unit for name, unit in mapping.items() if names.count(name) == 1}


def _from_hdf5(path: Path, folder: Folder) -> Answers:
    from tuner.recordings import load_recording

    recording = load_recording(path, "hdf5", images=folder.path / IMAGES)
    parts: list[tuple[Iterator[tuple[str, ...]], NDArray[np.float32]]] = []
    known = _by_pixels(folder)
    parts.append((_told(recording.train_images, folder, known), recording.train_responses[None]))
    if recording.test_images is not None and recording.test_responses is not None:
        parts.append((_told(recording.test_images, folder, known), recording.test_responses))
    units, rows, note = _told_units(path, recording.units, recording.n_units, folder)
    where = {name: k for k, name in enumerate(folder.images)}
    gathered: dict[int, list[Floats]] = {}
    strangers = 0
    seen: dict[tuple[str, ...], int] = {}
    for told, responses in parts:
        for k, names in enumerate(told):
            if not names:
                strangers += 1
                continue
            # the picture may serve several units under several names: each its own presentation
            name = names[seen.get(names, 0) % len(names)]
            seen[names] = seen.get(names, 0) + 1
            gathered.setdefault(where[name], []).extend(
                np.asarray(repeat[k][rows], dtype=np.float64) for repeat in responses
            )
    for twins in known.values():  # one that was shown under one of its names only
        given = [where[name] for name in twins if where[name] in gathered]
        if given:
            for name in twins:
                gathered.setdefault(where[name], gathered[given[0]])
    if not gathered:
        raise InputError(f"{path}: none of its images is one of the stimuli in {folder.path}")
    repeats = max(len(each) for each in gathered.values())
    out = np.full((repeats, len(folder.images), len(units)), np.nan)
    for image, each in gathered.items():
        out[: len(each), image] = each
    notes = [note]
    if strangers:
        notes.append(f"{strangers} images of the recording are none of the stimuli: not used")
    return Answers(out, units, tuple(notes))


def _pixel_hash(pixels: NDArray[np.uint8]) -> str:
    array = np.ascontiguousarray(pixels)
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).hexdigest()


def _by_pixels(folder: Folder) -> dict[str, tuple[str, ...]]:
    """Hash of the pixels to the names of the images that have them."""
    from PIL import Image

    known: dict[str, tuple[str, ...]] = {}
    for name in folder.images:
        with Image.open(folder.path / IMAGES / name) as image:
            key = _pixel_hash(np.asarray(image.convert("RGB")))
        known[key] = (*known.get(key, ()), name)
    return known


def _told(
    source: object, folder: Folder, known: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, ...]]:
    """Name each image of a recording by its file, else by its pixels; none for a stranger."""
    from tuner.recordings import ImageSource

    assert isinstance(source, ImageSource)
    files = set(folder.images)
    for index, name in enumerate(source.names):
        file = Path(str(name)).name
        yield (file,) if file in files else known.get(_pixel_hash(source.read(index)), ())


def _told_units(
    path: Path, columns: Mapping[str, NDArray[np.generic]], count: int, folder: Folder
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return units (indices in the fitted recording), their rows here, and how they were told."""
    names = folder.unit_names()
    by_name = _unique({name: unit for unit, name in names.items()}, list(names.values()))
    if "unit" in columns and np.asarray(columns["unit"]).dtype.kind in "iu":
        pairs = [
            (int(str(u)), row) for row, u in enumerate(columns["unit"]) if int(str(u)) in names
        ]
        note = "units were told by the column units/unit"
    elif "name" in columns and len(set(map(str, columns["name"]))) == count:
        pairs = [
            (by_name[str(name)], row)
            for row, name in enumerate(columns["name"])
            if str(name) in by_name
        ]
        note = "units were told by their names"
    else:
        pairs = [(unit, unit) for unit in sorted(names) if unit < count]
        note = "units were taken to be in the order of the fitted recording"
    if not pairs:
        raise InputError(
            f"{path}: none of its units is one of the stimuli's; give them a column units/unit "
            "(their index in the fitted recording) or units/name"
        )
    units, rows = (np.array(part, dtype=np.int64) for part in zip(*pairs, strict=True))
    if len(set(units.tolist())) < len(units):
        raise InputError(f"{path}: a unit occurs twice")
    return units, rows, note
