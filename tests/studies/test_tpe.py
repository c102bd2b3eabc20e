"""Proposals computed here are those of Optuna's sampler, to rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.trial import TrialState

from studies.config.ranges import FloatRange, IntRange, Space
from studies.database.trials import Proposal, Trial
from studies.search.space import distributions, propose

SPACE: Space = {
    "sparsity": FloatRange(low=1e-7, high=1e-1, log=True),
    "penalty": FloatRange(low=-2.0, high=3.0, log=False),
    "drop": IntRange(low=20, high=400, log=True),
    "taps": IntRange(low=0, high=5, log=False),
}


def searched(by: str, rounds: int, seed: int) -> list[list[Proposal]]:
    """Proposals of each round of a search of which some trials diverge, fail, or are stopped early."""
    rng = np.random.default_rng(seed)
    known: list[Trial] = []
    out = []
    for number in range(rounds):
        gifts = [({"sparsity": 1e-3, "penalty": 0.5, "drop": 30, "taps": 2}, "a/b/c/full")]
        given = gifts if number == 1 else []
        new = propose(
            known, 8, SPACE, kind="tpe", seed=seed, study="a/b/d/full", given=given, by=by
        )
        out.append(new)
        for proposal in new:
            p, i = proposal.params, len(known)
            value = abs(math.log10(p["sparsity"]) + 3) + p["penalty"] ** 2 + rng.random()
            state = TrialState.COMPLETE if value < 3 else TrialState.PRUNED
            curve = {10: value, 20: value} if i % 3 else {10: math.nan}
            if i % 7 == 5:
                state, curve = TrialState.PRUNED, {}
            if i % 11 == 10:
                known.append(Trial(i, 1, i, TrialState.FAIL, dict(p)))
            else:
                known.append(Trial(i, 1, i, state, dict(p), value, curve))
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_proposals_are_those_of_optuna(seed: int) -> None:
    names = list(distributions(SPACE))
    for mine, theirs in zip(searched("tuner", 6, seed), searched("optuna", 6, seed), strict=True):
        one, two = ([[p.params[name] for name in names] for p in some] for some in (mine, theirs))
        np.testing.assert_allclose(one, two, rtol=1e-9)
        assert [p.note for p in mine] == [p.note for p in theirs]
        assert all(isinstance(p.params["drop"], int) for p in mine)


def test_proposals_of_a_study_do_not_depend_on_which_others_are_asked() -> None:
    alone = searched("tuner", 3, 0)
    searched("tuner", 2, 5)
    assert searched("tuner", 3, 0) == alone
