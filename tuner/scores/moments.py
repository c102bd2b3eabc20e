"""Means and variances that know about missing values and about rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_IMAGES = 3  # two points always correlate perfectly


def as_responses(responses: ArrayLike) -> Floats:
    """Return responses as float64, ``(repeats, images, ...)``; infinities are refused."""
    array = np.asarray(responses, dtype=np.float64)
    if array.ndim < 2:
        raise ValueError(f"responses must be (repeats, images, ...), got shape {array.shape}")
    if np.isinf(array).any():
        raise ValueError("responses contain infinite values; mark missing ones with NaN")
    return array


def as_predictions(predictions: ArrayLike, responses: Floats) -> Floats:
    """Return predictions as float64, checked to be ``(images, ...)`` of these responses."""
    array = np.asarray(predictions, dtype=np.float64)
    if array.shape != responses.shape[1:]:
        raise ValueError(
            f"predictions of shape {array.shape} do not match responses of shape {responses.shape}"
        )
    return array


def nan_mean(values: Floats, axis: int = 0) -> Floats:
    """Mean over the values that are there; NaN, without a warning, where there is none."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))


def rounding_floor(values: Floats, axis: int = 0) -> Floats:
    """Sum of squares that rounding alone can give to values that are all equal."""
    there = ~np.isnan(values)
    largest = np.where(there, np.abs(values), 0.0).max(axis=axis, initial=0.0)
    count = there.sum(axis=axis)
    # A mean is summed one by one in the worst case: its error grows with the count.
    step = (8.0 + count) * np.finfo(np.float64).eps * largest
    return np.asarray(count * step**2)


def nan_variance(values: Floats, axis: int = 0) -> Floats:
    """Variance (ddof 1) over the values that are there; NaN where there are fewer than two.

    Values that are equal but for rounding have variance 0.
    """
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    centred = np.where(there, values - np.expand_dims(nan_mean(values, axis), axis), 0.0)
    squares = (centred**2).sum(axis=axis)
    squares = np.where(squares > rounding_floor(values, axis), squares, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 1, squares / (count - 1), np.nan))


def varies(responses: Floats) -> NDArray[np.bool_]:
    """Whether the mean over repeats of ``(repeats, images, ...)`` varies over three images or more."""
    mean = nan_mean(responses)
    enough = (~np.isnan(mean)).sum(axis=0) >= MIN_IMAGES
    return np.asarray(enough & (nan_variance(mean) > 0))
