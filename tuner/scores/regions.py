"""How sure a region's mean score is, and the difference between two fits of the same units on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from tuner.scores.bootstrap import interval
from tuner.scores.few import mean_interval
from tuner.scores.moments import Floats


def region_means(draws: Mapping[str, Floats], units: ArrayLike) -> dict[str, Floats]:
    """A region's means over units in each bootstrap sample; the images are drawn once for all its units.

    Parameters
    ----------
    draws
        From :func:`tuner.scores.bootstrap_scores`.
    units
        ``(units,)`` bool or indices: those that make up the mean (those with a ceiling).

    Returns
    -------
    dict
        ``(draws,)`` per score; NaN throughout where the score is undefined for all units.
    """
    chosen = np.asarray(units)
    result = {}
    for name, values in draws.items():
        picked = values[:, chosen]
        if np.isnan(picked).all():  # no unit at all, or nothing that could be normalised
            result[name] = np.full(len(values), np.nan)
            continue
        if name.startswith("test_correlation"):  # a constant prediction explains nothing: 0
            picked = np.where(np.isnan(picked), 0.0, picked)
        with np.errstate(invalid="ignore"):
            result[name] = picked.mean(axis=1)
    return result


def region_intervals(
    draws: Mapping[str, Floats],
    units: ArrayLike,
    *,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Intervals of a region's means over units.

    Parameters
    ----------
    draws, units
        As of :func:`region_means`.
    level
        Share of draws inside.

    Returns
    -------
    dict
        ``(low, high)`` per score; NaN for a limit that the draws leave open, and for both where the
        score is undefined for all.
    """
    means = region_means(draws, units)
    limits = {name: interval(values, level) for name, values in means.items()}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def difference_interval(
    first: Floats, second: Floats, *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference between two fits' means over the same units and images.

    Both rise and fall with the images, which their difference is free of: it is surer than either.

    Parameters
    ----------
    first, second
        ``(parts,)`` from :func:`tuner.scores.jackknife.pseudo_values`, of the same parts.
    level
        Share of recordings whose interval holds the true difference.

    Returns
    -------
    low, high
        NaN where the data give no limit.

    Raises
    ------
    ValueError
        If they are of different numbers of parts.
    """
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} parts cannot be paired")
    with np.errstate(invalid="ignore"):
        gap = first - second
    return mean_interval(gap, level) if np.isfinite(gap).all() else (np.nan, np.nan)
