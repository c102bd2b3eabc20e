"""Intervals of few values hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tuner.scores.few import mean_interval, median_interval

SAMPLES = 2000


@pytest.mark.parametrize("n", [2, 4, 10])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    x = np.random.default_rng(n).normal(3.0, 2.0, n)
    expected = stats.t.interval(0.95, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert mean_interval(x) == pytest.approx(expected)
    assert np.isnan(mean_interval(x[:1])).all()


@pytest.mark.parametrize("n", [4, 10])
def test_paired_counts_of_pure_noise_are_told_from_0_in_a_twentieth_of_cases(n: int) -> None:
    rng = np.random.default_rng(n)
    out = 0
    for each in rng.poisson(3.0, (SAMPLES, n, 2)):
        low, high = mean_interval(each[:, 0] - each[:, 1])
        out += not low <= 0 <= high
    assert out / SAMPLES < 0.065


@pytest.mark.parametrize("n", [6, 9, 20])
def test_the_interval_of_a_median_holds_it(n: int) -> None:
    rng = np.random.default_rng(n)
    held = 0
    for x in rng.exponential(1.0, (SAMPLES, n)):
        low, high = median_interval(x)
        held += low <= np.log(2.0) <= high
    assert 0.94 < held / SAMPLES < 0.995


@pytest.mark.parametrize("n", range(6))
def test_too_few_values_have_no_interval_of_their_median(n: int) -> None:
    assert np.isnan(median_interval(np.arange(n))).all()


@pytest.mark.parametrize("n", range(6, 40))
def test_the_interval_of_a_median_is_the_narrowest_that_is_sure_enough(n: int) -> None:
    low, high = median_interval(np.arange(n, dtype=float))
    k = int(low)  # values below the interval, and as many above
    assert high == n - 1 - k
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(k + 1, n, 0.5) < 0.95
