"""What each trial may vary, and what the sampler proposes next.

The sampler is seeded by (seed, study, number of the round's first trial): what it
proposes depends on the finished trials alone, not on this process's history, so a search that was interrupted goes on as
if it had not been.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from studies.config.ranges import (
    FloatRange,
    IntRange,
    Setting,
    grid,
    logarithmic,
    varied,
)
from studies.database.trials import FINISHED, Proposal, Trial, frozen
from studies.search import tpe

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

STARTUP_TRIALS = 8
"""Trials drawn at random before TPE has anything to learn from."""


def distributions(space: Mapping[str, Setting]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the hyperparameters that vary; fixed ones are left out."""
    from optuna.distributions import FloatDistribution, IntDistribution

    out: dict[str, BaseDistribution] = {}
    for name, setting in space.items():
        if isinstance(setting, FloatRange):
            out[name] = FloatDistribution(setting.low, setting.high, log=setting.log)
        elif isinstance(setting, IntRange):
            out[name] = IntDistribution(setting.low, setting.high, log=setting.log)
        elif isinstance(setting, tuple) and varied(setting):
            log = logarithmic(name, setting)
            out[name] = FloatDistribution(min(setting), max(setting), log=log)
    return out


def varying(space: Mapping[str, Setting], *, log: bool = False) -> list[str]:
    """Names of the hyperparameters that vary; of those on a logarithmic scale only, where asked for."""
    return [
        name
        for name, setting in space.items()
        if varied(setting) and (logarithmic(name, setting) or not log)
    ]


def hyperparameters(space: Mapping[str, Setting], params: Mapping[str, float]) -> dict[str, float]:
    """All hyperparameters of a trial: what it varies, and what is fixed."""
    fixed = {name: value for name, value in space.items() if isinstance(value, int | float)}
    fixed |= {name: v[0] for name, v in space.items() if isinstance(v, tuple) and len(v) == 1}
    return {name: params[name] if name in params else fixed[name] for name in space}


def unfilled(space: Mapping[str, Setting], trials: Sequence[Trial]) -> list[Proposal]:
    """Grid points of a closed form that no trial has, or only ones that failed, in the grid's order."""
    names = varying(space)
    taken = [t.params for t in trials if t.state != TrialState.FAIL]
    every = [{name: point[name] for name in names} for point in grid(space)]
    return [Proposal(point) for point in every if point not in taken]


def memory_study(**options: Any) -> optuna.Study:
    """A study in memory alone, of which optuna does not tell on standard error."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=optuna.storages.InMemoryStorage(), **options)


def round_seed(seed: int, study: str, first_number: int) -> int:
    """Seed of the sampler for one round, ``[0, 2**32)``."""
    text = f"{seed}\0{study}\0{first_number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def _sampler(kind: str, seed: int) -> BaseSampler:
    import optuna

    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The liar keeps trials of one round apart: none of them has a value when the next is drawn.
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS
        )


def propose(
    trials: Sequence[Trial],
    count: int,
    space: Mapping[str, Setting],
    *,
    kind: str,
    seed: int,
    study: str,
    given: Sequence[tuple[Mapping[str, float], str]] = (),
    by: str = "tuner",
) -> list[Proposal]:
    """Parameters of the next ``count`` trials of a study, asked together.

    Parameters
    ----------
    trials
        All trials of the study so far, by number.
    count
        Number of trials that are proposed.
    space
        What each may vary.
    kind
        ``tpe`` or ``random``.
    seed
        The key ``search.seed``.
    study
        Name of the study.
    given
        Parameters that the first trials take over, and where they are from; what does not lie in the space is left out.
    by
        Who computes what ``tpe`` proposes: ``tuner`` or ``optuna``.
    """
    searched = distributions(space)
    if not searched:
        return [Proposal({}) for _ in range(count)]
    mixed = round_seed(seed, study, len(trials))
    taken = [
        Proposal({name: params[name] for name in searched}, origin)
        for params, origin in given
        if _fits(params, searched)
    ][:count]
    begun, missing = [one.params for one in taken], count - len(taken)
    finished = [trial for trial in trials if trial.state in FINISHED]
    if not missing:
        drawn = []
    elif kind == "tpe" and by == "tuner" and len(finished) >= STARTUP_TRIALS:
        drawn = tpe.proposals(finished, begun, missing, searched, mixed)
    else:
        drawn = _by_optuna(trials, begun, missing, searched, _sampler(kind, mixed))
    return taken + [Proposal(params) for params in drawn]


def _by_optuna(
    trials: Sequence[Trial],
    begun: Sequence[Mapping[str, float]],
    count: int,
    space: dict[str, BaseDistribution],
    sampler: BaseSampler,
) -> list[dict[str, float]]:
    """What a sampler of optuna's proposes, on a copy of the study in memory in which ``begun`` are running."""
    copy = memory_study(sampler=sampler)
    copy.add_trials([frozen(trial, space) for trial in trials])
    for params in begun:
        copy.enqueue_trial(dict(params))
        copy.ask(fixed_distributions=space)
    return [copy.ask(fixed_distributions=space).params for _ in range(count)]


def _fits(params: Mapping[str, float], space: Mapping[str, BaseDistribution]) -> bool:
    from optuna.distributions import FloatDistribution, IntDistribution

    return all(
        isinstance(distribution, FloatDistribution | IntDistribution)
        and name in params
        and distribution.low <= params[name] <= distribution.high
        for name, distribution in space.items()
    )
