"""How the search writes trials: what each of its steps changes, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from studies.database import trials
from studies.database.killpoints import reach
from studies.database.trials import Outcome, Proposal, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from studies.database.connection import Storage
    from studies.search.best_weights import Swap

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


class Writer(Protocol):
    """Writes the steps of a search."""

    notice: str | None
    """What is worth telling about how it writes."""

    def requeue(self, study_ids: Sequence[int], point: str) -> list[int]:
        """Put RUNNING trials of these studies back to WAITING; returns them. `point` names the write."""
        ...

    def ask(self, asked: Sequence[Asked]) -> list[list[Trial]]:
        """Bring a round's trials to RUNNING, all studies or none."""
        ...

    def report(self, reports: Reports) -> None:
        """Write intermediate values ``(trial_id, step, value)`` of running trials."""
        ...

    def tell(self, outcomes: Sequence[Outcome], swaps: Sequence[Swap] = ()) -> None:
        """Write how a round's trials ended and which files change hands, all or nothing."""
        ...

    def show(
        self, attach: Sequence[tuple[int, str, str]], detach: Sequence[tuple[int, str]]
    ) -> None:
        """Give trials system attributes ``(trial_id, key, value)``, and take others away."""
        ...


class BulkWriter:
    """Writes rows of optuna's tables, one transaction a step."""

    notice: str | None = None

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def requeue(self, study_ids: Sequence[int], point: str) -> list[int]:
        """Put RUNNING trials of these studies back to WAITING; returns them."""
        with self._storage.begin() as connection:
            orphans = trials.requeue(connection, study_ids)
            if orphans:
                reach(point)
        return orphans

    def ask(self, asked: Sequence[Asked]) -> list[list[Trial]]:
        """Bring a round's trials to RUNNING, all studies or none."""
        out = []
        with self._storage.begin() as connection:
            for one in asked:
                mine = list(one.waiting)
                trials.start(connection, mine)
                if one.new:
                    mine += trials.create(connection, one.study_id, one.new, one.space)
                out.append(mine)
            reach("asking")
        return out

    def report(self, reports: Reports) -> None:
        """Write intermediate values of running trials."""
        with self._storage.begin() as connection:
            trials.report(connection, reports)

    def tell(self, outcomes: Sequence[Outcome], swaps: Sequence[Swap] = ()) -> None:
        """Write how a round's trials ended and which files change hands, all or nothing."""
        with self._storage.begin() as connection:
            trials.tell(connection, outcomes)
            for swap in swaps:
                swap.apply(connection)
                swap.show(connection)
            reach("telling")

    def show(
        self, attach: Sequence[tuple[int, str, str]], detach: Sequence[tuple[int, str]]
    ) -> None:
        """Give trials system attributes, and take others away."""
        with self._storage.begin() as connection:
            trials.remove_system_attributes(connection, detach)
            for trial_id, key, value in attach:
                trials.set_system_attributes(connection, trial_id, {key: value})
