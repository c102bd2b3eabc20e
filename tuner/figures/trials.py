"""A study's trials as figures and pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class TrialCurve:
    """One trial's reports.

    Attributes
    ----------
    number
        Number of the trial in its study.
    steps, values
        Step and validation loss of each report.
    state
        ``"complete"``, ``"pruned"``, ``"failed"``, ``"running"`` or ``"waiting"``.
    """

    number: int
    steps: ArrayLike
    values: ArrayLike
    state: str = "complete"


def best_trial(curves: Sequence[TrialCurve]) -> TrialCurve | None:
    """Return the complete trial with the lowest value at any report; ties to the lower number."""
    best: tuple[float, int] | None = None
    found = None
    for curve in curves:
        values = reported(curve)[1]
        if curve.state != "complete" or not values.size:
            continue
        key = (float(values.min()), curve.number)
        if best is None or key < best:
            best, found = key, curve
    return found


def visible_range(curves: Sequence[TrialCurve]) -> tuple[float, float]:
    """Limits of the loss axis that show what was learned, however far some trial diverged.

    Parameters
    ----------
    curves
        All trials of the study.

    Returns
    -------
    low, high
        The upper limit lies just above the loss of predicting the mean, or, where most trials
        end above it, above their median final value, to 1.5 at most.
    """
    finals, lowest = [], []
    for curve in curves:
        values = reported(curve)[1]
        if values.size:
            finals.append(float(values[-1]))
            lowest.append(float(values.min()))
    low = min([*lowest, 1.0])
    # Most trials end below the mean's loss; the few that do not would flatten all the others.
    high = 1.0 if not finals else min(max(float(np.median(finals)), 1.0), 1.5)
    margin = 0.05 * max(high - low, 0.1)
    return low - margin, max(high + margin, 1.05)


def reported(curve: TrialCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps and values of the reports that are finite."""
    steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
    there = np.isfinite(values)
    return steps[there], values[there]
