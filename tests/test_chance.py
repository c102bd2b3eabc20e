"""Single units of noise pass for fitted no more often than they may, and units that are fitted do."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.scores import units_beyond_chance

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
    for trials, most in ((1, 0.035), (20, 0.003)):
        assert units_beyond_chance(fit, mean, trials=trials, groups=groups).mean() < most
    assert units_beyond_chance(fit, mean, groups=groups).mean() > 0.015  # and the level is used
    if alike:  # images of a group taken one by one would not hold it
        assert units_beyond_chance(fit, mean).mean() > 0.1


def test_units_that_are_fitted_pass() -> None:
    fit, mean = losses(0.3, 50, alike=True)
    assert units_beyond_chance(fit, mean, trials=50, groups=GROUPS).mean() > 0.9


def test_missing_and_infinite_losses() -> None:
    fit, mean = losses(0.3, 5, alike=False)
    fit[0, 0] = np.inf
    fit[:, 1] = np.nan
    mean[1:, 2] = np.nan
    fit[100:, 3] = np.nan
    mean[:100, 4] = np.nan
    assert units_beyond_chance(fit, mean).tolist() == [False, False, False, True, True]
