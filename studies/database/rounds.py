"""How the search writes trials: what each of its steps changes, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.distributions import BaseDistribution

from studies.database import trials, weights
from studies.database.connection import Storage
from studies.database.killpoints import reach
from studies.database.trials import Outcome, Proposal, Trial
from studies.database.weights import KeptFile, Swap

Reports = Sequence[tuple[int, int, float]]


@dataclass(frozen=True)
class Asked:
    """What a study is asked for in a round: trials that wait, or else new ones.

    Attributes
    ----------
    waiting
        Trials to be taken up.
    new
        Trials to be made.
    space
        What the new ones vary.
    """

    study_id: int
    waiting: Sequence[Trial]
    new: Sequence[Proposal]
    space: Mapping[str, BaseDistribution]


def requeue(storage: Storage, study_ids: Sequence[int], point: str) -> list[int]:
    """Put RUNNING trials of these studies back to WAITING; returns them.

    Parameters
    ----------
    point
        What the write is called where a search is killed on purpose.
    """
    with storage.begin() as connection:
        orphans = trials.requeue(connection, study_ids)
        if orphans:
            reach(point)
    return orphans


def run_again(storage: Storage, file: KeptFile, *, whole_study: bool = False) -> None:
    """Put the trial of a lost weights file back to be run again, or all of its study's; the claim is held."""
    with storage.begin() as connection:
        weights.forget(connection, file)
        if whole_study or file.trial_number is not None:
            trials.run_again(connection, file.study_id, file.trial_number)


def ask(storage: Storage, asked: Sequence[Asked]) -> list[list[Trial]]:
    """Bring a round's trials to RUNNING, all studies or none."""
    out = []
    with storage.begin() as connection:
        for one in asked:
            mine = list(one.waiting)
            trials.start(connection, mine)
            if one.new:
                mine += trials.create(connection, one.study_id, one.new, one.space)
            out.append(mine)
        reach("asking")
    return out


def report(storage: Storage, reports: Reports) -> None:
    """Write intermediate values ``(trial_id, step, value)`` of running trials."""
    with storage.begin() as connection:
        trials.report(connection, reports)


def tell(storage: Storage, outcomes: Sequence[Outcome], swaps: Sequence[Swap] = ()) -> None:
    """Write how a round's trials ended and which files change hands, all or nothing."""
    with storage.begin() as connection:
        trials.tell(connection, outcomes)
        for swap in swaps:
            swap.apply(connection)
        reach("telling")
