from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from studies.search.pruning import (
    MIN_OTHERS,
    carried_forward,
    of_earlier,
    stopped,
    stopped_at_rung,
)
from studies.search.rungs import ReportGrid, rungs_of

LOSS = st.one_of(st.floats(0, 3), st.just(math.inf))


def by_the_book(
    report: int, reports: int, current: list[float], others: list[float], running: list[bool]
) -> list[bool]:
    """The rule as it is said, trial by trial."""
    out = []
    for value, runs in zip(current, running, strict=True):
        everyone = sorted([*current, *others])
        if math.inf in everyone and everyone[len(everyone) // 2] == math.inf:
            low = everyone[(len(everyone) - 1) // 2]
            median = math.inf if low == math.inf else (low + math.inf) / 2
            if len(everyone) % 2:
                median = everyone[len(everyone) // 2]
        else:
            median = statistics.median(everyone)
        early = report < 0.3 * reports - 1e-9
        last = report >= reports
        out.append(
            runs and not early and not last and len(everyone) - 1 >= MIN_OTHERS and value > median
        )
    return out


@given(
    reports=st.integers(1, 12),
    data=st.data(),
    others=st.lists(LOSS, max_size=8),
    current=st.lists(LOSS, min_size=1, max_size=8),
)
def test_the_rule_is_the_one_that_is_said(
    reports: int, data: st.DataObject, others: list[float], current: list[float]
) -> None:
    report = data.draw(st.integers(1, reports))
    running = data.draw(st.lists(st.booleans(), min_size=len(current), max_size=len(current)))
    found = stopped(report, reports, np.array(current), np.array(others), np.array(running))
    assert found.tolist() == by_the_book(report, reports, current, others, running)


def test_equal_trials_are_never_stopped() -> None:
    same = np.full(8, 0.5)
    assert not stopped(5, 10, same, same, np.ones(8, dtype=bool)).any()


def test_worse_half_is_stopped_once_the_warm_up_is_over() -> None:
    current = np.arange(8) / 10
    runs = np.ones(8, dtype=bool)
    assert not stopped(2, 10, current, np.empty(0), runs).any()
    assert stopped(3, 10, current, np.empty(0), runs).tolist() == [False] * 4 + [True] * 4
    assert not stopped(10, 10, current, np.empty(0), runs).any()


@pytest.mark.parametrize(("n", "stops"), [(5, False), (6, True)])
def test_five_others_are_needed(n: int, stops: bool) -> None:
    assert stopped(5, 10, np.arange(n) / 10, np.empty(0), np.ones(n, dtype=bool)).any() == stops


def test_a_curve_that_ends_early_keeps_its_best() -> None:
    best = carried_forward({10: 0.9, 20: 0.7, 30: 0.8}, (10, 20, 30, 40, 50))
    assert best.tolist() == [0.9, 0.7, 0.7, 0.7, 0.7]


def test_not_a_number_counts_as_infinite() -> None:
    assert carried_forward({1: math.nan, 2: 0.5}, (1, 2)).tolist() == [math.inf, 0.5]
    assert carried_forward({}, (1, 2)).tolist() == [math.inf, math.inf]


def search(
    draw: np.random.Generator,
    rounds: int = 7,
    size: int = 8,
    reports: int = 20,
    forward: bool = True,
) -> tuple[int, bool]:
    """A search of simulated curves; returns how many trials completed, and whether the best one did.

    Curves fall to a final value that differs from trial to trial, at a pace that differs too.
    """
    steps = np.arange(1, reports + 1)
    finished: list[tuple[NDArray[np.float64], bool]] = []
    finals: list[float] = []
    for number in range(rounds):
        count = min(size, 50 - number * size)
        final = 0.5 + 0.4 * draw.beta(1.2, 2.5, count)
        pace = draw.uniform(2, 8, count)
        noise = draw.normal(0, 0.004, (count, reports))
        curves = final[:, None] + (1 - final[:, None]) * np.exp(-steps / pace[:, None]) + noise
        best = np.minimum.accumulate(curves, axis=1)
        running = np.ones(count, dtype=bool)
        stop_at = np.full(count, reports)
        for report in range(1, reports + 1):
            current = best[np.arange(count), np.minimum(stop_at, report) - 1]
            if forward:
                others = np.array([curve[report - 1] for curve, _ in finished])
            else:
                others = np.array([curve[report - 1] for curve, whole in finished if whole])
                current = np.where(running, current, np.nan)
            seen = current[~np.isnan(current)]
            mask = ~np.isnan(current)
            stop = np.zeros(count, dtype=bool)
            stop[mask] = stopped(report, reports, seen, others, running[mask])
            stop_at[stop] = report
            running &= ~stop
        for i in range(count):
            kept = best[i].copy()
            kept[stop_at[i] :] = kept[stop_at[i] - 1]
            finished.append((kept, bool(running[i])))
        finals += best[:, -1].tolist()
    complete = [whole for _, whole in finished]
    return sum(complete), complete[int(np.argmin(finals))]


def test_carrying_values_forward_leaves_enough_complete_and_keeps_the_best() -> None:
    ended = [search(np.random.default_rng(seed)) for seed in range(40)]
    assert min(complete for complete, _ in ended) >= 20
    assert sum(best for _, best in ended) == len(ended)


def test_counting_survivors_only_would_ratchet() -> None:
    """Why values are carried forward: the same searches with medians over survivors."""
    ended = [search(np.random.default_rng(seed), forward=False) for seed in range(40)]
    forward = [search(np.random.default_rng(seed)) for seed in range(40)]
    assert np.mean([n for n, _ in ended]) < 0.7 * np.mean([n for n, _ in forward])
    assert sum(best for _, best in ended) < len(ended)


@given(current=st.lists(LOSS, min_size=1, max_size=9), others=st.lists(LOSS, max_size=9))
def test_at_a_rung_the_better_part_lives(current: list[float], others: list[float]) -> None:
    runs = np.isfinite(current)
    for share in (Fraction(3, 4), Fraction(1, 2)):
        stop = stopped_at_rung(np.array(current), np.array(others), runs, share)
        everyone = [*current, *others]
        for value, gone, ran in zip(current, stop, runs, strict=True):
            better = sum(v < value for v in everyone)
            if gone:
                assert ran
                assert better >= share * len(everyone)
            elif ran:  # one more where the share is no whole number
                assert better < share * len(everyone)
        assert not stop[np.array(current) == min(everyone)].any()


def test_at_a_rung_those_count_that_reached_it() -> None:
    curves = [{10: 0.9}, {10: 0.5, 20: 0.4}, {10: math.inf}]
    assert [v.tolist() for v in of_earlier(curves, (10, 20), reached=True)] == [
        [0.9, 0.5, math.inf],
        [0.4],
    ]
    assert of_earlier(curves, (10, 20), reached=False)[1].tolist() == [0.9, 0.4, math.inf]
    assert [len(v) for v in of_earlier([], (10, 20), reached=True)] == [0, 0]


@pytest.mark.parametrize(
    ("steps", "rungs"), [(300, (20, 50, 100)), (20, (1, 3, 7)), (3, (1,)), (1, ())]
)
def test_rungs_scale_with_the_steps(steps: int, rungs: tuple[int, ...]) -> None:
    assert tuple(rungs_of(steps)) == rungs
    assert rungs_of(300) == {20: Fraction(3, 4), 50: Fraction(1, 2), 100: Fraction(1, 2)}
    assert set(rungs_of(4).values()) == {Fraction(1, 2)}  # two at one step: the later one's share


def test_the_first_report_is_at_the_first_rung() -> None:
    grid = ReportGrid.at(300, 30, rungs=True)
    assert grid.steps == (20, 50, 100, 120, 150, 180, 210, 240, 270, 300)
    assert tuple(grid.rungs or ()) == (20, 50, 100)
    before = ReportGrid.at(300, 30, rungs=False)
    assert before.rungs is None
    assert before.steps == tuple(range(30, 301, 30))
    made = {"training.steps": 300, "training.report_every": 30, "search.pruner": "median"}
    assert ReportGrid.as_made(made) == before
    assert ReportGrid.as_made(made | {"search.rungs": "auto"}) == grid
    assert ReportGrid.as_made(made | {"search.rungs": "auto", "search.pruner": "none"}) == before
