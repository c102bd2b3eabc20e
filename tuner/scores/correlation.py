"""Correlations: of predictions with the mean response, and of repeats with one another."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from tuner.scores.moments import (
    MIN_IMAGES,
    Floats,
    as_predictions,
    as_responses,
    nan_mean,
    rounding_floor,
)


def correlate(first: Floats, second: Floats) -> Floats:
    """Pearson correlation along axis 0 over the entries that both have.

    Parameters
    ----------
    first, second
        Arrays of equal shape ``(images, ...)``; NaN = missing.

    Returns
    -------
    numpy.ndarray
        ``(...)``, in [-1, 1]; NaN where fewer than three entries are shared or where either
        side does not vary over them.
    """
    there = ~(np.isnan(first) | np.isnan(second))
    count = there.sum(axis=0)
    first = np.where(there, first, np.nan)
    second = np.where(there, second, np.nan)
    x = np.where(there, first - nan_mean(first), 0.0)
    y = np.where(there, second - nan_mean(second), 0.0)
    xx, yy, xy = (x * x).sum(axis=0), (y * y).sum(axis=0), (x * y).sum(axis=0)
    defined = (count >= MIN_IMAGES) & (xx > rounding_floor(first)) & (yy > rounding_floor(second))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip(xy / np.sqrt(xx * yy), -1.0, 1.0)  # clip: rounding, not statistics
    return np.asarray(np.where(defined, value, np.nan))


def pearson(predictions: ArrayLike, responses: ArrayLike) -> Floats:
    """Pearson correlation of predictions with the mean over repeats.

    ``r = corr_t(p_t, mean_r y_rt)``, over the images with at least one response.

    Parameters
    ----------
    predictions
        ``(images, ...)``. A prediction that is not a number makes its unit's score NaN.
    responses
        ``(repeats, images, ...)``; NaN = missing.

    Returns
    -------
    numpy.ndarray
        ``(...)``; NaN where predictions or mean responses do not vary, or where fewer than
        three images have a response.

    Examples
    --------
    >>> import numpy as np
    >>> from tuner.scores import pearson
    >>> responses = np.array([[1.0, 2.0, np.nan, 5.0], [3.0, 2.0, 4.0, 5.0]])
    >>> round(float(pearson([1.0, 1.0, 2.0, 3.0], responses)), 3)
    0.986
    """
    y = as_responses(responses)
    p = as_predictions(predictions, y)
    broken = ~np.isfinite(p).all(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(broken, np.nan, correlate(p, nan_mean(y))))


def pairwise_reliability(responses: ArrayLike) -> Floats:
    """Mean correlation between two repeats across images, over all pairs of repeats.

    Estimates ``S / (S + V)``: the reliability of a *single* presentation, with no root taken
    (S signal, V noise variance). It is what ``mean(reliab)`` of the THINGS ventral stream
    spiking dataset holds [1]_.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing. A pair counts where three images have both.

    Returns
    -------
    numpy.ndarray
        ``(...)``; NaN where no pair is defined.

    References
    ----------
    .. [1] Papale et al. (2025), Neuron, doi:10.1016/j.neuron.2024.12.003; ``norm_MUA.m``.
    """
    y = as_responses(responses)
    total = np.zeros(y.shape[2:])
    pairs = np.zeros(y.shape[2:])
    for first, second in combinations(range(len(y)), 2):
        value = correlate(y[first], y[second])
        total += np.where(np.isnan(value), 0.0, value)
        pairs += ~np.isnan(value)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, total / pairs, np.nan))


def split_half_reliability(responses: ArrayLike, *, splits: int = 10, seed: int = 0) -> Floats:
    """Split-half reliability of the mean over repeats, corrected by Spearman and Brown.

    The repeats are dealt into two halves, ``splits`` times; the correlations between the halves'
    means are averaged and then corrected to the full number of repeats,
    ``k r / (1 + (k - 1) r)``, where k is the ratio of the mean of ``1 / n`` in a half to that in
    the whole: 2 for an even number of repeats. (Correcting each split before averaging, as
    Brain-Score [1]_ does, lets one split near r = -1 decide.)

    Each image's own repeats are dealt, in one order of repeats for all, so halves stay equal
    where responses are missing; of an odd number one is left out, and k accounts for it.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing. Images with one response take no part.
    splits
        How many random halvings.
    seed
        Of the order of repeats.

    Returns
    -------
    numpy.ndarray
        ``(...)``; estimates ``S / (S + V / R)``. NaN where undefined.

    References
    ----------
    .. [1] Brain-Score, ``internal_consistency``; Spearman (1910) and Brown (1910).
    """
    y = as_responses(responses)
    generator = np.random.default_rng(seed)
    there = ~np.isnan(y)
    count = there.sum(axis=0)
    half = count // 2
    usable = half > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse_half = np.where(usable, 1.0 / half, 0.0).sum(axis=0)
        inverse_whole = np.where(usable, 1.0 / count, 0.0).sum(axis=0)
        factor = inverse_half / inverse_whole
    total = np.zeros(y.shape[2:])
    defined = np.zeros(y.shape[2:])
    for _ in range(splits):
        order = generator.permutation(len(y))
        values, mask = y[order], there[order]
        rank = np.cumsum(mask, axis=0) - 1  # the how-manieth of its image's responses
        dealt = mask & (rank < 2 * half)
        sides = [np.where(dealt & (rank % 2 == side), values, 0.0).sum(axis=0) for side in (0, 1)]
        with np.errstate(invalid="ignore", divide="ignore"):
            first, second = (np.where(usable, side / half, np.nan) for side in sides)
        r = correlate(first, second)
        total += np.where(np.isnan(r), 0.0, r)
        defined += ~np.isnan(r)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined > 0, total / defined, np.nan)
        return np.asarray(factor * mean / (1.0 + (factor - 1.0) * mean))
