"""When more trials gain nothing: the rule on its own, and a search that it ends."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from studies.database.trials import Trial
from studies.search.settled import expected_gain, gain_of_doubling, values_of
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment


def made(values: list[float], pruned: tuple[int, ...] = ()) -> list[Trial]:
    return [
        Trial(i, 1, i, TrialState.PRUNED if i in pruned else TrialState.COMPLETE, {}, v)
        for i, v in enumerate(values)
    ]


@given(st.lists(st.floats(0.1, 0.19), min_size=2, max_size=8))
def test_doubling_is_averaged_over_all_halves(values: list[float]) -> None:
    halves = itertools.combinations(values, len(values) // 2)
    best = min(values)
    expected = np.mean([min(1.0, (min(half) - best) / best) for half in halves])
    assert gain_of_doubling(np.array(values)) == pytest.approx(expected, abs=1e-12)


def test_nothing_is_known_of_nothing() -> None:
    assert gain_of_doubling(np.array([0.5])) == 1
    assert gain_of_doubling(np.array([math.inf, math.inf])) == 1
    assert expected_gain(made([0.5] * 4), [], 4) == 1  # one round
    assert expected_gain(made([0.5] * 8, pruned=tuple(range(8))), [], 4) == 1


def test_stopped_trials_are_no_better_than_the_best_complete_one() -> None:
    assert values_of(made([0.5, 0.4, 0.9], pruned=(1,))).tolist() == [0.5, 0.5, 0.9]


def test_equal_trials_settle_and_the_last_round_and_donors_count() -> None:
    same = made([0.5] * 12)
    assert expected_gain(same, [], 4) == 0
    came_down = made([0.6] * 8 + [0.5] * 4)
    assert expected_gain(came_down, [], 4) > 0.1
    spread = made([0.9, 0.8, 0.7, 0.6, 0.9, 0.8, 0.7, 0.5])
    more = expected_gain(same, [spread], 4)
    assert more == pytest.approx(gain_of_doubling(values_of(spread)) * 8 / 12 / 3)


def test_it_predicts_what_random_draws_gain() -> None:
    """Of losses drawn at random: the last doubling brought more than the next does, and what is settled gains little."""
    rng = np.random.default_rng(0)
    told, came = [], []
    for _ in range(300):
        values = 0.5 + 0.3 * rng.beta(1, 6, 48)
        told.append(gain_of_doubling(values[:24]))
        came.append((values[:24].min() - values.min()) / values[:24].min())
    assert np.mean(came) < np.mean(told) < 2.5 * np.mean(came)
    few = [c for t, c in zip(told, came, strict=True) if t < 0.005]
    assert len(few) > 100
    assert np.mean(few) < 0.005


def test_a_search_stops_at_what_is_settled_and_says_so(
    make_experiment: MakeExperiment, run: Run
) -> None:
    # nothing that matters varies: all trials come to nearly the same
    space = {"sparsity": {"low": 1e-9, "high": 1e-8, "log": True}}
    fixed = dict.fromkeys(("smoothness", "group_sparsity", "weight_decay"), 0.0)
    fixed |= {"learning_rate": 0.02, "drop": 100}
    config = make_experiment({"search": {"space": {"full": fixed | space}}})
    mine = ("--layer", "_blocks.2", "--readout", "full", "-c", config)
    assert run("study", "create", *mine).code == 0
    words = ("optimize", "--n-trials", "20", *mine)
    ended = run(*words, "--until-settled")
    assert ended.code == 0
    assert "2 studies are settled before that" in ended.err
    rows = run("study", "list", "--format", "json", "-c", config).json
    settled = [row["settled"] for row in rows]
    assert set(settled) <= {8, 12, 16}
    assert [sum(row["trials"].values()) for row in rows] == settled
    assert "settled after" in run("study", "list", "-c", config).out
    assert "2 settled" in run("status", "-c", config).out
    assert "expected gain" in run("study", "show", rows[0]["study"], "-c", config).out
    again = run(*words, "--until-settled")
    assert "nothing to do" in again.err
    assert run(*words).code == 0  # without it the number asked for is what counts
    rows = run("study", "list", "--format", "json", "-c", config).json
    assert [sum(row["trials"].values()) for row in rows] == [20, 20]
