"""How the search writes trials: what each of its steps changes, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from studies.database import weights, writes
from studies.database.connection import Storage
from studies.database.fences import expect, writing
from studies.database.killpoints import reach
from studies.database.studies import Stored, set_aside
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

    study: Stored
    waiting: Sequence[Trial]
    new: Sequence[Proposal]
    space: Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class Told:
    """How a study's trials of a round ended, and which of its files change hands."""

    study: Stored
    outcomes: Sequence[Outcome]
    swap: Swap = field(default_factory=Swap)


def requeue(storage: Storage, studies: Sequence[Stored], point: str) -> list[int]:
    """Put RUNNING trials of these studies back to WAITING; returns them.

    Parameters
    ----------
    point
        What the write is called where a search is killed on purpose.

    Raises
    ------
    StudyGone
        Here and below: if a study, or a trial of it, is no longer what it was; nothing was written then.
    """
    with writing(storage, studies) as connection:
        orphans = writes.requeue(connection, [study.study_id for study in studies])
        if orphans:
            reach(point)
    return orphans


def run_again(
    storage: Storage, study: Stored, file: KeptFile, *, whole_study: bool = False
) -> None:
    """Put the trial of a lost weights file back to be run again, or all of its study's; the claim is held."""
    with writing(storage, [study]) as connection:
        weights.forget(connection, file)
        if whole_study or file.trial_number is not None:
            writes.run_again(connection, study.study_id, file.trial_number)


def forget(storage: Storage, file: KeptFile) -> None:
    """Take a kept file that belongs to no study out of the database."""
    with storage.begin() as connection:
        weights.forget(connection, file)


def ask(storage: Storage, asked: Sequence[Asked]) -> list[list[Trial]]:
    """Bring a round's trials to RUNNING, all studies or none."""
    out = []
    with writing(storage, [one.study for one in asked]) as connection:
        taken_up = [(one.study, [t.trial_id for t in one.waiting]) for one in asked]
        expect(connection, taken_up, TrialState.WAITING)
        for one in asked:
            mine = list(one.waiting)
            writes.start(connection, mine)
            if one.new:
                mine += writes.create(connection, one.study.study_id, one.new, one.space)
            out.append(mine)
        reach("asking")
    return out


def report(storage: Storage, reported: Sequence[tuple[Stored, Reports]]) -> None:
    """Write intermediate values ``(trial_id, step, value)`` of each study's running trials."""
    with writing(storage, [study for study, _ in reported]) as connection:
        mine = [(study, {trial_id for trial_id, _, _ in rows}) for study, rows in reported]
        expect(connection, mine, TrialState.RUNNING)
        writes.report(connection, [row for _, rows in reported for row in rows])


def tell(storage: Storage, told: Sequence[Told]) -> None:
    """Write how a round's trials ended and which files change hands, all or nothing."""
    with writing(storage, [one.study for one in told]) as connection:
        _tell(connection, told)
        reach("telling")


def fail(storage: Storage, told: Told, message: str) -> None:
    """Write that a study's trials failed, and set it aside."""
    with writing(storage, [told.study]) as connection:
        _tell(connection, [told])
        set_aside(connection, told.study, message)


def _tell(connection: Connection, told: Sequence[Told]) -> None:
    ended = [(one.study, [o.trial_id for o in one.outcomes]) for one in told]
    expect(connection, ended, TrialState.RUNNING)
    writes.tell(connection, [outcome for one in told for outcome in one.outcomes])
    for one in told:
        one.swap.apply(connection)
