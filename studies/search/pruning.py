"""The median rule: which trials of a round are stopped at a report.

A trial's best value so far is compared with the median over *all* trials of the study begun in this or earlier rounds, at
the same step; a trial that was stopped keeps its last best. Counting survivors only would ratchet: each median would be
taken over ever better trials, until hardly any trial completes and the best is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MIN_OTHERS = 5
WARMUP_TENTHS = 3
"""Nothing is stopped before this many tenths of the reports."""


def carried_forward(curve: Mapping[int, float], steps: Sequence[int]) -> NDArray[np.float64]:
    """Best value so far at each of ``steps``; a curve that ends early keeps its last best.

    Parameters
    ----------
    curve
        Step to reported value; NaN counts as infinite.
    steps
        The report grid, increasing.

    Returns
    -------
    ndarray
        ``(len(steps),)``, infinite before the first report.
    """
    best = np.full(len(steps), np.inf)
    least = np.inf
    for i, step in enumerate(steps):
        value = curve.get(step, np.inf)
        least = min(least, np.inf if np.isnan(value) else value)
        best[i] = least
    return best


def stopped(
    report: int,
    reports: int,
    current: NDArray[np.float64],
    others: NDArray[np.float64],
    running: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which running trials of a round the median rule stops at a report.

    Parameters
    ----------
    report
        Number of the report, from 1.
    reports
        Number of reports of a whole trial.
    current
        ``(n,)`` best value so far of every trial of the round, stopped ones included.
    others
        ``(m,)`` best value so far at this step of the trials of earlier rounds.
    running
        ``(n,)`` which trials of the round still run.

    Returns
    -------
    ndarray
        ``(n,)`` bool.
    """
    none = np.zeros(len(current), dtype=bool)
    if report >= reports or 10 * report < WARMUP_TENTHS * reports:
        return none
    everyone = np.concatenate([current, others])
    if len(everyone) - 1 < MIN_OTHERS:
        return none
    ordered = np.sort(everyone)
    middle = len(ordered) // 2
    # Not np.median: the mean of two infinite values must stay infinite, without a warning.
    low, high = ordered[middle - 1 + len(ordered) % 2], ordered[middle]
    median = low if low == high else low + (high - low) / 2
    worse: NDArray[np.bool_] = running & (current > median)
    return worse
