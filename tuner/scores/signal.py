"""Signal and noise: how much of a unit's responses a model of the image could explain.

The model behind every formula: ``y_rt = s_t + d_r + e_rt``, signal variance S over images, noise
variance V over repeats, and the drift ``d_r`` of whole repeats, which is taken out first unless
``drift=False`` says that there is none. ``n_t`` is the number of responses to image t, ``v_t`` their variance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.correlation import pearson
from tuner.scores.drift import without_drift
from tuner.scores.moments import (
    MIN_IMAGES,
    Floats,
    as_predictions,
    as_responses,
    nan_mean,
    nan_variance,
    rounding_floor,
)


def _steady(responses: ArrayLike, drift: bool) -> Floats:
    return without_drift(responses) if drift else as_responses(responses)


def noise_variance(responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Variance over repeats, averaged over the images that have at least two: ``mean_t v_t``.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``; NaN where no image was repeated.
    """
    return _noise(_steady(responses, drift))


def _noise(y: Floats) -> Floats:
    return nan_mean(nan_variance(y))


def noise_of_means(responses: Floats) -> Floats:
    """Noise variance of each image's mean response, ``v_t / n_t``; NaN where there is none.

    An image with a single response has no variance of its own: it gets the unit's average.
    """
    count = (~np.isnan(responses)).sum(axis=0)
    own = nan_variance(responses)
    variance = np.where(np.isnan(own), nan_mean(own), own)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, variance / count, np.nan))


def _power(responses: Floats) -> tuple[Floats, Floats]:
    """Signal power and the variance of the mean response, both NaN where undefined."""
    mean = nan_mean(responses)
    images = (~np.isnan(mean)).sum(axis=0)
    variance = np.where(images >= MIN_IMAGES, nan_variance(mean), np.nan)
    return np.asarray(variance - nan_mean(noise_of_means(responses))), np.asarray(variance)


def signal_power(responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Unbiased estimate of the signal's variance over images.

    ``SP = var_t(mean_r y) - mean_t(v_t / n_t)``. For equal repeats it is
    ``(var_t(sum_r y) - sum_r var_t(y_r)) / (R (R - 1))`` of Schoppe et al. [1]_; written this
    way it stays unbiased when repeats are unequal or responses missing.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``; can be negative, and is left so. NaN where no image was repeated or fewer
        than three images have a response.

    References
    ----------
    .. [1] Schoppe, Harper, Willmore, King, Schnupp (2016), Front. Comput. Neurosci. 10:10.
    """
    return _power(_steady(responses, drift))[0]


def cc_max(responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Largest correlation with the mean response that any model can expect.

    ``CCmax = sqrt(SP / var_t(mean_r y))`` (Schoppe et al. 2016), 0 where SP <= 0, as there.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``, in [0, 1]; NaN where the signal power is undefined.
    """
    power, variance = _power(_steady(responses, drift))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.sqrt(np.where(power > 0, power, np.nan) / variance)
    return np.asarray(np.where(power <= 0, 0.0, value))


def cc_abs(predictions: ArrayLike, responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Correlation with the mean response, ``CCnorm * CCmax`` (Schoppe et al. 2016).

    The same number as :func:`tuner.scores.pearson` where every image was shown in every repeat.

    Parameters
    ----------
    predictions
        ``(images, ...)``.
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``.
    """
    return pearson(predictions, _steady(responses, drift))


def cc_norm(predictions: ArrayLike, responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Correlation with the signal: the correlation divided by its ceiling.

    ``CCnorm = cov_t(p, mean_r y) / sqrt(SP var_t(p))`` (Schoppe et al. 2016).

    Parameters
    ----------
    predictions
        ``(images, ...)``.
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``; may exceed 1, for SP is an estimate. NaN where SP <= 0 or undefined, or
        where predictions do not vary.
    """
    y = _steady(responses, drift)
    p = as_predictions(predictions, y)
    mean = nan_mean(y)
    power = _power(y)[0]
    there = ~np.isnan(mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(there, p, np.nan)
        broken = (there & ~np.isfinite(p)).any(axis=0)
        x, m = p - nan_mean(p), mean - nan_mean(mean)
        squares = np.where(there, x * x, 0.0).sum(axis=0)
        freedom = there.sum(axis=0) - 1
        covariance = np.where(there, x * m, 0.0).sum(axis=0) / freedom
        value = covariance / np.sqrt(np.where(power > 0, power, np.nan) * squares / freedom)
        flat = squares <= rounding_floor(p)
    return np.asarray(np.where(broken | flat, np.nan, value))


def _total_variance(responses: Floats) -> Floats:
    trials = responses.reshape(-1, *responses.shape[2:])
    return nan_variance(trials)


def has_ceiling(responses: ArrayLike, *, drift: bool = True) -> NDArray[np.bool_]:
    """Whether what a model can reach is defined: signal power and explainable variance are positive.

    With equal repeats the two always have the same sign; where responses are missing a weak unit
    may have one without the other, and its FEVe or its CCnorm would be undefined.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)`` bool.
    """
    y = _steady(responses, drift)
    return np.asarray((_power(y)[0] > 0) & (_total_variance(y) > _noise(y)))


def explainable_variance(responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Fraction of the variance of single responses that is not noise.

    ``EV = (V_tot - V_noise) / V_tot``, V_tot the variance over all single responses and
    ``V_noise = mean_t v_t`` (Cadena et al. 2019 [1]_).

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``; can be negative. NaN where responses do not vary or no image was repeated.

    References
    ----------
    .. [1] Cadena et al. (2019), PLoS Comput. Biol. 15(4): e1006897.
    """
    y = _steady(responses, drift)
    total = _total_variance(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, (total - _noise(y)) / total, np.nan))


def feve(predictions: ArrayLike, responses: ArrayLike, *, drift: bool = True) -> Floats:
    """Fraction of explainable variance explained.

    ``FEVe = 1 - (MSE - V_noise) / (V_tot - V_noise)``, MSE over single responses (Cadena et
    al. 2019). It tends to ``1 - E(s - p)^2 / S``, so unlike a correlation it charges for an
    offset or a wrong gain.

    Parameters
    ----------
    predictions
        ``(images, ...)``, in the units of the responses.
    responses
        ``(repeats, images, ...)``; NaN = missing.
    drift
        Whether what shifts a whole repeat is taken out first.

    Returns
    -------
    numpy.ndarray
        ``(...)``; can be negative. NaN (undefined) where V_tot <= V_noise.
    """
    y = _steady(responses, drift)
    p = as_predictions(predictions, y)
    broken = ~np.isfinite(p).all(axis=0)
    noise, total = _noise(y), _total_variance(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = nan_mean(((y - p) ** 2).reshape(-1, *y.shape[2:]))
        explainable = np.where(total > noise, total - noise, np.nan)
        value = 1.0 - (error - noise) / explainable
    return np.asarray(np.where(broken, np.nan, value))
