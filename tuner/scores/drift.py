"""Drift between repeats: what shifts all responses of a repeat, of a day or of a place in the order is noise of that time.

The model is ``y_rt = s_t + d_r + e_rt``: a response to image t in repeat r, with what the image evokes, what the repeat
adds to all images, and noise. Where the drift ``d`` is taken for noise of single responses, signal power comes out too low
and a perfect model above 1; the published signal power [1]_ has no part of it.

References
----------
.. [1] Schoppe, Harper, Willmore, King, Schnupp (2016), Front. Comput. Neurosci. 10:10.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.moments import Floats, as_responses, nan_mean

Times = Mapping[str, NDArray[np.int64]]
"""Codes of when each response was, such as its day, ``(repeats, images)`` each."""

_SWEEPS = 50


def without_drift(responses: ArrayLike, times: Times | None = None) -> Floats:
    """Take out what shifts whole repeats, and whole levels of any other code of time.

    The effects are those of least squares beside one effect per image (two-way analysis of variance without interaction),
    found by sweeps where responses are missing. What is left about each image's mean is scaled by the degrees of freedom
    that the effects took, so that noise variances stay unbiased. The mean over all responses stays. A unit with too few
    responses to tell drift from noise is left as it is.

    Parameters
    ----------
    responses
        ``(repeats, images, ...)``; NaN = missing.
    times
        Further codes, beside the number of the repeat.

    Returns
    -------
    numpy.ndarray
        Of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from tuner.scores import without_drift
    >>> image, repeat = np.array([0.0, 1.0, 5.0]), np.array([[-2.0], [2.0]])
    >>> without_drift(image + repeat)
    array([[0., 1., 5.],
           [0., 1., 5.]])
    """
    y = as_responses(responses)
    repeats, images = y.shape[:2]
    if repeats < 2:
        return y
    number = np.broadcast_to(np.arange(repeats)[:, None], (repeats, images))
    codes = [number, *(times or {}).values()]
    for code in codes:
        if code.shape != (repeats, images):
            raise ValueError(f"times of shape {code.shape} for responses of {(repeats, images)}")
    flat = y.reshape(repeats, images, -1)
    there = ~np.isnan(flat)
    free = there.sum((0, 1)) - there.any(axis=0).sum(axis=0)
    left = free - _rank(codes)
    usable = left >= 1
    out = flat.copy()
    if usable.any():
        found = _swept(flat[..., usable], codes)
        mean = nan_mean(found)
        scale = np.sqrt(free[usable] / left[usable])
        out[..., usable] = mean + (found - mean) * scale
    return np.asarray(out.reshape(y.shape))


def _rank(codes: list[NDArray[np.int64]]) -> int:
    """Number of effects that images do not explain: codes may be nested, as repeats are in days."""
    columns = []
    for code in codes:
        for level in np.unique(code):
            member = (code == level).astype(np.float64)
            columns.append((member - member.mean(axis=0)).ravel())
    return int(np.linalg.matrix_rank(np.array(columns)))


def _swept(y: Floats, codes: list[NDArray[np.int64]]) -> Floats:
    """Take the effects of codes out of ``(repeats, images, units)``, by least squares over one at a time."""
    there = ~np.isnan(y)
    count = there.sum((0, 1))
    level = np.where(there, y, 0.0).sum((0, 1)) / count
    found = y - level
    size = np.sqrt(np.where(there, found**2, 0.0).sum((0, 1)) / count)
    for _ in range(_SWEEPS):
        moved = np.zeros(y.shape[2])
        for code in codes:
            error = found - nan_mean(found)
            for one in np.unique(code):
                at = np.nonzero(code == one)
                step = nan_mean(error[at])
                step = np.where(np.isnan(step), 0.0, step)
                found[at] -= step
                moved = np.maximum(moved, np.abs(step))
        if (moved <= 1e-9 * size).all():
            break
    total = np.where(there, found, 0.0).sum((0, 1)) / count
    return np.asarray(found + (level - total))
