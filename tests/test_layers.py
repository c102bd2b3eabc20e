"""Intervals of the differences between layers hold the truth as often as they say, for all layers together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tuner.scores.bootstrap import draw_counts
from tuner.scores.layers import BUNCHES, Judged, compare_layers, spread
from tuner.scores.moments import nan_mean

Floats = NDArray[np.float64]


def table(seed: int, layers: int = 4) -> tuple[dict[str, list[Judged]], NDArray[np.int64]]:
    """Layers of equal worth on 3 cuts of 120 images in groups of 4, and 6 units: every one of these is a sample."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(30), 4)
    shape = (layers, 3, 120, 6)
    losses = 1 + 0.1 * rng.normal(size=(layers, 3, 1, 1)) + 0.2 * rng.normal(size=(layers, 1, 1, 6))
    losses = losses + 0.5 * rng.normal(size=(layers, 1, 30, 1))[:, :, groups]
    losses = losses + rng.normal(size=(layers, 1, *shape[2:])) + 0.3 * rng.normal(size=shape)
    rows = np.arange(120)
    return {str(k): [Judged(rows, one) for one in mine] for k, mine in enumerate(losses)}, groups


def test_all_intervals_together_hold_the_truth_95_times_in_a_hundred() -> None:
    """And images drawn one by one, one layer at a time, as before, do not."""
    hits, before = 0, 0
    runs = 120
    for seed in range(runs):
        cuts, groups = table(seed)
        found = compare_layers(cuts, "0", groups=groups, draws=300, seed=seed)
        assert sum(one.best for one in found.values()) == pytest.approx(1)
        hits += all(one.low <= 0 <= one.high for one in found.values())
        means = {k: np.mean([one.losses for one in of], axis=(0, 2)) for k, of in cuts.items()}
        counts = draw_counts(120, 300, seed)
        limits = [
            np.quantile(counts @ (means[k] - means["0"]) / 120, (0.025, 0.975)) for k in "123"
        ]
        before += all(low <= 0 <= high for low, high in limits)
    assert 0.89 <= hits / runs <= 0.99  # 95 % within three standard errors
    assert before / runs < 0.7


def test_a_layer_that_is_surely_worse_is_said_to_be() -> None:
    cuts, groups = table(0, layers=2)
    cuts["1"] = [Judged(one.rows, one.losses + 1.5) for one in cuts["1"]]
    worse = compare_layers(cuts, "0", groups=groups)["1"]
    assert 0 < worse.low < worse.difference < worse.high
    assert worse.best == 0


def test_a_fit_that_diverged_has_no_limits_and_is_never_best() -> None:
    cuts, groups = table(0, layers=3)
    cuts["1"] = [Judged(one.rows, np.full_like(one.losses, np.inf)) for one in cuts["1"]]
    found = compare_layers(cuts, "0", groups=groups)
    assert found["1"].best == 0
    assert np.isnan([found["1"].low, found["1"].high]).all()
    assert np.isfinite([found["2"].low, found["2"].high]).all()


def test_cuts_of_different_images_and_missing_responses_are_compared_by_what_is_there() -> None:
    rng = np.random.default_rng(0)
    full = {layer: rng.normal(1, 1, (200, 3)) for layer in "ab"}
    rows = [np.sort(rng.permutation(200)[:40]) for _ in range(4)]
    cuts = {layer: [Judged(r, v[r].copy()) for r in rows] for layer, v in full.items()}
    missing = rng.random((40, 3)) < 0.2
    for of in cuts.values():
        of[0].losses[missing] = np.nan
        of[1].losses[:, 2] = np.nan  # a unit that this cut does not judge
    gap = [nan_mean(b.losses - a.losses) for a, b in zip(cuts["a"], cuts["b"], strict=True)]
    gap[1][2] = np.mean([one[2] for k, one in enumerate(gap) if k != 1])
    found = compare_layers(cuts, "a")["b"]
    assert found.difference == pytest.approx(np.mean(gap))
    assert found.low < found.difference < found.high


def test_the_spread_is_that_of_the_mean_whatever_is_shared() -> None:
    """Effects of images, of units, and of both: the variance of the mean is known."""
    rng = np.random.default_rng(0)
    a, b, c = 0.5, 0.8, 1.0
    found = [
        spread(
            a * rng.normal(size=(1, 20, 1))
            + b * rng.normal(size=(1, 1, 10))
            + c * rng.normal(size=(1, 20, 10))
        )[0]
        for _ in range(400)
    ]
    truth = a**2 / 20 + b**2 / 10 + c**2 / 200
    assert np.mean(found) == pytest.approx(truth, rel=0.1)


def test_many_images_are_drawn_in_bunches() -> None:
    rng = np.random.default_rng(1)
    n = 4 * BUNCHES
    losses = {layer: rng.normal(1, 1, (n, 12)) for layer in "ab"}
    cuts = {layer: [Judged(np.arange(n), v)] for layer, v in losses.items()}
    found = compare_layers(cuts, "a", draws=400)["b"]
    gap = losses["b"] - losses["a"]
    variance, freedom = spread(gap[None])
    from scipy.stats import t

    half = t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.3)
