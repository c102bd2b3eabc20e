"""Intervals of scores by leaving out images, or whole groups of them, one after the other.

Of few groups a bootstrap draws some several times and others not at all, so that what is drawn varies less than what was
recorded: correlations, and above all the ratios of variances that are FEVe and ceilings, then lie below the score that they
are to enclose, and a percentile interval misses the truth far more often than it says. The jackknife over groups, with
Student's quantiles, does not (``python -m benchmarks.intervals`` has both).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tuner.scores.bootstrap import weighted_scores
from tuner.scores.drift import Times, without_drift
from tuner.scores.moments import Floats, as_predictions, as_responses

MOST_PARTS = 1000
"""Parts that images are dealt into at most: more make intervals no better."""

_LOWEST = {"noise_ceiling": 0.0, "test_correlation": -1.0}
_HIGHEST = {"noise_ceiling": 1.0, "test_correlation": 1.0, "feve": 1.0, "explainable_variance": 1.0}


@dataclass(frozen=True)
class LeftOut:
    """Scores of all images, and of all but one part of them.

    Attributes
    ----------
    whole
        Score to ``(units,)``.
    without
        Score to ``(parts, units)``. Infinite where a score is undefined without that part: no signal power is left.
    """

    whole: Mapping[str, Floats]
    without: Mapping[str, Floats]

    def of(self, units: slice) -> LeftOut:
        """The same of some units."""
        return LeftOut(
            {name: values[units] for name, values in self.whole.items()},
            {name: values[:, units] for name, values in self.without.items()},
        )


def parts(n_images: int, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Number of the part that each image belongs to: its group, or itself.

    Parameters
    ----------
    n_images
        Number of images.
    groups
        ``(n_images,)`` codes. None: each image is its own.

    Returns
    -------
    numpy.ndarray
        ``(n_images,)`` from 0. Where there are more than :data:`MOST_PARTS`, they are dealt together at random, always
        alike.
    """
    codes = np.arange(n_images) if groups is None else np.asarray(groups)
    order, member = np.unique(codes, return_inverse=True)
    member = member.reshape(-1).astype(np.int64)
    if order.size <= MOST_PARTS:
        return member
    dealt: NDArray[np.int64] = np.random.default_rng(0).permutation(order.size) % MOST_PARTS
    return dealt[member]


def leave_out(
    predictions: ArrayLike,
    responses: ArrayLike,
    *,
    groups: NDArray[np.int64] | None = None,
    drift: bool = True,
    times: Times | None = None,
) -> LeftOut:
    """Score all units without each image, or each group of images.

    Parameters
    ----------
    predictions
        ``(images, units)``.
    responses
        ``(repeats, images, units)``; NaN = missing.
    groups
        ``(images,)`` codes of groups of images, left out whole.
    drift, times
        Whether drift is taken out first, and codes of time besides; see :func:`tuner.scores.without_drift`.

    Returns
    -------
    LeftOut
    """
    y = without_drift(responses, times) if drift else as_responses(responses)
    p = as_predictions(predictions, y)
    member = parts(y.shape[1], groups)
    count = int(member.max()) + 1 if member.size else 0
    whole = weighted_scores(p, y, np.ones((1, member.size)))
    left = weighted_scores(p, y, (np.arange(count)[:, None] != member).astype(np.float64))
    return LeftOut({name: values[0] for name, values in whole.items()}, left)


def interval(
    whole: ArrayLike, without: ArrayLike, level: float = 0.95, there: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    r"""Student's interval of a score from what it is without each part.

    With :math:`n` parts, :math:`\theta` of all images and :math:`\theta_{-j}` without part :math:`j`,

    .. math:: s^2 = \frac{n-1}{n} \sum_j (\theta_{-j} - \bar\theta)^2, \qquad
              \bar\theta = \frac 1 n \sum_j \theta_{-j},

    the limits are :math:`\min(\theta, \theta') - t s` and :math:`\max(\theta, \theta') + t s`, where
    :math:`\theta' = n \theta - (n-1) \bar\theta` is the score less its bias of order :math:`1/n` and :math:`t` Student's
    quantile of :math:`n - 1` degrees of freedom [1]_.

    Parameters
    ----------
    whole
        ``(...)``: of all images.
    without
        ``(n, ...)``: without each part.
    level
        Share of recordings whose interval holds the score of endless images.
    there
        ``(n, ...)`` bool: which parts count, where some hold nothing of a score. None: all.

    Returns
    -------
    low, high
        ``(...)`` each; NaN where the data give no limit: a score that a single part decides, or fewer than two parts.

    References
    ----------
    .. [1] Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapters 10 and 11.
    """
    theta, left = np.asarray(whole, dtype=np.float64), np.asarray(without, dtype=np.float64)
    counted = np.ones(left.shape, dtype=bool) if there is None else np.asarray(there)
    n = np.maximum(counted.sum(axis=0), 2)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(counted, left, 0.0).sum(axis=0) / n
        squares = np.where(counted, np.square(left - mean), 0.0).sum(axis=0)
        unbiased = n * theta - (n - 1) * mean
        half = stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt((n - 1) / n * squares)
        low, high = np.minimum(theta, unbiased) - half, np.maximum(theta, unbiased) + half
    known = np.isfinite(low) & np.isfinite(high) & (counted.sum(axis=0) > 1)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def score_intervals(left: LeftOut, level: float = 0.95) -> dict[str, tuple[Floats, Floats]]:
    """Intervals of every unit's scores, within what each score can be.

    Parameters
    ----------
    left
        From :func:`leave_out`.
    level
        As of :func:`interval`.

    Returns
    -------
    dict
        ``(low, high)``, each ``(units,)``, per score.
    """
    return {
        name: _possible(
            name, left.whole[name], interval(left.whole[name], left.without[name], level)
        )
        for name in left.whole
    }


def mean_intervals(
    left: LeftOut, units: ArrayLike, *, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Intervals of a region's means over units; images are left out for all its units together.

    Parameters
    ----------
    left
        From :func:`leave_out`.
    units
        ``(units,)`` bool or indices: those that make up the mean.
    level
        As of :func:`interval`.

    Returns
    -------
    dict
        ``(low, high)`` per score; NaN where the data give no limit, and where the score is undefined for all.
    """
    result = {}
    for name in left.whole:
        whole, without = _means(left, name, units)
        low, high = _possible(name, whole, interval(whole, without, level))
        result[name] = (float(low), float(high))
    return result


def pseudo_values(left: LeftOut, name: str, units: ArrayLike) -> Floats:
    """What each part of the images adds to a mean over units, as though scores were means over parts.

    ``n theta - (n - 1) theta_j``, with ``theta_j`` the score without part j (Tukey 1958). Their mean is the score less its
    bias of order 1 / n, their standard error the jackknife's.

    Parameters
    ----------
    left
        From :func:`leave_out`.
    name
        The score.
    units
        ``(units,)`` bool or indices: those that make up the mean.

    Returns
    -------
    numpy.ndarray
        ``(parts,)``.
    """
    whole, without = _means(left, name, units)
    with np.errstate(invalid="ignore"):
        return np.asarray(len(without) * whole - (len(without) - 1) * without)


def _means(left: LeftOut, name: str, units: ArrayLike) -> tuple[Floats, Floats]:
    """A score's mean over units, of all images and without each part; NaN where it is undefined for all units."""
    chosen = np.asarray(units)
    picked = np.vstack([left.whole[name][None, chosen], left.without[name][:, chosen]])
    if picked.size == 0 or np.isnan(picked).all():
        return np.asarray(np.nan), np.full(len(left.without[name]), np.nan)
    if name.startswith("test_correlation"):  # a constant prediction explains nothing: 0
        picked = np.where(np.isnan(picked), 0.0, picked)
    with np.errstate(invalid="ignore"):
        means = picked.mean(axis=1)
    return np.asarray(means[0]), means[1:]


def _possible(name: str, whole: Floats, limits: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Limits within what a score can be, or as far beyond as its estimate is."""
    lowest, highest = _LOWEST.get(name, -np.inf), _HIGHEST.get(name, np.inf)
    low = np.maximum(limits[0], np.minimum(lowest, whole))
    return low, np.minimum(limits[1], np.maximum(highest, whole))
