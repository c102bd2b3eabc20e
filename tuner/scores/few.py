"""Intervals of few values, where resampling them makes intervals too narrow, and of shares.

Of four paired differences of pure noise, the bootstrap's nominal 95 % interval of their mean excludes 0 about every
fifth time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean, of independent values that are about normal.

    Parameters
    ----------
    values
        ``(n,)``, finite.
    level
        Share of samples whose interval holds the true mean.

    Returns
    -------
    low, high : float
        NaN with fewer than two values.

    Examples
    --------
    >>> low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    >>> round(low, 2), round(high, 2)
    (0.45, 4.55)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    mean = float(x.mean())
    return mean - half, mean + half


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Interval of a median between two of the sorted values, whatever they are distributed like.

    A value is below the median as often as a coin shows heads, so that the k-th least and k-th largest hold it between them
    with probability ``1 - 2 P(heads < k)``; k is the largest with which that reaches ``level``.

    Parameters
    ----------
    values
        ``(n,)``, finite, independent.
    level
        Least share of samples whose interval holds the true median.

    Returns
    -------
    low, high : float
        NaN where even the least and the largest value hold it too rarely: below 6 values at 95 %.

    Examples
    --------
    >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    (1.0, 6.0)
    >>> median_interval([1.0, 2.0, 3.0])
    (nan, nan)
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    # The least k with P(heads <= k) of half the rest or more: fewer than k are rarer.
    k = int(stats.binom.ppf((1 - level) / 2, len(x), 0.5)) if len(x) else 0
    if k < 1:
        return float("nan"), float("nan")
    return float(x[k - 1]), float(x[-k])


def share_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (1927), as though what is counted had been drawn independently.

    Parameters
    ----------
    count, of
        How many of how many.
    level
        Share of samples whose interval holds the true share.

    Returns
    -------
    low, high : float
        NaN of none.

    Examples
    --------
    >>> [round(limit, 2) for limit in share_interval(23, 33)]
    [0.53, 0.83]
    """
    if of < 1:
        return float("nan"), float("nan")
    found = stats.binomtest(count, of).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)
