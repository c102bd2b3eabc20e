from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.database.trials import Trial
from studies.search.pruning import carried_forward, stopped
from studies.search.round import Member, ReportWriter, Round
from tests.fitting.test_trainer import make, random_trials

REPORTS = (10, 20, 30, 40, 50)
REGIONS = [np.array([0, 2, 3]), np.array([1, 4])]
HALF = Fraction(1, 2)


class Seen:
    """What a round reports while it runs."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.running: list[int] = []
        self.rows: list[tuple[int, int, float]] = []

    def __call__(self, step: int, steps: int, running: int, reports: list) -> None:
        self.steps.append(step)
        self.running.append(running)
        self.rows += reports


def members(
    readout: str, trials: int = 8, earlier: list[Trial] | None = None, **settings: float
) -> list[Member]:
    out = []
    for m, units in enumerate(REGIONS):
        parameters = random_trials(readout, trials, seed=m)
        parameters[0] |= settings
        mine = [
            Trial(100 * m + i, m, 8 + i, TrialState.RUNNING, dict(p))
            for i, p in enumerate(parameters)
        ]
        out.append(Member(units, parameters, mine, earlier or []))
    return out


def run(
    readout: str,
    who: list[Member],
    turns: list[list[tuple[int, NDArray[np.int64]]]] | None = None,
    prune: bool = True,
    rungs: Mapping[int, Fraction] | None = None,
) -> tuple[object, Seen]:
    trainer, _, _ = make(readout, 5)
    turns = turns or [[(m, member.units) for m, member in enumerate(who)]]
    seen = Seen()
    result = Round(who, turns, trainer, reports=REPORTS, prune=prune, rungs=rungs).run(seen)
    return result, seen


@pytest.mark.parametrize("readout", ["full", "factorized"])
def test_units_in_blocks_and_turns_give_what_one_block_gives(readout: str) -> None:
    whole, _ = run(readout, members(readout))
    turns = [
        [(0, REGIONS[0][:1])],
        [(0, REGIONS[0][1:]), (1, REGIONS[1][1:])],
        [(1, REGIONS[1][:1])],
    ]
    parts, _ = run(readout, members(readout), turns)
    for a, b in zip(whole.outcomes, parts.outcomes, strict=True):
        assert [o.state for o in a] == [o.state for o in b]
        np.testing.assert_allclose([o.value for o in a], [o.value for o in b], rtol=1e-4)
    for a, b in zip(whole.fitted, parts.fitted, strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.trial.trial_id == other.trial.trial_id
            np.testing.assert_allclose(one.unit_loss, other.unit_loss, rtol=1e-3)
            for name, value in one.parameters.items():
                assert len(value) == len(REGIONS[one.trial.study_id])
                np.testing.assert_allclose(value, other.parameters[name], rtol=2e-2, atol=2e-4)


def test_a_study_is_the_same_in_company_and_alone() -> None:
    both, _ = run("full", members("full"))
    one = members("full")[:1]
    alone, _ = run("full", one)
    np.testing.assert_allclose(
        [o.value for o in both.outcomes[0]], [o.value for o in alone.outcomes[0]], rtol=1e-4
    )


def test_the_same_round_ends_with_the_same_bytes() -> None:
    first, _ = run("factorized", members("factorized"))
    second, _ = run("factorized", members("factorized"))
    assert first.outcomes == second.outcomes
    for a, b in zip(first.fitted[0], second.fitted[0], strict=True):
        assert all(np.array_equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def test_a_value_is_the_least_mean_over_units_and_the_weights_are_those_of_that_report() -> None:
    result, _ = run("full", members("full"), prune=False)
    for m, outcomes in enumerate(result.outcomes):
        for outcome, fitted in zip(outcomes, result.fitted[m], strict=True):
            assert outcome.state == TrialState.COMPLETE
            assert outcome.value == min(outcome.curve.values())
            assert sorted(outcome.curve) == list(REPORTS)
            # Halves of equal size: the mean over units and halves is the value.
            assert fitted.unit_loss.mean() == pytest.approx(outcome.value, rel=1e-9)


def test_a_diverged_trial_is_pruned_with_infinity_and_its_neighbours_are_untouched() -> None:
    result, seen = run("full", members("full", learning_rate=1e38), prune=False)
    clean, _ = run("full", members("full"), prune=False)
    for mine, other in zip(result.outcomes, clean.outcomes, strict=True):
        assert mine[0].state == TrialState.PRUNED
        assert mine[0].value == np.inf
        assert all(o.state == TrialState.COMPLETE for o in mine[1:])
        np.testing.assert_allclose(
            [o.value for o in mine[1:]], [o.value for o in other[1:]], rtol=1e-5
        )
    assert all(len(fitted) == 7 for fitted in result.fitted)
    assert seen.steps[-1] == REPORTS[-1]


def test_pruning_is_the_rule_applied_report_by_report() -> None:
    """The round that prunes stops the trials that the rule names on the curves of one that does not."""
    free, _ = run("full", members("full"), prune=False)
    pruned, seen = run("full", members("full"))
    for whole, cut in zip(free.outcomes, pruned.outcomes, strict=True):
        best = np.array([carried_forward(o.curve, REPORTS) for o in whole])
        running = np.ones(len(whole), dtype=bool)
        last = np.full(len(whole), len(REPORTS))
        for number in range(1, len(REPORTS) + 1):
            current = best[np.arange(len(whole)), np.minimum(last, number) - 1]
            stop = stopped(number, len(REPORTS), current, np.empty(0), running)
            last[stop] = number
            running &= ~stop
        assert [o.state == TrialState.COMPLETE for o in cut] == running.tolist()
        assert [len(o.curve) for o in cut] == last.tolist()
        assert 0 < (~running).sum() < len(whole)
    assert seen.running[0] > seen.running[-1]


def test_at_rungs_half_of_those_that_come_there_go_on() -> None:
    free, _ = run("full", members("full"), prune=False)
    cut, seen = run("full", members("full"), rungs={10: HALF, 20: HALF})
    assert seen.running[:3] == [8, 4, 4]  # of two studies
    for whole, halved in zip(free.outcomes, cut.outcomes, strict=True):
        best = np.array([carried_forward(o.curve, REPORTS) for o in whole])
        first = set(np.argsort(best[:, 0])[:4])
        second = sorted(first, key=lambda i: best[i, 1])[:2]
        assert {i for i, o in enumerate(halved) if len(o.curve) > 1} == first
        assert [i for i, o in enumerate(halved) if o.state == TrialState.COMPLETE] == sorted(second)


def test_at_rungs_a_round_is_measured_by_earlier_ones_that_came_as_far() -> None:
    earlier = [
        Trial(900 + i, 0, i, TrialState.PRUNED, {}, 1e-6, {10: 1e-6} if i else {10: 1e-6, 20: 9.0})
        for i in range(8)
    ]
    none, _ = run("full", members("full", earlier=earlier), rungs={10: HALF, 20: HALF})
    assert {o.state for outcomes in none.outcomes for o in outcomes} == {TrialState.PRUNED}
    later, _ = run(
        "full", members("full", earlier=earlier), rungs={20: HALF}
    )  # one came there: it is bad
    assert [sum(len(o.curve) > 2 for o in outcomes) for outcomes in later.outcomes] == [4, 4]


def test_trials_of_earlier_rounds_count() -> None:
    earlier = [
        Trial(900 + i, 0, i, TrialState.PRUNED, {}, 1e-6, dict.fromkeys(REPORTS, 1e-6))
        for i in range(30)
    ]
    result, seen = run("full", members("full", earlier=earlier))
    assert {o.state for outcomes in result.outcomes for o in outcomes} == {TrialState.PRUNED}
    assert result.fitted == [[], []]
    assert seen.steps == [
        10,
        20,
    ]  # stopped at 30 % and more of the reports; nothing runs on for nothing
    assert all(o.value == min(o.curve.values()) for o in result.outcomes[0])


def test_every_report_is_passed_on_once() -> None:
    result, seen = run("full", members("full"))
    told = {
        (o.trial_id, step, v)
        for some in result.outcomes
        for o in some
        for step, v in o.curve.items()
    }
    assert len(seen.rows) == len(set(seen.rows))
    assert set(seen.rows) == told


def test_reports_are_written_together_and_not_all_the_time() -> None:
    written: list[list] = []
    writer = ReportWriter(lambda rows: written.append(list(rows)), seconds=3600)
    for step in range(5):
        writer.add([(1, step, 0.5)])
    assert written == []
    writer = ReportWriter(lambda rows: written.append(list(rows)), seconds=0)
    writer.add([(1, 0, 0.5)])
    writer.add([(1, 1, 0.5)])
    assert written == [[(1, 0, 0.5)], [(1, 1, 0.5)]]
