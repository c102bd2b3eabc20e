"""The median rule: which trials of a round are stopped at a report.

At rungs a trial's best value so far is compared with those of the trials of the study, begun in this or earlier rounds,
that reached the same step: a share of them, the best, go on at each.

At reports, as in the releases before, it is compared with the median over *all* trials at the same step; a trial that was
stopped keeps its last best. Counting survivors only would ratchet there: each of many medians would be taken over ever
better trials, until hardly any trial completes and the best is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

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
    worse: NDArray[np.bool_] = running & (current > _median(everyone))
    return worse


def stopped_at_rung(
    current: NDArray[np.float64],
    others: NDArray[np.float64],
    running: NDArray[np.bool_],
    share: Fraction,
) -> NDArray[np.bool_]:
    """Which running trials of a round are not in the better part of all that reached a rung.

    Parameters
    ----------
    current
        ``(n,)`` best value so far of the round's trials that reached it, those that diverged there included.
    others
        ``(m,)`` best value at the rung of the trials of earlier rounds that reached it.
    running
        ``(n,)`` which trials of the round still run.
    share
        Of all that reached it, which goes on.

    Returns
    -------
    ndarray
        ``(n,)`` bool. Where the share is no whole number of trials one more lives, and so do those that equal the last.
    """
    ordered = np.sort(np.concatenate([current, others]))
    worse: NDArray[np.bool_] = running & (current > ordered[math.ceil(share * len(ordered)) - 1])
    return worse


def of_earlier(
    curves: Sequence[Mapping[int, float]], steps: Sequence[int], *, reached: bool
) -> list[NDArray[np.float64]]:
    """Best values so far of earlier trials, for each of ``steps``; with ``reached`` of those that came so far alone.

    Parameters
    ----------
    curves
        Step to reported value, of each trial.
    steps
        The report grid, increasing.
    """
    best = np.array([carried_forward(curve, steps) for curve in curves]).reshape(-1, len(steps))
    if not reached:
        return list(best.T)
    there = np.array([[step in curve for step in steps] for curve in curves], dtype=bool)
    return [best[there[:, i], i] if len(curves) else best[:, i] for i in range(len(steps))]


def _median(values: NDArray[np.float64]) -> float:
    """Not np.median: the mean of two infinite values must stay infinite, without a warning."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    low, high = ordered[middle - 1 + len(ordered) % 2], ordered[middle]
    return float(low if low == high else low + (high - low) / 2)
