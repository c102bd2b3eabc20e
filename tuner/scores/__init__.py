"""Scores of predictions against repeated noisy responses, as pure functions of arrays.

Shapes throughout: responses are ``(repeats, images, ...)`` and predictions ``(images, ...)``;
what follows (usually the units) is carried through. A missing response is NaN. Every variance
and covariance has ``ddof = 1``: mixing denominators is what lifts ceilings above one.

Every signal-and-noise formula here meets its truth in simulations with many images. With few
repeats signal power and noise variance stay unbiased, but their ratios are wide: at a noise
variance ten times the signal's, 2 repeats and 100 images, FEVe of single units has a standard
deviation of 7 and more about a median of 0.5 (truth 0.6), and a sixth of the units have no positive
signal power (``python -m benchmarks.ceilings``). Hence medians are given beside means, units
below a threshold of explainable variance and without a ceiling are left out of the means of a region
and counted, and nothing is clipped. What shifts a whole repeat is noise of the repeat and is taken out
first (:func:`without_drift`).
"""

from __future__ import annotations

from tuner.scores.bootstrap import (
    BootstrapDifference,
    best_choice_probability,
    bootstrap_scores,
    paired_bootstrap,
)
from tuner.scores.chance import beyond_chance, units_beyond_chance
from tuner.scores.correlation import pairwise_reliability, pearson, split_half_reliability
from tuner.scores.drift import without_drift
from tuner.scores.gaps import Gaps, by_part, loss_gaps
from tuner.scores.jackknife import LeftOut, leave_out, mean_intervals, pseudo_values
from tuner.scores.regions import difference_interval, region_intervals, region_means
from tuner.scores.signal import (
    cc_abs,
    cc_max,
    cc_norm,
    explainable_variance,
    feve,
    has_ceiling,
    noise_variance,
    signal_power,
)
from tuner.scores.units import (
    METRICS,
    MIN_EXPLAINABLE,
    counted_units,
    mean_correlation,
    score_units,
    summarise,
)

__all__ = [
    "METRICS",
    "MIN_EXPLAINABLE",
    "BootstrapDifference",
    "Gaps",
    "LeftOut",
    "best_choice_probability",
    "beyond_chance",
    "bootstrap_scores",
    "by_part",
    "cc_abs",
    "cc_max",
    "cc_norm",
    "counted_units",
    "difference_interval",
    "explainable_variance",
    "feve",
    "has_ceiling",
    "leave_out",
    "loss_gaps",
    "mean_correlation",
    "mean_intervals",
    "noise_variance",
    "paired_bootstrap",
    "pairwise_reliability",
    "pearson",
    "pseudo_values",
    "region_intervals",
    "region_means",
    "score_units",
    "signal_power",
    "split_half_reliability",
    "summarise",
    "units_beyond_chance",
    "without_drift",
]
