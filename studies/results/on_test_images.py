"""Scores on the test images: of units, of regions, and how sure they are. Everything that predicts is scored here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.workspace import Workspace
from tuner.figures.tables import WITH_LIMITS

_SEED = 0
"""Of the bootstrap, where intervals come from one: they come out the same at every export."""

DRAWS = 1000
"""Samples of images, where intervals come from them: ``data.intervals = "images"``."""

REGION_COLUMNS = (
    "test_correlation",
    "test_correlation_normalized",
    "test_correlation_normalized_median",
    "feve",
    "feve_median",
    "noise_ceiling",
    "n_units_with_ceiling",
    "n_units_gated",
)
"""Columns of ``heatmap.csv`` that come from the test images."""


def region_columns(
    workspace: Workspace, unit_scores: dict[str, NDArray[Any]]
) -> dict[str, float | int]:
    """A region's test scores, from those of its units."""
    from tuner.scores import summarise

    limit = workspace.experiment.data.min_explainable
    means = summarise(unit_scores, min_explainable=limit)
    return {name: means[name] for name in REGION_COLUMNS}


def limits(intervals: Mapping[str, tuple[float, float]], before: str = "") -> dict[str, float]:
    """Columns ``<score>_low`` and ``<score>_high`` of a region's scores."""
    return {
        f"{before}{score}_{limit}": value
        for score in WITH_LIMITS
        for limit, value in zip(("low", "high"), intervals.get(score, (np.nan,) * 2), strict=True)
    }


@dataclass(frozen=True)
class Tested:
    """What predictions of a region's units are worth on the test images.

    Attributes
    ----------
    units
        Score to its ``(n_units,)`` values.
    intervals
        Score to the 95 % limits of the region's mean.
    parts
        ``(parts,)`` pseudo-values of the region's mean test correlation, of which each part of the images has one: those
        of all that is predicted of a region can be subtracted. None without intervals, or where no unit is counted.
    """

    units: dict[str, NDArray[Any]]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    parts: NDArray[np.float64] | None = None

    def columns(self, workspace: Workspace) -> dict[str, float | int]:
        """The region's columns of ``heatmap.csv``, limits of intervals included."""
        return region_columns(workspace, self.units) | limits(self.intervals)


def on_test_images(
    workspace: Workspace,
    units: NDArray[np.int64],
    predicted: NDArray[Any],
    *,
    intervals: bool = True,
) -> Tested:
    """Score predictions of some units' responses to the test images.

    Parameters
    ----------
    units
        ``(n_units,)`` indices in the recording, all of one region.
    predicted
        ``(n_test, n_units)`` in the recording's units.
    intervals
        Whether to compute 95 % limits too.
    """
    from tuner.scores import bootstrap_scores, counted_units, region_intervals, score_units
    from tuner.scores.jackknife import LeftOut, leave_out, mean_intervals, pseudo_values

    assert workspace.recording.test_responses is not None
    measured = workspace.recording.test_responses[:, :, units]
    data, how = workspace.experiment.data, workspace.scoring
    if not intervals:
        return Tested(score_units(predicted, measured, intervals=None, seed=_SEED, **how))
    left = leave_out(predicted, measured, **how)
    by: LeftOut | Literal["bootstrap"] = left if data.intervals == "groups" else "bootstrap"
    scores = score_units(predicted, measured, intervals=by, draws=DRAWS, seed=_SEED, **how)
    counted = counted_units(scores, min_explainable=data.min_explainable)
    if not counted.any():
        return Tested(scores)
    if by is left:
        region = mean_intervals(left, counted)
    else:
        samples = bootstrap_scores(predicted, measured, draws=DRAWS, seed=_SEED, **how)
        region = region_intervals(samples, counted)
    return Tested(scores, region, pseudo_values(left, "test_correlation", counted))
