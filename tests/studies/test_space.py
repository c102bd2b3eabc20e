from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from studies.config.ranges import FloatRange, IntRange, Space, varies
from studies.database.trials import Proposal, Trial
from studies.search.space import distributions, hyperparameters, propose

SPACE: Space = {
    "sparsity": FloatRange(low=1e-7, high=1e-1, log=True),
    "smoothness": 0.0,
    "learning_rate": FloatRange(low=1e-3, high=1.0, log=True),
    "drop": IntRange(low=20, high=400, log=True),
}


def ask(trials: list[Trial], count: int = 8, **changes: object) -> list[Proposal]:
    settings = {"kind": "tpe", "seed": 0, "study": "a/b/c/full"} | changes
    return propose(trials, count, SPACE, **settings)


def finish(proposals: list[Proposal], first: int = 0) -> list[Trial]:
    """Trials whose value is the distance of the learning rate from 0.1."""
    return [
        Trial(
            100 + first + i,
            1,
            first + i,
            TrialState.PRUNED if i % 3 == 0 else TrialState.COMPLETE,
            dict(p.params),
            abs(math.log10(p.params["learning_rate"]) + 1),
            {10: 1.0, 20: 0.5},
        )
        for i, p in enumerate(proposals)
    ]


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_proposals_follow_from_the_finished_trials_alone(kind: str) -> None:
    first = ask([], kind=kind)
    assert first == ask([], kind=kind)
    second = ask(finish(first), kind=kind)
    assert second == ask(finish(first), kind=kind)
    assert second != first


def test_seed_study_and_position_give_other_proposals() -> None:
    base = ask([])
    assert ask([], seed=1) != base
    assert ask([], study="a/b/d/full") != base


def test_proposals_lie_in_the_space_and_only_what_varies_is_proposed() -> None:
    for proposal in ask([], count=40):
        assert set(proposal.params) == {"sparsity", "learning_rate", "drop"}
        assert 1e-7 <= proposal.params["sparsity"] <= 1e-1
        assert 20 <= proposal.params["drop"] <= 400
        assert isinstance(proposal.params["drop"], int)


def test_trials_of_a_round_differ_from_one_another() -> None:
    trials = finish(ask([]))
    rates = [p.params["learning_rate"] for p in ask(trials)]
    assert len(set(rates)) == len(rates)


def test_tpe_learns_where_the_good_ones_are() -> None:
    trials: list[Trial] = []
    for _ in range(5):
        trials += finish(ask(trials), len(trials))
    late = [abs(math.log10(p.params["learning_rate"]) + 1) for p in ask(trials, count=16)]
    early = [abs(math.log10(t.params["learning_rate"]) + 1) for t in trials[:8]]
    assert sorted(late)[8] < sorted(early)[4]


def test_a_warm_start_comes_first_counts_and_says_where_from() -> None:
    warm = {"sparsity": 1e-4, "learning_rate": 0.25, "drop": 77}
    elsewhere = (warm | {"drop": 4000}, "other/space/c/full")
    proposals = ask(finish(ask([])), given=[elsewhere, (warm, "best of a/a/c/full")])
    assert len(proposals) == 8
    assert proposals[0].params == warm
    assert proposals[0].note == "best of a/a/c/full"
    assert all(p.note is None for p in proposals[1:])


def test_diverged_and_failed_trials_do_not_upset_the_sampler() -> None:
    trials = finish(ask([]))
    trials[1].value, trials[1].state, trials[1].curve = math.inf, TrialState.PRUNED, {}
    trials[2].curve = {10: math.nan}
    trials[3].value, trials[3].state, trials[3].curve = None, TrialState.FAIL, {}
    assert len(ask(trials)) == 8


def test_with_nothing_to_vary_a_proposal_is_empty() -> None:
    fixed: Space = {"sparsity": 0.1}
    assert not varies(fixed)
    assert propose([], 2, fixed, kind="tpe", seed=0, study="a") == [Proposal({}), Proposal({})]


def test_a_list_of_one_is_fixed() -> None:
    space: Space = {"width": (0.7,), "penalty": (1.0, 10.0)}
    assert hyperparameters(space, {"penalty": 1.0}) == {"width": 0.7, "penalty": 1.0}


def test_hyperparameters_are_what_varies_and_what_is_fixed() -> None:
    assert list(distributions(SPACE)) == ["sparsity", "learning_rate", "drop"]
    params = {"sparsity": 1e-3, "learning_rate": 0.1, "drop": 50}
    assert hyperparameters(SPACE, params) == params | {"smoothness": 0.0}
