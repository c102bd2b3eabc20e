"""Whether single units are predicted better than by their mean, or a lower loss may be chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def units_beyond_chance(
    losses: ArrayLike,
    mean_losses: ArrayLike,
    *,
    trials: int = 1,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Whether a fit predicts each unit better than the unit's mean does on the same images.

    As :func:`tuner.scores.beyond_chance` asks of a region, but with Student's interval in place of a bootstrap, since
    there are thousands of units: the upper limit of the mean difference of the two losses, at the level that is left to each
    of several trials (Bonferroni), must lie below 0. Images of a group are alike, so groups are the sample: a group's
    deviations from the mean difference are summed before they are squared (the sandwich estimator for clusters).

    Parameters
    ----------
    losses, mean_losses
        ``(images, units)`` of the fit and of predicting the mean; NaN where there is no response.
    trials
        Number of trials that the fit was chosen from.
    groups
        ``(images,)`` codes of the images that are alike; None: each image is its own.

    Returns
    -------
    numpy.ndarray
        ``(units,)``; False for a unit with responses in fewer than two groups, or a loss that is not finite.

    References
    ----------
    .. [1] Cameron & Miller (2015), Journal of Human Resources 50:317, the cluster-robust variance with the correction
       G / (G - 1).

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).normal(size=(200, 2))
    >>> guess = np.stack([0.5 * y[:, 0], 0.2 * y[::-1, 1]], axis=1)
    >>> units_beyond_chance((y - guess) ** 2, y**2, trials=20)
    array([ True, False])
    """
    from scipy.stats import t

    fit, mean = (np.asarray(values, dtype=np.float64) for values in (losses, mean_losses))
    with np.errstate(invalid="ignore"):
        gap = fit - mean
    there = ~np.isnan(fit) & ~np.isnan(mean)
    codes = np.arange(len(gap)) if groups is None else np.unique(groups, return_inverse=True)[1]
    finite = np.where(there & np.isfinite(gap), gap, 0.0)
    n = there.sum(axis=0)
    difference = finite.sum(axis=0) / np.maximum(n, 1)
    deviations = np.where(there, finite - difference, 0.0)
    sums = _summed(deviations, codes)
    drawn = (_summed(there.astype(np.float64), codes) > 0).sum(axis=0)
    some = np.maximum(drawn, 2)
    error = np.sqrt(np.square(sums).sum(axis=0) * some / (some - 1)) / np.maximum(n, 1)
    high = difference + t.ppf(1.0 - 0.025 / max(1, trials), some - 1) * error
    broken = (there & ~np.isfinite(gap)).any(axis=0)
    return np.asarray((high < 0) & (drawn > 1) & ~broken)


def _summed(values: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the images of each group, ``(groups, units)``."""
    out = np.zeros((int(codes.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, codes.reshape(-1), values)
    return out
