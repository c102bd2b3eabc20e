"""Whether a unit's best layer is surely the best: paired losses of fits on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.choices import Scene, count
from tuner.scores import by_part, loss_gaps


def test_the_difference_is_that_of_the_losses_and_its_limits_students() -> None:
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=(3, 60, 1))
    losses[:, 7] = np.nan  # no response
    best, *rivals = (by_part(one)[:, 0] for one in losses)
    weights = by_part(np.where(np.isnan(losses[0]), np.nan, 1.0))[:, 0]
    gaps = loss_gaps(best, rivals, weights)
    each = np.delete(losses[1:, :, 0] - losses[0, :, 0], 7, axis=1)
    np.testing.assert_allclose(gaps.difference, each.mean(axis=1), rtol=1e-5)
    low, high = stats.t.interval(0.95, 58, loc=each.mean(axis=1), scale=stats.sem(each, axis=1))
    np.testing.assert_allclose([gaps.low, gaps.high], [low, high], rtol=1e-4)
    wide = loss_gaps(best, rivals, weights, overlap=1.25)
    np.testing.assert_allclose(wide.high - wide.low, 1.5 * (high - low), rtol=1e-4)


def test_images_of_a_group_are_left_out_together() -> None:
    alike = np.repeat(np.random.default_rng(1).exponential(size=(2, 8, 1)), 10, axis=1)
    groups = np.repeat(np.arange(8), 10)
    single, grouped = (
        loss_gaps(
            by_part(alike[0], given)[:, 0],
            [by_part(alike[1], given)[:, 0]],
            by_part(np.ones((80, 1)), given)[:, 0],
        )
        for given in (None, groups)
    )
    assert single.difference == pytest.approx(grouped.difference, rel=1e-5)
    assert grouped.high - grouped.low > 2.5 * (single.high - single.low)


def test_one_rival_that_is_near_makes_the_choice_undecided() -> None:
    noise = np.random.default_rng(2).normal(scale=0.1, size=100)
    gaps = loss_gaps(np.ones(100), [1.5 + noise, 1.0 + noise - noise.mean() + 0.001], np.ones(100))
    assert gaps.worse.tolist() == [True, False]
    assert gaps.choice == "undecided"
    assert loss_gaps(np.ones(100), [1.5 + noise], np.ones(100)).choice == "sure"


def test_of_one_group_nothing_is_sure() -> None:
    gaps = loss_gaps(np.ones(1), [np.full(1, 9.0)], np.ones(1), overlap=1.25)
    assert np.isnan([gaps.low, gaps.high]).all()
    assert gaps.choice == "undecided"


@pytest.mark.parametrize("sizes", [(1,) * 100, (10,) * 10])
def test_of_two_equal_layers_neither_is_surely_the_best(sizes: tuple[int, ...]) -> None:
    found = count(Scene(sizes, 0.5 if sizes[0] > 1 else 0.0, "two best"), 8)
    assert found.wrong <= 0.05
    assert found.such >= 0.9


def test_of_many_images_the_best_layer_is_sure() -> None:
    found = count(Scene((1,) * 1000, 0.0, "graded"), 2)
    assert found.sure > 0.8
    assert found.wrong == 0
