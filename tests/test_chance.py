"""Single units of noise pass for fitted no more often than they may, and units that are fitted do."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.scores import beyond_chance, units_beyond_chance

GROUPS = np.repeat(np.arange(40), 5)


def losses(share: float, units: int, *, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are a share of the truth and otherwise noise; alike: images of a group have one response."""
    rng = np.random.default_rng(1)
    codes = GROUPS if alike else np.arange(200)
    y = rng.normal(size=(len(np.unique(codes)), units))[codes]
    other = rng.normal(size=(len(np.unique(codes)), units))[codes]
    guess = share * y + 0.1 * other
    return np.square(y - guess), np.square(y)


@pytest.mark.parametrize("alike", [False, True])
def test_of_noise_as_many_pass_as_may(alike: bool) -> None:
    fit, mean = losses(0.0, 4000, alike=alike)
    fit -= 0.01  # what the noise costs: then no better and no worse than the mean
    groups = GROUPS if alike else None
    for trials, most in ((1, 0.035), (20, 0.006)):
        assert units_beyond_chance(fit, mean, trials=trials, groups=groups).mean() < most
    assert units_beyond_chance(fit, mean, groups=groups).mean() > 0.015  # and the level is used
    if alike:  # images of a group taken one by one would not hold it
        assert units_beyond_chance(fit, mean).mean() > 0.1


def test_units_that_are_fitted_pass() -> None:
    fit, mean = losses(0.3, 50, alike=True)
    assert units_beyond_chance(fit, mean, trials=50, groups=GROUPS).mean() > 0.9


def test_units_that_answer_few_images_strongly_pass_too() -> None:
    """Of 18 groups one or two carry most of the loss, of the fit and of the mean alike."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(18), 6)
    y = np.exp(1.2 * rng.normal(size=(18, 400)))[groups] + 0.2 * rng.normal(size=(108, 400))
    y = (y - y.mean(0)) / y.std(0)
    guess = 0.8 * y + 0.3 * rng.normal(size=y.shape)
    fit, mean = np.square(y - guess), np.square(y)
    assert units_beyond_chance(fit, mean, trials=16, groups=groups).mean() > 0.5
    assert beyond_chance(fit.mean(1), mean.mean(1), trials=16, groups=groups)
    noise = np.square(y - 0.3 * rng.normal(size=(18, 400))[groups])
    assert units_beyond_chance(noise, mean, trials=16, groups=groups).mean() < 0.01


def test_losses_that_may_be_negative_are_compared_by_their_difference() -> None:
    fit, mean = losses(0.3, 50, alike=True)
    lowered = units_beyond_chance(fit - 0.9, mean - 0.9, trials=50, groups=GROUPS)
    assert lowered.mean() > 0.9
    assert not units_beyond_chance(mean - 0.9, fit - 0.9, groups=GROUPS).any()


def test_missing_and_infinite_losses() -> None:
    fit, mean = losses(0.3, 5, alike=False)
    fit[0, 0] = np.inf
    fit[:, 1] = np.nan
    mean[1:, 2] = np.nan
    fit[100:, 3] = np.nan
    mean[:100, 4] = np.nan
    assert units_beyond_chance(fit, mean).tolist() == [False, False, False, True, True]
