"""A unit's own trial counts by what images that did not choose it bear out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.results.per_unit import shares

Floats = NDArray[np.float64]
IMAGES, GROUPS, UNITS = 60, 12, 400


def simulated(own_error: float, seed: int) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Truth, predictions of the region's trial and of the own one, of errors that groups of images share."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(GROUPS), IMAGES // GROUPS)
    truth = rng.normal(size=(IMAGES, UNITS))
    of_group = rng.normal(size=(2, GROUPS, UNITS))[:, groups]
    errors = 0.7 * of_group + 0.7 * rng.normal(size=(2, IMAGES, UNITS))
    return truth, truth + 0.5 * errors[0], truth + own_error * errors[1], groups


def test_what_is_no_better_does_no_harm() -> None:
    """Both trials as good as each other, and the own one worse."""
    for own_error, worst in ((0.5, 0.0), (0.8, 0.01)):
        truth, region, own, groups = simulated(own_error, seed=1)
        response = truth + np.random.default_rng(2).normal(size=truth.shape)
        found = shares(own - region, response - region, groups)
        assert ((found >= 0) & (found <= 1)).all()
        fresh, region, own, _ = simulated(own_error, seed=3)
        mixed = region + found * (own - region)
        losses = [np.square(p - fresh).mean() for p in (mixed, region)]
        assert losses[0] < losses[1] * (1 + worst)


def test_what_is_surely_better_counts_and_what_is_the_same_does_not() -> None:
    truth, region, own, groups = simulated(0.0, seed=4)
    found = shares(own - region, truth - region, groups)
    assert (found > 0.9).all()
    assert not shares(0 * own, truth - region, groups).any()
    assert not shares(own - region, truth - region, 0 * groups).any()  # one group says nothing


def test_missing_responses_are_left_out() -> None:
    truth, region, own, groups = simulated(0.3, seed=5)
    y = truth - region
    y[::3] = np.nan
    there = ~np.isnan(y[:, 0])
    some = shares((own - region)[there], y[there], groups[there])
    np.testing.assert_allclose(shares(own - region, y, groups), some, rtol=1e-9)
