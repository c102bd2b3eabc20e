"""Importance of hyperparameters: finds what decides, says nothing where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.trial import TrialState

from studies.config.ranges import FloatRange, IntRange
from studies.database.trials import Trial
from studies.results.importance import METHOD, importance

SPACE = {
    "sparsity": FloatRange(low=1e-7, high=1e-1),
    "learning_rate": FloatRange(low=1e-3, high=1.0),
    "drop": IntRange(low=20, high=400),
    "smoothness": 0.1,  # fixed
}


def made(count: int, pruned: int = 0, seed: int = 0) -> list[Trial]:
    """Trials whose loss depends on the learning rate alone; the worst of them pruned, one diverged."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        rate = 10 ** rng.uniform(-3, 0)
        params = {
            "sparsity": 10 ** rng.uniform(-7, -1),
            "learning_rate": rate,
            "drop": int(rng.integers(20, 400)),
        }
        loss = 0.5 + 0.1 * (math.log10(rate) + 1) ** 2
        out.append(Trial(number, 1, number, TrialState.COMPLETE, params, loss))
    for trial in sorted(out, key=lambda t: -(t.value or 0))[:pruned]:
        trial.state = TrialState.PRUNED
    if pruned:
        max(out, key=lambda t: t.value or 0).value = math.inf
    return out


@pytest.mark.parametrize("pruned", [0, 25])
def test_what_decides_comes_first(pruned: int) -> None:
    found = importance(made(50, pruned), SPACE)
    assert list(found.shares)[0] == "learning_rate"
    assert set(found.shares) == {"sparsity", "learning_rate", "drop"}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["learning_rate"] > 0.5
    assert found.note == METHOD
    assert importance(made(50, pruned), SPACE) == found  # nothing is drawn at random


@pytest.mark.parametrize(
    ("trials", "space", "reason"),
    [
        (made(9), SPACE, "needs 10 complete trials, there are 9"),
        (made(30, 25), SPACE, "needs 10 complete trials, there are 5"),
        (made(50), {"drop": SPACE["drop"]}, "fewer than two"),
        (made(50), {"smoothness": 0.1}, "fewer than two"),
        ([], SPACE, "there are 0"),
    ],
)
def test_nothing_is_said_of_too_little(trials, space, reason) -> None:
    found = importance(trials, space)
    assert found.shares == {}
    assert reason in found.note


def test_equal_trials_have_no_importance() -> None:
    trials = made(20)
    for trial in trials:
        trial.value = 0.5
    assert importance(trials, SPACE).shares == {}
    assert "no trial is better" in importance(trials, SPACE).note
