"""The table of scores: every unit on its own, and a region's means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.bootstrap import draw_counts, interval, weighted_scores
from tuner.scores.correlation import pairwise_reliability, pearson, split_half_reliability
from tuner.scores.drift import Times, without_drift
from tuner.scores.jackknife import LeftOut, leave_out, score_intervals
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

MIN_EXPLAINABLE = 0.15
"""Share of a single response's variance that must be explainable for a unit to count in a region's means, as in the
Sensorium competition (Willeke et al. 2022). Below it a unit's FEVe and CCnorm are ratios to a number near 0."""

_BLOCK = 256  # units scored at once: bounds memory, not results


def score_units(
    predictions: ArrayLike,
    test_responses: ArrayLike,
    *,
    intervals: Literal["jackknife", "bootstrap"] | LeftOut | None = "jackknife",
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: NDArray[np.int64] | None = None,
    drift: bool = True,
    times: Times | None = None,
) -> dict[str, NDArray[Any]]:
    """Score every unit on the test images.

    Parameters
    ----------
    predictions
        ``(n_test, n_units)``, in the recording's own units.
    test_responses
        ``(n_repeats, n_test, n_units)``; NaN = missing.
    intervals
        How limits of the scores are found: by leaving out each image or group of images
        (:mod:`tuner.scores.jackknife`), where that was done already from what it gave, or as percentiles over
        bootstrap samples of them. None: no limits.
    draws
        Bootstrap samples, where they are asked for.
    seed
        Of the bootstrap and of the split halves.
    level
        Share of recordings whose interval holds the score of endless images.
    groups
        ``(n_test,)`` codes of groups of images, which are left out, or drawn, whole.
    drift, times
        Whether what shifts a whole repeat is taken out first, and codes of time besides; see
        :func:`tuner.scores.without_drift`.

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
    raw = as_responses(test_responses)
    if raw.ndim != 3:
        raise ValueError(f"test responses must be (repeats, images, units), got {raw.shape}")
    p = as_predictions(predictions, raw)
    counts = draw_counts(raw.shape[1], draws, seed, groups) if intervals == "bootstrap" else None
    blocks = []
    for start in range(0, max(1, raw.shape[2]), _BLOCK):
        block = raw[:, :, start : start + _BLOCK]
        y = without_drift(block, times) if drift else block
        predicted = p[:, start : start + _BLOCK]
        scores = _score_block(predicted, y)
        limits: Mapping[str, tuple[Floats, Floats]] = {}
        if counts is not None:
            drawn = weighted_scores(predicted, y, counts)
            limits = {name: interval(values, level) for name, values in drawn.items()}
        elif isinstance(intervals, LeftOut):
            limits = score_intervals(intervals.of(slice(start, start + _BLOCK)), level)
        elif intervals is not None:
            left = leave_out(predicted, y, groups=groups, drift=False)
            limits = score_intervals(left, level)
        for name, ends in limits.items():
            undefined = np.isnan(scores[name])
            for which, end in zip(("low", "high"), ends, strict=True):
                scores[f"{name}_{which}"] = np.where(undefined, np.nan, end)
        scores["reliability"] = pairwise_reliability(block)
        scores["split_half"] = split_half_reliability(block, seed=seed)
        blocks.append(scores)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _score_block(p: Floats, y: Floats) -> dict[str, NDArray[Any]]:
    """Scores of some units, whose drift has been taken out."""
    ceiling = has_ceiling(y, drift=False)
    normalized = cc_norm(p, y, drift=False)
    scores: dict[str, NDArray[Any]] = {
        "test_correlation": pearson(p, y),
        "test_correlation_normalized": np.where(ceiling, normalized, np.nan),
        "feve": feve(p, y, drift=False),
        "noise_ceiling": np.where(ceiling, cc_max(y, drift=False), np.nan),
        "explainable_variance": explainable_variance(y, drift=False),
        # their place in the table; from the responses as they are
        "reliability": np.empty(0),
        "split_half": np.empty(0),
    }
    scores["has_ceiling"] = ceiling
    scores["responses_vary"] = varies(y)
    return scores


def counted_units(
    unit_scores: Mapping[str, ArrayLike], *, min_explainable: float = MIN_EXPLAINABLE
) -> NDArray[np.bool_]:
    """Which units a region's mean scores are over: those with a ceiling and enough explainable variance.

    Where no unit can have a ceiling because no image was repeated, those whose responses vary.

    Parameters
    ----------
    unit_scores
        From :func:`score_units`; the units of one region.
    min_explainable
        Least explainable variance, a fraction of the variance of single responses. It selects by an estimate: of weak units
        those that were lucky pass.

    Returns
    -------
    numpy.ndarray
        ``(n_units,)`` bool.
    """
    # Without a second response nothing can be said about noise: explainable variance is NaN.
    explainable = np.asarray(unit_scores["explainable_variance"], dtype=float)
    if not np.isfinite(explainable).any():
        return np.asarray(unit_scores["responses_vary"], dtype=bool)
    ceiling = np.asarray(unit_scores["has_ceiling"], dtype=bool)
    return ceiling if min_explainable <= 0 else ceiling & (explainable >= min_explainable)


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


def summarise(
    unit_scores: Mapping[str, ArrayLike], *, min_explainable: float = MIN_EXPLAINABLE
) -> dict[str, float | int]:
    """Means and medians of a region over the units of :func:`counted_units`; the others are counted.

    A unit with a ceiling whose correlation is undefined was predicted by a constant: it explains
    nothing and enters the mean correlations as 0; leaving it out would reward a fit that failed.
    Where no unit can have a ceiling because no image was repeated, the mean of
    ``test_correlation`` is over all units whose responses vary and the rest is NaN.

    Parameters
    ----------
    unit_scores
        From :func:`score_units`; the units of one region.
    min_explainable
        As of :func:`counted_units`.

    Returns
    -------
    dict
        Each of :data:`METRICS` (mean) and ``<metric>_median``; ``n_units``,
        ``n_units_with_ceiling``, ``n_units_gated`` (left out of the means) and ``n_units_constant``
        (predicted by a constant).
    """
    arrays = {name: np.asarray(unit_scores[name], dtype=np.float64) for name in METRICS}
    counted = counted_units(unit_scores, min_explainable=min_explainable)
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
    result["n_units_gated"] = int((~counted).sum())
    result["n_units_constant"] = int((counted & np.isnan(arrays["test_correlation"])).sum())
    return result
