"""The tables behind the figures, written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.atomic import write_bytes

WITH_LIMITS = ("test_correlation", "test_correlation_normalized", "feve")
"""Scores of a region whose 95 % intervals stand beside them."""

LINES = ("smooth", "start")
"""What searches are compared with: the closed form of their layer and region, and the one that their columns started in."""

HEATMAP_COLUMNS = (
    "backbone",
    "layer",
    "layer_index",
    "region",
    "readout",
    "n_units",
    "n_trials",
    "validation_loss",
    "validation_correlation",
    "test_correlation",
    "test_correlation_normalized",
    "feve",
    "noise_ceiling",
    "n_units_with_ceiling",
    "fit_failed",
    "test_correlation_normalized_median",
    "feve_median",
    "n_units_gated",
    "below_smooth",
    "note",
    "n_complete",
    *(f"{score}_{limit}" for score in WITH_LIMITS for limit in ("low", "high")),
    *(f"against_{line}{part}" for line in LINES for part in ("", "_difference", "_low", "_high")),
)
"""One row per study."""

UNIT_KEYS = ("study", "backbone", "layer", "layer_index", "region", "readout", "unit")
"""First columns of the table of units: one row per study and unit."""

_WITH_INTERVALS = (
    "test_correlation",
    "test_correlation_normalized",
    "feve",
    "noise_ceiling",
    "explainable_variance",
)

FIELD_COLUMNS = (
    "rf_x",
    "rf_y",
    "rf_sigma",
    "rf_sigma_major",
    "rf_sigma_minor",
    "rf_angle",
    "rf_fit",
    "rf_x_deg",
    "rf_y_deg",
    "rf_sigma_deg",
)
"""Where a unit reads, in the table of units."""

UNIT_SCORES = frozenset(
    (
        "validation_loss",
        "validation_correlation",
        *_WITH_INTERVALS,
        *(f"{name}_{limit}" for name in _WITH_INTERVALS for limit in ("low", "high")),
        "reliability",
        "split_half",
        "has_ceiling",
        "responses_vary",
        "fit_failed",
        *FIELD_COLUMNS,
    )
)
"""Columns of the table of units that say how a unit is predicted and where it reads."""


def write_heatmap(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Write ``heatmap.csv``: the fixed columns, one row per study.

    Parameters
    ----------
    rows
        Each with the :data:`HEATMAP_COLUMNS`; missing ones and None, NaN are written empty.
    path
        The file; replaced at once, when it is complete.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a row has a column that the table does not.
    """
    rows = list(rows)
    for row in rows:
        extra = [name for name in row if name not in HEATMAP_COLUMNS]
        if extra:
            raise ValueError(f"no column of the heatmap table: {', '.join(extra)}")
    return write_csv(rows, HEATMAP_COLUMNS, path)


def write_units(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Write ``units.csv``: the :data:`UNIT_KEYS`, then all other columns as they first appear.

    Parameters
    ----------
    rows
        One per study and unit: its keys, its columns in the recording, scores with the limits of
        their intervals, receptive field.
    path
        The file; replaced at once, when it is complete.

    Returns
    -------
    Path
    """
    rows = list(rows)
    columns = dict.fromkeys(UNIT_KEYS)
    for row in rows:
        columns.update(dict.fromkeys(row))
    return write_csv(rows, tuple(columns), path)


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path) -> Path:
    """Write rows with these columns as UTF-8 CSV, atomically; missing values are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(row.get(name)) for name in columns])
    return write_bytes(path, buffer.getvalue().encode("utf-8"))


def cell(value: Any) -> str:
    """Return a value as it stands in a table: floats so that they read back the same."""
    if hasattr(value, "item"):
        value = value.item()  # a numpy scalar
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return harmless(str(value))


def harmless(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula and run; numbers stay numbers."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text.replace("\r", " ")  # a bare carriage return would end the row
    return text
