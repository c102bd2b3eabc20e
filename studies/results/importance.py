"""Which hyperparameters set a study's best trials apart from the others, by optuna's PED-ANOVA.

The best tenth of the trials is compared with all of them, along each hyperparameter. Pruned trials are among them, at the
least loss they reached: only the order of the trials counts, so one that diverged is simply one of the last. Nothing is
drawn at random. optuna's other way, fANOVA, needs scikit-learn and fits a forest to every study.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from studies.config.ranges import Setting
from studies.database.summaries import ENOUGH
from studies.database.trials import FINISHED, Trial
from studies.search.space import distributions, memory_study, varying

TENTH = 0.1
FEWEST = 5
"""Trials that count as the best where a tenth of them is fewer."""

METHOD = "PED-ANOVA: how much each sets the best tenth of the trials (at least 5) apart; sums to 1"


@dataclass(frozen=True)
class Importance:
    """What matters in one study.

    Attributes
    ----------
    shares
        Hyperparameter to its share, largest first; they add up to 1. Empty: not computed.
    note
        What the shares are, or why there are none.
    """

    shares: dict[str, float]
    note: str


def importance(loaded: Sequence[Trial], space: Mapping[str, Setting]) -> Importance:
    """How much each hyperparameter that varies sets the best trials apart.

    Parameters
    ----------
    loaded
        All trials of the study.
    space
        What each may vary.
    """
    names = varying(space)
    complete = sum(trial.state == TrialState.COMPLETE for trial in loaded)
    if len(names) < 2:
        return Importance({}, "not computed: fewer than two hyperparameters vary")
    if complete < ENOUGH:
        return Importance({}, f"not computed: needs {ENOUGH} complete trials, there are {complete}")
    found = _ped_anova([trial for trial in loaded if trial.state in FINISHED], space)
    total = sum(found.values())
    if not total > 0:
        return Importance({}, "not computed: no trial is better than another")
    order = sorted(found, key=lambda name: (-found[name], name))
    return Importance({name: found[name] / total for name in order}, METHOD)


def _ped_anova(finished: Sequence[Trial], space: Mapping[str, Setting]) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import create_trial

    spread = distributions(space)
    values = [math.inf if trial.value is None else trial.value for trial in finished]
    last = max(filter(math.isfinite, values), default=1.0) + 1.0
    study = memory_study()
    study.add_trials(
        create_trial(
            state=TrialState.COMPLETE,
            value=value if math.isfinite(value) else last,
            params={name: trial.params[name] for name in spread},
            distributions=spread,
        )
        for trial, value in zip(finished, values, strict=True)
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(TENTH, FEWEST / len(finished)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials that are all equal: their shares are 0
        return evaluator.evaluate(study, params=sorted(spread))
