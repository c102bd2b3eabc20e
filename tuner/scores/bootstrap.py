"""Bootstrap over images, or groups of them: how far a score, or a choice between layers, can be trusted.

Images of one group (crops of a photograph, exemplars of a concept) are alike in what a model gets wrong, so where there are
groups whole groups are drawn; with images drawn one by one intervals would be too narrow.

Every score is a function of sums over images, so a bootstrap draw is a vector of counts and a
thousand draws of all units are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.drift import Times, without_drift
from tuner.scores.moments import (
    Floats,
    as_predictions,
    as_responses,
    nan_mean,
    nan_variance,
    rounding_floor,
)
from tuner.scores.signal import noise_of_means

SCORES = (
    "test_correlation",
    "test_correlation_normalized",
    "feve",
    "noise_ceiling",
    "explainable_variance",
)


def draw_counts(
    n_images: int, draws: int, seed: int, groups: NDArray[np.int64] | None = None
) -> Floats:
    """How often each image occurs in each bootstrap draw.

    Parameters
    ----------
    n_images
        Number of images to draw from, and per draw.
    draws
        Number of draws.
    seed
        Equal seeds give equal draws, so that scores of two models are compared pairwise.
    groups
        ``(n_images,)`` codes: as many whole groups as there are, are drawn. None: each image is its own.

    Returns
    -------
    numpy.ndarray
        ``(draws, n_images)``.
    """
    if groups is not None:
        order, member = np.unique(groups, return_inverse=True)
        return draw_counts(order.size, draws, seed)[:, member.reshape(-1)]
    picks = np.random.default_rng(seed).integers(n_images, size=(draws, n_images))
    flat = picks + n_images * np.arange(draws)[:, None]
    counts = np.bincount(flat.ravel(), minlength=draws * n_images)
    return counts.reshape(draws, n_images).astype(np.float64)


def bootstrap_scores(
    predictions: ArrayLike,
    responses: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
    drift: bool = True,
    times: Times | None = None,
) -> dict[str, Floats]:
    """Scores of bootstrap samples of the images, all units at once.

    A draw in which a score is undefined (no signal power left) is not thrown away: it holds
    ``+inf`` or ``-inf``, whichever the score tends to as the signal power falls to zero, and a
    ceiling of 0. Quantiles over draws are then right, and an infinite one says that the data
    give no limit on that side.

    Parameters
    ----------
    predictions
        ``(images, units)``.
    responses
        ``(repeats, images, units)``; NaN = missing.
    draws
        Number of bootstrap samples.
    seed
        Of the samples.
    groups
        ``(images,)`` codes of groups of images, drawn whole.
    drift, times
        Whether drift is taken out first, and codes of time besides; see
        :func:`tuner.scores.without_drift`.

    Returns
    -------
    dict
        ``(draws, units)`` for each of test_correlation, test_correlation_normalized, feve,
        noise_ceiling and explainable_variance.
    """
    y = without_drift(responses, times) if drift else as_responses(responses)
    p = as_predictions(predictions, y)
    return weighted_scores(p, y, draw_counts(y.shape[1], draws, seed, groups))


def weighted_scores(p: Floats, y: Floats, weights: Floats) -> dict[str, Floats]:
    """Scores where image t counts ``weights[:, t]`` times; see :func:`bootstrap_scores`."""
    there = ~np.isnan(y)
    count = there.sum(axis=0).astype(np.float64)
    seen = (count > 0).astype(np.float64)
    mean = nan_mean(y)
    # Centred first: sums of squares of uncentred responses would lose digits.
    centre = nan_mean(mean)
    m = np.where(count > 0, mean - centre, 0.0)
    centre_p = nan_mean(np.where(count > 0, p, np.nan))
    x = np.where(count > 0, p - centre_p, 0.0)
    single = np.where(there, y - centre, 0.0)
    error = np.where(there, y - p, 0.0)
    own = nan_variance(y)
    has_own = (~np.isnan(own)).astype(np.float64)
    noise_of_mean = noise_of_means(y)

    def total(values: Floats) -> Floats:
        return np.asarray(weights @ values)

    with np.errstate(invalid="ignore", divide="ignore"):
        images = total(seen)
        sum_m, sum_x = total(m), total(x)
        variance_m = (total(m * m) - sum_m**2 / images) / (images - 1)
        variance_x = (total(x * x) - sum_x**2 / images) / (images - 1)
        covariance = (total(m * x) - sum_m * sum_x / images) / (images - 1)
        power = variance_m - total(np.where(count > 0, noise_of_mean, 0.0)) / images
        noise = total(np.where(has_own > 0, own, 0.0)) / total(has_own)
        trials = total(count)
        variance_y = (total((single**2).sum(0)) - total(single.sum(0)) ** 2 / trials) / (trials - 1)
        squared_error = total((error**2).sum(0)) / trials
        varies = _varies(variance_m, m, mean) & _varies(variance_x, x, p)
        correlation = np.where(varies, covariance / np.sqrt(variance_m * variance_x), np.nan)
        positive = np.where(power <= 0, 0.0, power)  # stays NaN where nothing was repeated
        normalized = covariance / np.sqrt(positive * variance_x)
        explainable = np.where(variance_y > noise, variance_y - noise, 0.0)
        return {
            "test_correlation": correlation,
            "test_correlation_normalized": np.where(varies, normalized, np.nan),
            "feve": 1.0 - (squared_error - noise) / explainable,
            "noise_ceiling": np.sqrt(positive / variance_m),
            "explainable_variance": (variance_y - noise) / variance_y,
        }


def _varies(drawn: Floats, centred: Floats, values: Floats) -> NDArray[np.bool_]:
    """Whether a draw holds more than one value, rounding aside."""
    squares = (centred * centred).sum(axis=0)
    varies = squares > rounding_floor(values)
    return np.asarray(varies & (drawn > 1e-12 * squares / len(values)))


def interval(draws: Floats, level: float = 0.95, drawn: int | None = None) -> tuple[Floats, Floats]:
    """Percentile interval along axis 0; NaN for a limit that the draws leave open.

    The plain percentile interval of few drawn things is too narrow, as a normal interval is where Student's is due: with
    `drawn` its percentiles are moved outwards accordingly [1]_.

    Parameters
    ----------
    draws
        ``(draws, ...)``; infinite where a draw is undefined, NaN where the score itself is.
    level
        Share of draws inside.
    drawn
        Number of images, or groups, of a draw; None leaves the percentiles as they are.

    Returns
    -------
    low, high
        ``(...)`` each.

    References
    ----------
    .. [1] Hesterberg (2015), The American Statistician 69:371, expanded percentile interval.
    """
    tail = (1.0 - level) / 2.0
    if drawn is not None and drawn > 1:
        from scipy.stats import norm, t

        tail = float(norm.cdf(np.sqrt(drawn / (drawn - 1)) * t.ppf(tail, drawn - 1)))
    ordered = np.sort(draws, axis=0)  # NaN last: one NaN draw then shows in the upper limit
    last = len(draws) - 1
    low = ordered[int(np.floor(tail * last))]
    high = ordered[int(np.ceil((1.0 - tail) * last))]
    broken = np.isnan(draws).mean(axis=0) > tail  # the score has no sampling distribution here
    low = np.where(np.isfinite(low) & ~broken, low, np.nan)
    return low, np.where(np.isfinite(high) & ~broken, high, np.nan)


@dataclass(frozen=True)
class BootstrapDifference:
    """How two models compare on the same images.

    Attributes
    ----------
    difference
        Mean loss of the first minus mean loss of the second; negative: the first is better.
    low, high
        Percentile interval of the difference over draws of images.
    probability
        Share of draws in which the first is strictly better (ties count half).
    """

    difference: float
    low: float
    high: float
    probability: float


def _draw_losses(losses: Floats, counts: Floats) -> Floats:
    """Mean over units of the mean over a draw's images; NaN entries are left out, infinite ones count."""
    there = (~np.isnan(losses)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_unit = (counts @ np.where(np.isfinite(losses), losses, 0.0)) / (counts @ there)
        for limit in (np.inf, -np.inf):  # not by the product: 0 times infinity is no number
            drawn = counts @ (losses == limit).astype(np.float64) > 0
            per_unit = np.where(drawn, per_unit + limit, per_unit)
        return nan_mean(per_unit, axis=1)


def _per_image(losses: ArrayLike) -> Floats:
    array = np.asarray(losses, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: NDArray[np.int64] | None = None,
) -> BootstrapDifference:
    """Compare two models by their losses on the same images.

    Parameters
    ----------
    first, second
        Losses ``(images,)`` or ``(images, units)``; NaN = no response, left out in both.
    draws
        Number of bootstrap samples of the images.
    seed
        Of the samples.
    level
        Share of draws inside the interval.
    groups
        ``(images,)`` codes: whole groups are drawn, and the interval widened for few.

    Returns
    -------
    BootstrapDifference

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    a, b = _per_image(first), _per_image(second)
    if a.shape != b.shape:
        raise ValueError(f"losses of shapes {a.shape} and {b.shape} cannot be paired")
    gap = a - b
    everything = np.ones((1, len(gap)))
    samples = _draw_losses(gap, draw_counts(len(gap), draws, seed, groups))
    low, high = interval(samples, level, None if groups is None else np.unique(groups).size)
    return BootstrapDifference(
        difference=float(_draw_losses(gap, everything)[0]),
        low=float(low),
        high=float(high),
        probability=float(np.mean(samples < 0) + np.mean(samples == 0) / 2),
    )


def best_choice_probability(
    losses: Mapping[str, ArrayLike],
    *,
    draws: int = 2000,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """How often each candidate (a layer, say) has the lowest loss in a bootstrap of the images.

    Parameters
    ----------
    losses
        Per candidate ``(images,)`` or ``(images, units)``, all on the same images.
    draws
        Number of bootstrap samples.
    seed
        Of the samples.
    groups
        ``(images,)`` codes: whole groups are drawn.

    Returns
    -------
    dict
        Share of draws per candidate; ties go to the one named first; sums to 1.
    """
    arrays = {name: _per_image(value) for name, value in losses.items()}
    shapes: set[tuple[int, ...]] = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        raise ValueError(f"losses of the candidates differ in shape: {sorted(shapes)}")
    counts = draw_counts(next(iter(shapes))[0], draws, seed, groups)
    table = np.stack([_draw_losses(array, counts) for array in arrays.values()])
    winners: NDArray[np.int64] = np.argmin(np.where(np.isnan(table), np.inf, table), axis=0)
    share = np.bincount(winners, minlength=len(arrays)) / draws
    return {name: float(value) for name, value in zip(arrays, share, strict=True)}
