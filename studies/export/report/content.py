"""What the report is told: about each study, the recording, and where it all comes from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.figures.tables import UNIT_KEYS
from tuner.figures.trials import TrialCurve, best_trial, reported, visible_range


@dataclass(frozen=True)
class StudyDetails:
    """What is shown when a study's cell is chosen; anything unknown is left out of the page.

    Attributes
    ----------
    curves
        All trials with their reports.
    parameters
        Hyperparameters of the best trial.
    importance
        Hyperparameter to how much it sets the best trials apart; the shares add up to 1.
    importance_note
        How that was computed, or why it was not.
    settings
        Hyperparameter that varies to its value in each trial, in the order of ``curves``.
    log
        Those of them that are searched on a logarithmic scale.
    seconds
        Time spent on the study.
    units
        One row per unit of the study, as in ``units.csv``: its columns, scores, receptive field.
    unit_names
        How each unit is called under its images; in the order of ``units``.
    masks
        ``(n_units, h, w)``, where each unit's readout reads; not negative.
    images
        ``(n_images, H, W, 3)`` most exciting images of some or all units, float in [0, 1] or uint8.
    image_names
        How the unit of each is called; not given: as the units.
    image_notes
        A line per image, such as its predicted response.
    image_settings
        How the images were made: prior, contrast, seed.
    load
        Code that loads the study's encoder.
    notes
        Lines that the reader should see first.
    """

    curves: Sequence[TrialCurve] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    importance_note: str = ""
    settings: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    log: Collection[str] = ()
    seconds: float | None = None
    units: Sequence[Mapping[str, Any]] = ()
    unit_names: Sequence[str] = ()
    masks: ArrayLike | None = None
    images: ArrayLike | None = None
    image_names: Sequence[str] = ()
    image_notes: Sequence[str] = ()
    image_settings: str = ""
    load: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class RegionSummary:
    """A region of the recording; what is unknown is None.

    Attributes
    ----------
    name, area
        The region, and the area it belongs to where regions are smaller than areas.
    n_units, n_units_with_ceiling
        Number of its units, and of those that have a noise ceiling.
    reliability
        Mean over units, of a single presentation.
    noise_ceiling
        Mean over the units that have one.
    missing
        Share of missing training responses.
    """

    name: str
    n_units: int
    area: str = ""
    n_units_with_ceiling: int | None = None
    reliability: float | None = None
    noise_ceiling: float | None = None
    missing: float | None = None


@dataclass(frozen=True)
class RecordingSummary:
    """The recording as the report introduces it.

    Attributes
    ----------
    label, source
        What it is called and where it was read from.
    simulated
        Whether it is; said in the title, beside every map and every study.
    regions
        The recording's regions, in its order.
    facts
        Name to value, shown as a list: images, cut, repeats, image size, loss.
    notes
        What was dropped or is suspicious, a line each.
    """

    label: str
    source: str
    simulated: bool
    regions: Sequence[RegionSummary] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def plain(value: Any, digits: int = 4) -> Any:
    """Return a value that JSON can hold: numbers rounded, what is not finite None."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # numpy's scalars and arrays
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, digits) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def curves_json(curves: Sequence[TrialCurve]) -> dict[str, Any]:
    """Return trials on their common grid of steps: most share it, so it is written once."""
    grid: list[float] = []
    for curve in curves:
        steps = np.asarray(curve.steps, dtype=float).tolist()
        if len(steps) > len(grid):
            grid = steps
    best = best_trial(curves)
    low, high = visible_range(curves)
    trials = []
    for curve in curves:
        steps = np.asarray(curve.steps, dtype=float).tolist()
        trial = {
            "n": curve.number,
            "s": curve.state,
            "v": plain(np.asarray(curve.values, dtype=float)),
        }
        if steps != grid[: len(steps)]:
            trial["x"] = plain(steps, 6)
        trials.append(trial)
    return {
        "grid": plain(grid, 6),
        "trials": trials,
        "best": None if best is None else best.number,
        "value": None if best is None else plain(float(reported(best)[1].min())),
        "range": [plain(low), plain(high)],
    }


def units_json(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of units by column; the study's own name is not repeated in each row."""
    hidden = set(UNIT_KEYS) - {"unit"}
    columns = dict.fromkeys(name for row in rows for name in row if name not in hidden)
    return {
        "columns": list(columns),
        "values": [[plain(row.get(name)) for row in rows] for name in columns],
    }


def names_of(details: StudyDetails, count: int) -> list[str]:
    """Return ``count`` names of units: those given, else their indices."""
    given = [str(name) for name in details.unit_names]
    rows = [str(row.get("unit", index)) for index, row in enumerate(details.units)]
    for names in (given, rows):
        if len(names) == count:
            return names
    return [str(index) for index in range(count)]


def as_bytes(images: ArrayLike) -> NDArray[np.uint8]:
    """Return images ``(n, H, W, 3)`` in eight bits."""
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    scaled = np.clip(np.nan_to_num(array.astype(np.float64)), 0.0, 1.0) * 255
    return np.asarray(np.rint(scaled), dtype=np.uint8)
