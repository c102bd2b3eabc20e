"""The page put together: one file, nothing fetched, every name shown as text."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from studies.export.report.content import (
    RecordingSummary,
    StudyDetails,
    as_bytes,
    curves_json,
    names_of,
    plain,
    units_json,
)
from studies.export.report.images import map_sheet, photo_sheet
from studies.names import StudyKey
from tuner.atomic import write_bytes
from tuner.figures import captions
from tuner.figures.against import against, against_closed_forms
from tuner.figures.captions import Basis
from tuner.figures.metrics import METRICS, number
from tuner.figures.panels import (
    BEST,
    HOW_TOLD,
    NOT_SURE,
    WORSE,
    Row,
    below,
    ceilings,
    choose_metric,
    failed,
    has_test,
    panels,
    pending,
    region_order,
    scale,
)
from tuner.figures.style import SEQUENTIAL
from tuner.figures.tables import WITH_LIMITS

LIMIT = 28_000_000
"""Bytes that a report stays under."""
PER_STUDY = 900_000
"""Bytes of images that a study gets where there is room."""
EXACT = 17
"""Digits of the scores: the page rounds them once, as the figures do. Of .96505, rounded to .965, it would make .96."""
LOSS = "validation_loss"
SCORES = (
    "n_units",
    "n_trials",
    LOSS,
    "validation_correlation",
    "test_correlation",
    "test_correlation_normalized",
    "feve",
    "noise_ceiling",
    "n_units_with_ceiling",
    *(f"{score}_{limit}" for score in WITH_LIMITS for limit in ("low", "high")),
)


def write_report(
    rows: Sequence[Row],
    details: Callable[[str], StudyDetails | None],
    recording: RecordingSummary,
    provenance: Mapping[str, Any],
    out: Path,
    *,
    references: Sequence[Row] = (),
    groups: Mapping[str, str] | None = None,
    basis: Basis | None = None,
    sure: Sequence[str] = (),
    limit: int = LIMIT,
) -> Path:
    """Write the report of a search as one HTML file.

    Parameters
    ----------
    rows
        Rows of the heatmap table, one per study.
    details
        Called with a study's name, gives its details; asked for once per study, in order, so
        that only one study's images are in memory. None: the maps alone.
    recording
        What the studies were fitted to.
    provenance
        Versions, seed, revision, time spent, the configuration: a string of several lines is
        shown as it is, a mapping as a list.
    out
        The file; replaced at once, when it is complete.
    references
        Rows of references (a closed-form ridge), shown as maps beside the studies and as columns
        of each study's scores.
    groups
        The area of each region, where regions are smaller than areas.
    basis
        What the scores rest on, which is said of every map and study; None: what the rows tell of it.
    sure
        Sentences on how sure the choice of layers is.
    limit
        Bytes the file stays under; images are scaled so that it does.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if not rows:
        raise ValueError("no studies to report")
    heading = f"Which layer explains which region: {recording.label}"
    known = basis or Basis(n_test=None if has_test(rows) else 0)
    head = _overview(rows, references, recording, provenance, groups, known)
    shell = _asset("page.html")
    parts = {
        "title": html.escape(heading),
        "style": _asset("page.css"),
        "script": "\n".join(
            _asset(name) for name in ("draw.js", "maps.js", "search.js", "study.js")
        ),
        "overview": _json_block("overview", head | {"title": heading, "sure": list(sure)}),
    }
    used = len(shell) + sum(map(len, parts.values()))
    blocks = []
    for index, row in enumerate(rows):
        found = details(study_name(row))
        if found is None:
            continue
        share = (limit - used) / (len(rows) - index)
        block = _json_block(f"study-{index}", _study(found, share))
        used += len(block)
        blocks.append(block)
    parts["studies"] = "\n".join(blocks)
    page = shell
    # One pass over the template, so that text put in cannot be mistaken for a place to fill.
    pieces = page.split("{{")
    text = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        text += [parts[name], rest]
    return write_bytes(Path(out), "".join(text).encode("utf-8"))


def study_name(row: Row) -> str:
    """Name of the study a row is about."""
    return StudyKey(*(str(row[part]) for part in ("backbone", "layer", "region", "readout"))).name


def _asset(name: str) -> str:
    return (files("studies.export.report") / name).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever its strings hold.

    ``<``, ``>`` and ``&`` are written as escapes, so no ``</script>`` or ``<!--`` can end the
    element, and the two line separators that older JavaScript does not allow as well.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # a lone surrogate, as a broken file name may hold, cannot be written as UTF-8
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _json_block(identity: str, value: Any) -> str:
    return f'<script type="application/json" id="{identity}">{json_text(value)}</script>'


def _overview(
    rows: Sequence[Row],
    references: Sequence[Row],
    recording: RecordingSummary,
    provenance: Mapping[str, Any],
    groups: Mapping[str, str] | None,
    basis: Basis,
) -> dict[str, Any]:
    """Everything but the studies' details: the maps, their scales, recording, provenance."""
    everything = [*rows, *references]
    tested = has_test(rows)
    known = ceilings(rows)
    index = {id(row): place for place, row in enumerate(everything)}
    grid = [
        [
            {
                "backbone": panel.backbone,
                "readout": panel.readout,
                "layers": panel.layers,
                "cells": {
                    layer: {
                        region: index[id(panel.cells[layer, region])]
                        for region in region_order(everything, groups)
                        if (layer, region) in panel.cells
                    }
                    for layer in panel.layers
                },
                "best": panel.best,
            }
            for panel in line
            if panel.cells
        ]
        for line in panels(rows, references)
    ]
    metrics = []
    for shown in METRICS.values():
        if not any(math.isfinite(number(row.get(shown.name))) for row in rows):
            continue
        apart = captions.no_loss(references, basis) if shown.name == LOSS else ""
        limits = scale(
            rows if apart else everything, shown, ceiling=shown.comparable_ceiling and bool(known)
        )
        said = {
            "over": captions.scores(rows, shown, basis),
            "beside": captions.joined(captions.beside(references), apart),
            "against": against(rows, shown, basis.untrained),
        }
        metrics.append(asdict(shown) | {"limits": limits} | said)
    colours = mpl.colormaps[SEQUENTIAL](np.linspace(0, 1, 64))[:, :3]
    shown_rows = [_row(row, row["readout"] == captions.STACKED, basis) for row in rows]
    for row in references:
        one = _row(row, True, basis)
        if captions.no_loss([row], basis):
            one.pop(LOSS, None)
        shown_rows.append(one)
    return {
        "rows": shown_rows,
        "no_loss": captions.no_loss(references, basis),
        "untrained": sorted(basis.untrained),
        "words": {
            "not_sure": NOT_SURE,
            "how_told": HOW_TOLD,
            "worse": WORSE,
            "best": BEST,
            "interval": captions.interval(basis),
        },
        "grid": grid,
        "regions": list(region_order(everything, groups)),
        "areas": dict(groups or {}),
        "ceilings": plain(known, EXACT),
        "metrics": metrics,
        "metric": choose_metric(rows, None).name,
        "tested": tested,
        "colours": [mpl.colors.to_hex(colour) for colour in colours],
        "recording": plain(asdict(recording)),
        "provenance": plain(dict(provenance), 8),
    }


def _row(row: Row, reference: bool, basis: Basis) -> dict[str, Any]:
    result: dict[str, Any] = {
        "study": study_name(row),
        **{part: str(row[part]) for part in ("backbone", "layer", "region", "readout")},
        **{name: plain(row.get(name), EXACT) for name in SCORES if row.get(name) not in (None, "")},
    }
    if failed(row):
        result["failed"] = True
    if pending(row):
        result["pending"] = True
    if below(row):
        result["below"] = True
    if reference:
        result["reference"] = True
        return result
    # One sentence for the scores on test images, one for those that choices were made on.
    kinds = [
        METRICS[LOSS],
        *([METRICS["test_correlation"]] if has_test([row]) else []),
    ]
    result["over"] = [
        captions.joined(*([] if metric.selected_on else ["test scores"]), text)
        for metric in kinds
        if (text := captions.scores([row], metric, basis))
    ]
    result["compared"] = against_closed_forms(row)
    return result


def _study(details: StudyDetails, share: float) -> dict[str, Any]:
    """One study's details; its images get what its share of the file leaves them."""
    result: dict[str, Any] = {
        "curves": curves_json(details.curves),
        "parameters": plain(details.parameters, 6),
        "importance": plain(details.importance),
        "importance_note": details.importance_note,
        "settings": plain(details.settings),
        "log": sorted(details.log),
        "seconds": plain(details.seconds),
        "units": units_json(details.units),
        "load": details.load,
        "notes": list(details.notes),
    }
    room = min(share - len(json_text(result)) - 2_000, PER_STUDY)
    if details.masks is not None:
        maps = np.asarray(details.masks, dtype=np.float64)
        sheet = map_sheet(maps, int(room * (0.4 if details.images is not None else 0.9)))
        if sheet is not None:
            result["masks"] = sheet.json() | {
                "names": names_of(details, len(maps)),
                "cells": list(maps.shape[1:]),
            }
            room -= len(sheet.uri)
    if details.images is not None:
        pictures = as_bytes(details.images)
        photo = photo_sheet(pictures, int(room * 0.95))
        if photo is not None:
            result["images"] = photo.json() | {
                "names": list(details.image_names) or names_of(details, len(pictures)),
                "given": len(pictures),
                "notes": [str(note) for note in details.image_notes],
                "settings": details.image_settings,
            }
    return result
