"""Scores against known truth, against their sources' own formulas, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import scores

SIGNAL, NOISE = 1.0, 2.0


def simulate(
    repeats: int, images: int, units: int, seed: int = 0, noise: float = NOISE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal ``(images, units)`` and noisy responses around it."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(3.0, np.sqrt(SIGNAL), (images, units))
    responses = signal + rng.normal(0, np.sqrt(noise), (repeats, images, units))
    return signal, responses


def punch(responses: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """Return responses with a random share missing."""
    gone = np.random.default_rng(seed).random(responses.shape) < share
    return np.where(gone, np.nan, responses)


@pytest.mark.parametrize("repeats", [2, 3, 10])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_signal_and_noise_meet_their_truth(repeats: int, share: float) -> None:
    _, responses = simulate(repeats, 150, 2000, seed=repeats)
    responses = punch(responses, share)
    assert np.nanmean(scores.noise_variance(responses)) == pytest.approx(NOISE, rel=0.02)
    assert np.nanmean(scores.signal_power(responses)) == pytest.approx(SIGNAL, rel=0.02)


def test_signal_power_where_some_images_have_a_single_response() -> None:
    _, responses = simulate(6, 150, 2000)
    responses[1:, ::2] = np.nan  # every other image was shown once
    assert np.mean(scores.signal_power(responses)) == pytest.approx(SIGNAL, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_scores_meet_their_truth_at_many_images(share: float) -> None:
    wrong = 0.4  # variance of what the model gets wrong
    found: dict[str, list[np.ndarray]] = {}
    for block in range(4):  # 2,000 units, a quarter of the memory
        signal, responses = simulate(10, 1000, 500, seed=10 + block)
        rng = np.random.default_rng(block)
        model = signal + np.sqrt(wrong) * rng.normal(size=signal.shape)
        responses = punch(responses, share)
        for name, values in {
            "cc_norm": scores.cc_norm(model, responses),
            "cc_max": scores.cc_max(responses),
            "pearson": scores.pearson(model, responses),
            "feve": scores.feve(model, responses),
            "explainable_variance": scores.explainable_variance(responses),
        }.items():
            found.setdefault(name, []).append(values)
    counts = (~np.isnan(responses)).sum(axis=0)
    ceiling = np.sqrt(SIGNAL / (SIGNAL + np.mean(1 / counts[counts > 0]) * NOISE))
    expected = {
        "cc_norm": np.sqrt(SIGNAL / (SIGNAL + wrong)),
        "cc_max": ceiling,
        "pearson": np.sqrt(SIGNAL / (SIGNAL + wrong)) * ceiling,
        "feve": 1 - wrong / SIGNAL,
        "explainable_variance": SIGNAL / (SIGNAL + NOISE),
    }
    for name, truth in expected.items():
        assert np.mean(found[name]) == pytest.approx(truth, rel=0.02), name


def test_pairwise_reliability_meets_its_truth() -> None:
    _, responses = simulate(4, 300, 500)
    found = scores.pairwise_reliability(punch(responses, 0.2))
    assert np.mean(found) == pytest.approx(SIGNAL / (SIGNAL + NOISE), rel=0.02)


@pytest.mark.parametrize("repeats", [2, 5, 10])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_split_half_meets_the_reliability_of_the_mean(repeats: int, share: float) -> None:
    _, responses = simulate(repeats, 600, 300)
    responses = punch(responses, share if repeats > 2 else 0.0)
    counts = (~np.isnan(responses)).sum(axis=0)
    truth = SIGNAL / (SIGNAL + NOISE * np.mean(1 / counts[counts > 1]))
    assert np.mean(scores.split_half_reliability(responses)) == pytest.approx(truth, rel=0.02)


def test_equal_repeats_give_the_published_signal_power() -> None:
    _, responses = simulate(5, 40, 7)
    responses += 3 * np.random.default_rng(1).normal(size=(5, 1, 7))  # drift
    n = len(responses)
    published = (
        responses.sum(axis=0).var(axis=0, ddof=1) - responses.var(axis=1, ddof=1).sum(axis=0)
    ) / (n * (n - 1))
    np.testing.assert_allclose(scores.signal_power(responses), published, rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_drift_between_repeats_is_no_noise_of_the_unit(share: float) -> None:
    """A perfect model has CCnorm 1 and the ceiling it would have without drift."""
    rng = np.random.default_rng(0)
    signal, responses = simulate(5, 200, 150)
    drift = rng.normal(0, np.sqrt(SIGNAL), (5, 1, 150))
    drifting = responses + drift - drift.mean(axis=0)  # a level that stays is the unit's
    still, drifting = punch(responses, share), punch(drifting, share)
    assert np.mean(scores.cc_norm(signal, drifting)) == pytest.approx(1, abs=0.02)
    assert np.nanmean(scores.cc_norm(signal, drifting, drift=False)) > 1.05
    steady, moved = scores.cc_max(still), scores.cc_max(drifting)
    np.testing.assert_allclose(moved, steady, rtol=1e-6)
    assert np.mean(scores.feve(signal, drifting)) == pytest.approx(1, abs=0.03)
    assert np.mean(scores.noise_variance(drifting)) == pytest.approx(NOISE, rel=0.02)


def test_drift_between_days_and_along_the_order_is_taken_out_too() -> None:
    rng = np.random.default_rng(0)
    signal, responses = simulate(6, 100, 60)
    day, position = rng.integers(0, 4, (6, 100)), rng.integers(0, 4, (6, 100))
    shift = rng.normal(0, 2, (4, 60))[day] + rng.normal(0, 2, (4, 60))[position]
    found = scores.score_units(
        signal, responses + shift, intervals=None, times={"day": day, "position": position}
    )
    assert np.mean(found["test_correlation_normalized"]) == pytest.approx(1, abs=0.02)
    blind = scores.score_units(signal, responses + shift, intervals=None)
    assert np.mean(blind["noise_ceiling"]) < np.mean(found["noise_ceiling"]) - 0.1


@pytest.mark.parametrize("repeats", [5, 30])
def test_silent_channels_do_not_move_a_region(repeats: int) -> None:
    """40 of 100 channels are silent: they are counted, and the region is the 60 others'."""
    rng = np.random.default_rng(repeats)
    signal, responses = simulate(repeats, 100, 100, noise=1.0)
    responses[..., 60:] = rng.normal(size=(repeats, 100, 40))
    model = signal + rng.normal(0, 0.5, signal.shape)
    good = scores.summarise(scores.score_units(model[:, :60], responses[..., :60], intervals=None))
    every = scores.score_units(model, responses, intervals=None)
    found = scores.summarise(every)
    for name in ("feve", "test_correlation_normalized", "test_correlation", "noise_ceiling"):
        for form in (name, f"{name}_median"):
            assert found[form] == pytest.approx(good[form], abs=0.05), form
    assert found["n_units_gated"] == 40
    before = scores.summarise(every, min_explainable=0)
    assert abs(before["feve"] - good["feve"]) > 0.2


def test_absolute_correlation_is_normalized_times_ceiling() -> None:
    signal, responses = simulate(4, 50, 20)
    responses = punch(responses, 0.25)
    np.testing.assert_allclose(
        scores.cc_norm(signal, responses) * scores.cc_max(responses),
        scores.cc_abs(signal, responses),
        rtol=1e-12,
    )
    _, whole = simulate(4, 50, 20)
    np.testing.assert_allclose(
        scores.cc_abs(signal, whole), scores.pearson(signal, whole), rtol=1e-12
    )


def test_feve_charges_for_an_offset_and_the_correlation_does_not() -> None:
    signal, responses = simulate(10, 400, 50)
    right, shifted = scores.feve(signal, responses), scores.feve(signal + 1.0, responses)
    assert np.mean(right - shifted) == pytest.approx(1.0 / SIGNAL, rel=0.1)
    np.testing.assert_allclose(
        scores.cc_norm(signal + 1.0, responses), scores.cc_norm(signal, responses), rtol=1e-9
    )


def test_pairwise_reliability_is_the_mean_over_pairs() -> None:
    _, responses = simulate(4, 30, 3)
    pairs = [
        [
            np.corrcoef(responses[r, :, u], responses[s, :, u])[0, 1]
            for r in range(4)
            for s in range(r)
        ]
        for u in range(3)
    ]
    np.testing.assert_allclose(
        scores.pairwise_reliability(responses), np.mean(pairs, axis=1), rtol=1e-12
    )


def test_missing_entries_leave_what_is_there_untouched() -> None:
    signal, responses = simulate(3, 30, 2)
    responses[:, 20:, 0] = np.nan
    expected = scores.score_units(signal[:20, :1], responses[:, :20, :1])
    found = scores.score_units(signal, responses, intervals=None)
    for name in scores.METRICS:
        assert found[name][0] == pytest.approx(expected[name][0], rel=1e-12), name


def test_units_without_signal_have_no_ceiling_and_are_counted() -> None:
    signal, responses = simulate(2, 40, 200, noise=200.0)
    table = scores.score_units(signal, responses)
    power = scores.signal_power(responses)
    assert 20 < (power <= 0).sum() < 180
    for name in ("noise_ceiling", "test_correlation_normalized", "noise_ceiling_low"):
        np.testing.assert_array_equal(np.isnan(table[name][power <= 0]), True)
    assert (scores.cc_max(responses)[power <= 0] == 0).all()
    assert np.isfinite(table["test_correlation"]).all()
    total = scores.summarise(table, min_explainable=0)
    assert total["n_units"] == 200
    assert total["n_units_with_ceiling"] == (power > 0).sum()
    assert total["test_correlation"] == pytest.approx(table["test_correlation"][power > 0].mean())
    # normalised scores over 1 stay what they are
    assert table["test_correlation_normalized"][power > 0].max() > 1
    assert total["feve_median"] == pytest.approx(np.median(table["feve"][power > 0]))


def test_constant_predictions_count_as_nothing_explained() -> None:
    signal, responses = simulate(4, 60, 4)
    model = signal.copy()
    model[:, 1] = 0.1
    table = scores.score_units(model, responses)
    assert np.isnan(table["test_correlation"][1])
    assert np.isnan(table["test_correlation_normalized_low"][1])
    assert np.isfinite(table["feve"][1])
    total = scores.summarise(table, min_explainable=0)
    assert total["n_units_constant"] == 1
    rest = table["test_correlation"][[0, 2, 3]]
    assert total["test_correlation"] == pytest.approx(rest.sum() / 4)


def test_constant_responses_have_neither_correlation_nor_ceiling() -> None:
    signal, responses = simulate(4, 60, 2)
    responses[:, :, 1] = 0.1
    table = scores.score_units(signal, responses)
    for name in ("test_correlation", "noise_ceiling", "feve", "explainable_variance"):
        assert np.isnan(table[name][1]), name
        assert np.isfinite(table[name][0]), name
    assert not table["has_ceiling"][1]


def test_one_repeat_has_a_correlation_and_no_ceiling() -> None:
    signal, responses = simulate(1, 60, 5)
    table = scores.score_units(signal, responses)
    total = scores.summarise(table)
    assert total["n_units_with_ceiling"] == 0
    assert total["test_correlation"] == pytest.approx(table["test_correlation"].mean())
    assert np.isfinite(table["test_correlation_low"]).all()
    assert np.isnan(total["noise_ceiling"])
    draws = scores.bootstrap_scores(signal, responses, draws=100)
    regions = scores.region_intervals(draws, scores.counted_units(table))
    low, high = regions.pop("test_correlation")
    assert low < total["test_correlation"] < high
    assert np.isnan(list(regions.values())).all()


def test_a_constant_prediction_counts_as_nothing_explained_without_repeats_too() -> None:
    signal, responses = simulate(1, 60, 4)
    responses[:, :, 2] = 0.1  # nothing to explain: left out
    model = signal.copy()
    model[:, 1] = 0.1
    total = scores.summarise(scores.score_units(model, responses, intervals=None))
    right = scores.pearson(signal[:, [0, 3]], responses[:, :, [0, 3]])
    assert total["test_correlation"] == pytest.approx(right.sum() / 3)
    assert total["n_units_constant"] == 1


def test_mean_correlation_counts_constant_predictions_and_not_constant_responses() -> None:
    signal, responses = simulate(1, 60, 4)
    responses[:, :, 2] = 0.1
    responses[:, 5:9, 0] = np.nan
    model = signal.copy()
    model[:, 1] = 0.1
    each = scores.pearson(model, responses)
    assert scores.mean_correlation(each, responses) == pytest.approx((each[0] + each[3]) / 3)
    assert np.isnan(scores.mean_correlation(each[2:3], responses[:, :, 2:3]))


def test_all_four_means_are_over_the_same_units_where_repeats_are_unequal() -> None:
    _, responses = simulate(3, 12, 3000, noise=12.0)
    responses = punch(responses, 0.4)
    model = np.random.default_rng(2).normal(size=responses.shape[1:])
    table = scores.score_units(model, responses, intervals=None)
    power = scores.signal_power(responses)
    ceiling = table["has_ceiling"]
    assert (ceiling < (power > 0)).any()  # signal power, and yet no explainable variance
    for name in ("test_correlation_normalized", "feve", "noise_ceiling"):
        assert np.isfinite(table[name][ceiling]).all(), name
    assert np.isnan(table["noise_ceiling"][~ceiling]).all()
    total = scores.summarise(table, min_explainable=0)
    assert total["n_units_with_ceiling"] == ceiling.sum()
    assert total["feve_median"] == pytest.approx(np.median(table["feve"][ceiling]))
    regions = scores.region_intervals(
        scores.bootstrap_scores(model, responses, draws=50),
        scores.counted_units(table, min_explainable=0),
    )
    assert regions["test_correlation"][0] < total["test_correlation"]


def test_a_prediction_that_is_no_number_is_not_skipped() -> None:
    signal, responses = simulate(4, 60, 2)
    signal[7, 0] = np.nan
    table = scores.score_units(signal, responses)
    for name in ("test_correlation", "test_correlation_normalized", "feve"):
        assert np.isnan(table[name][0]), name
        assert np.isnan(table[f"{name}_low"][0]), name
    assert np.isfinite(table["noise_ceiling"][0])


def test_bootstrap_draw_of_every_image_once_is_the_score() -> None:
    from tuner.scores.bootstrap import weighted_scores

    signal, responses = simulate(4, 50, 30)
    responses = punch(responses + 1e4, 0.3)
    model = signal + 1e4 + np.random.default_rng(0).normal(size=signal.shape)
    table = scores.score_units(model, responses, intervals=None, drift=False)
    drawn = weighted_scores(model, responses, np.ones((1, 50)))
    for name, values in drawn.items():
        there = np.isfinite(table[name])
        np.testing.assert_allclose(values[0][there], table[name][there], rtol=1e-7, err_msg=name)


def test_bootstrap_draw_is_the_score_of_the_drawn_images() -> None:
    from tuner.scores.bootstrap import draw_counts, weighted_scores

    signal, responses = simulate(5, 30, 4)
    model = signal + np.random.default_rng(0).normal(size=signal.shape)
    counts = draw_counts(30, 3, seed=5)
    drawn = weighted_scores(model, responses, counts)
    for draw, count in enumerate(counts):
        rows = np.repeat(np.arange(30), count.astype(int))
        table = scores.score_units(model[rows], responses[:, rows], intervals=None, drift=False)
        for name, values in drawn.items():
            np.testing.assert_allclose(values[draw], table[name], rtol=1e-9, err_msg=name)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    signal, responses = simulate(4, 200, 400)
    model = signal + np.random.default_rng(3).normal(size=signal.shape)
    table = scores.score_units(model, responses)
    truths = {
        "test_correlation_normalized": np.sqrt(0.5),
        "noise_ceiling": np.sqrt(1 / (1 + NOISE / 4)),
        "test_correlation": np.sqrt(0.5 / (1 + NOISE / 4)),
        "explainable_variance": 1 / 3,
        "feve": 0.0,
    }
    for name, truth in truths.items():
        inside = (table[f"{name}_low"] <= truth) & (truth <= table[f"{name}_high"])
        assert 0.90 < inside.mean() <= 0.99, (name, inside.mean())


def test_bootstrap_intervals_depend_on_the_seed_alone() -> None:
    signal, responses = simulate(3, 40, 300)  # more than one block of units
    one = scores.score_units(signal, responses, intervals="bootstrap", draws=50, seed=4)
    same = scores.score_units(
        signal[:, 270:], responses[:, :, 270:], intervals="bootstrap", draws=50, seed=4
    )
    other = scores.score_units(signal, responses, intervals="bootstrap", draws=50, seed=5)
    for name, values in same.items():
        np.testing.assert_allclose(one[name][270:], values, rtol=1e-9, err_msg=name)
    assert not np.allclose(one["feve_low"], other["feve_low"])


def test_an_interval_says_where_the_data_give_no_limit() -> None:
    signal, responses = simulate(2, 15, 300, noise=8.0)
    table = scores.score_units(signal, responses)
    open_above = table["has_ceiling"] & np.isnan(table["test_correlation_normalized_high"])
    assert open_above.any()
    assert np.isfinite(table["test_correlation_high"]).all()
    low = table["noise_ceiling_low"][table["has_ceiling"]]
    assert (low[~np.isnan(low)] >= 0).all()
    assert (low == 0).any()


def test_region_interval_is_narrower_than_a_units() -> None:
    signal, responses = simulate(4, 100, 60)
    model = signal + np.random.default_rng(3).normal(size=signal.shape)
    draws = scores.bootstrap_scores(model, responses, draws=300)
    table = scores.score_units(model, responses)
    regions = scores.region_intervals(draws, table["has_ceiling"])
    total = scores.summarise(table)
    for name in ("test_correlation", "noise_ceiling", "feve"):
        low, high = regions[name]
        assert low < total[name] < high
        assert high - low < np.mean(table[f"{name}_high"] - table[f"{name}_low"])
    empty = scores.region_intervals(draws, np.zeros(60, dtype=bool))
    assert np.isnan(empty["feve"]).all()


def test_paired_bootstrap_sees_a_small_but_consistent_difference() -> None:
    rng = np.random.default_rng(0)
    common = rng.gamma(2.0, 1.0, (200, 8))  # hard images are hard for both
    better = common + rng.normal(0, 0.05, common.shape)
    worse = common + 0.03 + rng.normal(0, 0.05, common.shape)
    worse[3, 2] = np.nan
    result = scores.paired_bootstrap(better, worse)
    assert result.difference == pytest.approx(-0.03, abs=0.01)
    assert result.high < 0
    assert result.probability > 0.99
    back = scores.paired_bootstrap(worse, better)
    assert back.difference == pytest.approx(-result.difference)
    assert scores.paired_bootstrap(better, better).probability == 0.5
    with pytest.raises(ValueError, match="paired"):
        scores.paired_bootstrap(better, worse[:5])


def test_a_fit_that_diverged_is_never_the_best() -> None:
    """On the images of one cut, say, and though one of its units was not judged there."""
    sound = np.random.default_rng(0).gamma(2.0, 1.0, (60, 3))
    broken = sound / 2
    broken[:30, :2] = np.inf
    broken[:30, 2] = np.nan
    assert scores.best_choice_probability({"broken": broken, "sound": sound})["sound"] == 1
    gap = scores.paired_bootstrap(broken, sound)
    assert gap.difference == np.inf
    assert np.isnan([gap.low, gap.high]).all()
    assert gap.probability == 0


def test_choice_between_equals_is_uncertain_and_a_clear_one_is_not() -> None:
    rng = np.random.default_rng(1)
    base = rng.gamma(2.0, 1.0, 300)
    noise = [rng.normal(0, 0.2, 300) for _ in range(3)]
    shares = scores.best_choice_probability(
        {"a": base + noise[0], "b": base + noise[1], "c": base + 1 + noise[2]}
    )
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["c"] == 0.0
    assert min(shares["a"], shares["b"]) > 0.001


@given(st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_scores_do_not_depend_on_the_scale_of_responses(seed: int, gain: float, off: float) -> None:
    signal, responses = simulate(3, 20, 4, seed=seed)
    model = signal + np.random.default_rng(seed + 1).normal(size=signal.shape)
    before = scores.score_units(model, responses, intervals=None)
    after = scores.score_units(model * gain + off, responses * gain + off, intervals=None)
    for name in scores.METRICS:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("predictions", "responses", "message"),
    [
        (np.zeros((4, 2)), np.zeros((3, 5, 2)), "do not match"),
        (np.zeros((5, 2)), np.full((3, 5, 2), np.inf), "infinite"),
        (np.zeros(5), np.zeros((3, 5)), "repeats, images, units"),
        (np.zeros(5), np.zeros(5), "repeats, images"),
    ],
)
def test_wrong_shapes_are_refused(predictions, responses, message) -> None:
    with pytest.raises(ValueError, match=message):
        scores.score_units(predictions, responses)
