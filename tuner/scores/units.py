"""The table of scores: every unit on its own, and a region's means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.bootstrap import draw_counts, interval, weighted_scores
from tuner.scores.correlation import pairwise_reliability, pearson, split_half_reliability
from tuner.scores.moments import Floats, as_predictions, as_responses, varies
from tuner.scores.signal import cc_max, cc_norm, explainable_variance, feve, has_ceiling

METRICS = (
    "test_correlation",
    "test_correlation_normalized",
    "feve",
    "noise_ceiling",
    "explainable_variance",
    "reliability",
)
"""Scores of a unit, in the order of the tables."""

_BLOCK = 256  # units scored at once: bounds memory, not results


def score_units(
    predictions: ArrayLike,
    test_responses: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, NDArray[Any]]:
    """Score every unit on the test images.

    Parameters
    ----------
    predictions
        ``(n_test, n_units)``, in the recording's own units.
    test_responses
        ``(n_repeats, n_test, n_units)``; NaN = missing.
    draws
        Bootstrap samples of the images behind the intervals; 0 = no intervals.
    seed
        Of the bootstrap and of the split halves.
    level
        Share of bootstrap draws inside an interval.

    Returns
    -------
    dict
        ``(n_units,)`` arrays: the :data:`METRICS`, ``split_half`` (reliability of the mean over
        all repeats), ``<score>_low`` and ``<score>_high`` for the first five,
        ``has_ceiling`` (bool) and ``responses_vary`` (bool: with the test image, in the mean).
        ``noise_ceiling`` is CCmax and ``test_correlation_normalized`` CCnorm; both are NaN,
        not 0, for a unit whose signal power is not positive: it has no ceiling.
        ``reliability`` is pairwise, of a single presentation.
        A limit that the data leave open is NaN.

    Raises
    ------
    ValueError
        If shapes do not match or responses are infinite.
    """
    y = as_responses(test_responses)
    if y.ndim != 3:
        raise ValueError(f"test responses must be (repeats, images, units), got {y.shape}")
    p = as_predictions(predictions, y)
    blocks = [
        _score_block(
            p[:, start : start + _BLOCK], y[:, :, start : start + _BLOCK], draws, seed, level
        )
        for start in range(0, max(1, y.shape[2]), _BLOCK)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _score_block(
    p: Floats, y: Floats, draws: int, seed: int, level: float
) -> dict[str, NDArray[Any]]:
    ceiling = has_ceiling(y)
    scores: dict[str, NDArray[Any]] = {
        "test_correlation": pearson(p, y),
        "test_correlation_normalized": np.where(ceiling, cc_norm(p, y), np.nan),
        "feve": feve(p, y),
        "noise_ceiling": np.where(ceiling, cc_max(y), np.nan),
        "explainable_variance": explainable_variance(y),
        "reliability": pairwise_reliability(y),
        "split_half": split_half_reliability(y, seed=seed),
    }
    if draws:
        samples = weighted_scores(p, y, draw_counts(y.shape[1], draws, seed))
        for name, values in samples.items():
            undefined = np.isnan(scores[name])
            low, high = interval(values, level)
            scores[f"{name}_low"] = np.where(undefined, np.nan, low)
            scores[f"{name}_high"] = np.where(undefined, np.nan, high)
    scores["has_ceiling"] = ceiling
    scores["responses_vary"] = varies(y)
    return scores


def counted_units(unit_scores: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
    """Which units a region's mean scores are over: those with a defined ceiling.

    Where no unit can have one because no image was repeated, those whose responses vary.

    Parameters
    ----------
    unit_scores
        From :func:`score_units`; the units of one region.

    Returns
    -------
    numpy.ndarray
        ``(n_units,)`` bool.
    """
    # Without a second response nothing can be said about noise: explainable variance is NaN.
    repeated = np.isfinite(np.asarray(unit_scores["explainable_variance"], dtype=float)).any()
    return np.asarray(unit_scores["has_ceiling" if repeated else "responses_vary"], dtype=bool)


def mean_correlation(correlations: ArrayLike, responses: ArrayLike) -> float:
    """Mean correlation over units, where a unit predicted by a constant counts as 0.

    Leaving such units out would reward a fit that failed. Units whose responses do not vary have
    nothing to correlate with and are left out.

    Parameters
    ----------
    correlations
        ``(n_units,)`` from :func:`tuner.scores.pearson`; NaN = undefined.
    responses
        ``(repeats, images, n_units)`` that they are with; NaN = missing.

    Returns
    -------
    float
        NaN where no unit's responses vary.
    """
    values = np.asarray(correlations, dtype=np.float64)[varies(as_responses(responses))]
    return float(np.where(np.isnan(values), 0.0, values).mean()) if values.size else float("nan")


def summarise(unit_scores: Mapping[str, ArrayLike]) -> dict[str, float | int]:
    """Means of a region over its units with a defined ceiling, which are counted.

    A unit with a ceiling whose correlation is undefined was predicted by a constant: it explains
    nothing and enters the mean correlations as 0; leaving it out would reward a fit that failed.
    Where no unit can have a ceiling because no image was repeated, the mean of
    ``test_correlation`` is over all units whose responses vary and the rest is NaN.

    Parameters
    ----------
    unit_scores
        From :func:`score_units`; the units of one region.

    Returns
    -------
    dict
        Each of :data:`METRICS` (mean) and ``<metric>_median``; ``n_units``,
        ``n_units_with_ceiling`` and ``n_units_constant`` (predicted by a constant).
    """
    arrays = {name: np.asarray(unit_scores[name], dtype=np.float64) for name in METRICS}
    counted = counted_units(unit_scores)
    with_ceiling = np.asarray(unit_scores["has_ceiling"], dtype=bool)
    result: dict[str, float | int] = {}
    for name, values in arrays.items():
        picked = values[counted]
        if name == "test_correlation" or (
            name == "test_correlation_normalized" and with_ceiling.any()
        ):
            picked = np.where(np.isnan(picked), 0.0, picked)
        picked = picked[np.isfinite(picked)]
        result[name] = float(picked.mean()) if picked.size else float("nan")
        result[f"{name}_median"] = float(np.median(picked)) if picked.size else float("nan")
    result["n_units"] = len(counted)
    result["n_units_with_ceiling"] = int(with_ceiling.sum())
    result["n_units_constant"] = int((counted & np.isnan(arrays["test_correlation"])).sum())
    return result
