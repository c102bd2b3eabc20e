"""Whether a region, or single units, are predicted better than by their mean, or a lower loss may be chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.jackknife import interval


def beyond_chance(
    losses: ArrayLike,
    mean_losses: ArrayLike,
    *,
    trials: int = 1,
    groups: NDArray[np.int64] | None = None,
) -> bool:
    """Whether a fit predicts a region better than every unit's mean does on the same images.

    As :func:`units_beyond_chance` asks of a unit: the least loss of several trials was chosen on these images, and of noise
    some trial always does a little better.

    Parameters
    ----------
    losses, mean_losses
        ``(images,)`` means over the region's units of the fit and of predicting their means; images without a finite one
        are left out.
    trials, groups
        As of :func:`units_beyond_chance`.

    Returns
    -------
    bool
        False where there are fewer than two images or groups.
    """
    fit, mean = (np.asarray(values, dtype=np.float64) for values in (losses, mean_losses))
    there = np.isfinite(fit) & np.isfinite(mean)
    kept = None if groups is None else np.asarray(groups)[there]
    found = units_beyond_chance(fit[there, None], mean[there, None], trials=trials, groups=kept)
    return bool(found[0])


def units_beyond_chance(
    losses: ArrayLike,
    mean_losses: ArrayLike,
    *,
    trials: int = 1,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    r"""Whether a fit predicts each unit better than the unit's mean does on the same images.

    What is tested is the logarithm of the ratio of the two losses: a few images that a unit answers strongly carry most of
    either loss, so that their difference scatters from one set of images to the next far more than their ratio. The upper
    limit of its interval by leaving out one image, or group of images that are alike, after the other
    (:func:`tuner.scores.jackknife.interval`) must lie below 0, at the level that is left to each of several trials
    (Bonferroni). Where a loss is not positive, as a likelihood may be, their difference is tested.

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

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).normal(size=(200, 2))
    >>> guess = np.stack([0.5 * y[:, 0], 0.2 * y[::-1, 1]], axis=1)
    >>> units_beyond_chance((y - guess) ** 2, y**2, trials=20)
    array([ True, False])
    """
    fit, mean = (np.asarray(values, dtype=np.float64) for values in (losses, mean_losses))
    there = ~np.isnan(fit) & ~np.isnan(mean)
    broken = (there & ~(np.isfinite(fit) & np.isfinite(mean))).any(axis=0)
    usable = there & np.isfinite(fit) & np.isfinite(mean)
    codes = np.arange(len(fit)) if groups is None else np.unique(groups, return_inverse=True)[1]
    ours, theirs = (_summed(np.where(usable, values, 0.0), codes) for values in (fit, mean))
    present = _summed(usable.astype(np.float64), codes)
    level = 1.0 - 0.05 / max(1, trials)
    _, high = interval(*_gap(ours, theirs, present), level, there=present > 0)
    return np.asarray((high < 0) & ~broken)


def _gap(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], present: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How the summed losses of groups compare, of all ``(units,)`` and without each group ``(groups, units)``.

    The logarithm of their ratio where both are positive throughout, else the difference of their means.
    """
    sums = ours.sum(axis=0), theirs.sum(axis=0)
    rest = sums[0] - ours, sums[1] - theirs
    count = present.sum(axis=0)
    tiny = 1e-12 * np.maximum(np.abs(ours).sum(axis=0), np.abs(theirs).sum(axis=0))
    positive = (rest[0] > tiny).all(axis=0) & (rest[1] > tiny).all(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(sums[0] / sums[1]), np.log(rest[0] / rest[1])
        difference = (sums[0] - sums[1]) / count, (rest[0] - rest[1]) / (count - present)
    return (
        np.where(positive, ratio[0], difference[0]),
        np.where(positive, ratio[1], difference[1]),
    )


def _summed(values: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the images of each group, ``(groups, units)``."""
    out = np.zeros((int(codes.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, codes.reshape(-1), values)
    return out
