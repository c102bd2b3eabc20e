"""How sure a region's mean score is, and the difference between two fits of the same units on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from tuner.scores.bootstrap import interval
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
    drawn: int | None = None,
) -> dict[str, tuple[float, float]]:
    """Intervals of a region's means over units.

    Parameters
    ----------
    draws, units
        As of :func:`region_means`.
    level
        Share of draws inside.
    drawn
        Number of images, or groups, of a draw, where the interval is to be widened for few; None leaves it as it is.

    Returns
    -------
    dict
        ``(low, high)`` per score; NaN for a limit that the draws leave open, and for both where the
        score is undefined for all.
    """
    means = region_means(draws, units)
    limits = {name: interval(values, level, drawn) for name, values in means.items()}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def difference_interval(
    first: Floats, second: Floats, *, level: float = 0.95, drawn: int | None = None
) -> tuple[float, float]:
    """Interval of the difference between two fits' means, where both are over the same units and the same samples.

    Both rise and fall with the images that a sample holds, which their difference is free of: it is surer than either.

    Parameters
    ----------
    first, second
        ``(draws,)`` means of one score, of the same samples of the images.
    level, drawn
        As of :func:`region_intervals`.

    Returns
    -------
    low, high
        NaN for a limit that the draws leave open.

    Raises
    ------
    ValueError
        If they are of different numbers of samples.
    """
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} samples cannot be paired")
    with np.errstate(invalid="ignore"):
        low, high = interval(first - second, level, drawn)
    return float(low), float(high)
