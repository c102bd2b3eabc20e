"""Intervals by leaving out: the formula, what is left out, and how often the truth is inside."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import Design, coverage
from tuner import scores
from tuner.scores import jackknife


def recording(
    seed: int = 0, images: int = 40, units: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(images, units))
    model = signal + 0.7 * rng.normal(size=signal.shape)
    return model, signal + 0.5 * rng.normal(size=(4, *signal.shape)), np.arange(images) // 5


def test_of_a_mean_it_is_students_interval() -> None:
    values = np.random.default_rng(1).normal(size=12)
    without = np.array([np.delete(values, j).mean() for j in range(12)])
    low, high = jackknife.interval(values.mean(), without, 0.9)
    expected = stats.t.interval(0.9, 11, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_what_is_left_out_is_scored_as_though_it_had_never_been() -> None:
    model, responses, groups = recording()
    left = scores.leave_out(model, responses, groups=groups, drift=False)
    for group in np.unique(groups):
        kept = groups != group
        table = scores.score_units(model[kept], responses[:, kept], intervals=None, drift=False)
        for name, values in left.without.items():
            np.testing.assert_allclose(values[group], table[name], rtol=1e-9, err_msg=name)
    whole = scores.score_units(model, responses, intervals=None, drift=False)
    for name, values in left.whole.items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-9, err_msg=name)


def test_limits_of_units_and_of_their_mean_enclose_the_score() -> None:
    model, responses, groups = recording(units=30)
    table = scores.score_units(model, responses, groups=groups)
    total = scores.summarise(table)
    regions = scores.mean_intervals(
        scores.leave_out(model, responses, groups=groups), scores.counted_units(table)
    )
    for name, (low, high) in regions.items():
        assert low < total[name] < high
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
        assert high - low < np.mean(table[f"{name}_high"] - table[f"{name}_low"])
    assert (table["noise_ceiling_high"] <= 1).all()
    left = scores.leave_out(model, responses, groups=groups)
    again = scores.score_units(model, responses, intervals=left, groups=groups)
    for name, values in table.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-9, err_msg=name)


def test_a_score_that_one_part_decides_has_no_limits() -> None:
    responses = np.zeros((3, 6, 1))
    responses[:, 0, 0] = 1.0, 1.1, 0.9  # the one image that differs
    model = np.arange(6.0)[:, None]
    table = scores.score_units(model, responses)
    assert np.isfinite(table["test_correlation"][0])
    assert np.isnan(table["test_correlation_low"][0])
    assert np.isnan(table["test_correlation_high"][0])


def test_a_single_group_says_nothing_of_others() -> None:
    model, responses, _ = recording()
    table = scores.score_units(model, responses, groups=np.zeros(40, dtype=np.int64))
    assert np.isnan(table["feve_low"]).all()


def test_many_images_are_dealt_into_no_more_parts_than_help() -> None:
    member = jackknife.parts(2500)
    assert member.max() + 1 == jackknife.MOST_PARTS
    assert set(np.bincount(member)) <= {2, 3}
    groups = np.repeat(np.arange(1250), 2)
    member = jackknife.parts(2500, groups)
    assert (member[::2] == member[1::2]).all()  # groups stay whole


def test_a_difference_on_the_same_images_is_surer_than_its_parts() -> None:
    model, responses, groups = recording(images=100, units=20)
    other = model + 0.2 * np.random.default_rng(3).normal(size=model.shape)
    first = scores.leave_out(model, responses, groups=groups)
    second = scores.leave_out(other, responses, groups=groups)
    every = np.arange(20)
    ours, theirs = (scores.pseudo_values(one, "test_correlation", every) for one in (first, second))
    low, high = scores.difference_interval(ours, theirs)
    gaps = [
        scores.score_units(one, responses, intervals=None)["test_correlation"].mean()
        for one in (model, other)
    ]
    assert 0 < low < gaps[0] - gaps[1] < high
    alone = scores.mean_intervals(first, every)["test_correlation"]
    assert high - low < 0.6 * (alone[1] - alone[0])
    assert scores.difference_interval(theirs, ours) == pytest.approx((-high, -low))
    with pytest.raises(ValueError, match="paired"):
        scores.difference_interval(ours, ours[1:])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # draws without signal power
def test_few_groups_are_covered_where_percentiles_are_not() -> None:
    found = coverage(Design((10,) * 5, 0.5, 8, 0.7), 60)
    for name, (left_out, percentiles) in found.items():
        assert left_out >= 0.88, (name, left_out)
        if name in ("feve", "noise_ceiling"):
            assert percentiles < 0.6, (name, percentiles)
