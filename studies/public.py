"""Writing trials through optuna's own calls, where its tables are of a kind that is not known.

A transaction a value, so it is slower; and trials that have ended can no longer be changed, so the dashboard shows no
files with them. Each step is ordered so that a kill within it leaves trials that are RUNNING, which run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.trial import TrialState, create_trial

from studies.database.killpoints import reach
from studies.database.rounds import Asked, Reports
from studies.database.trials import Outcome, Trial, refuse_lost

if TYPE_CHECKING:
    from studies.database.connection import Storage
    from studies.search.best_weights import Swap


class PublicWriter:
    """Writes through optuna's storage interface."""

    notice: str | None = (
        "this version of optuna keeps its tables in another way than is known here; trials are "
        "written through its own calls, which is slower, and the dashboard shows no files"
    )

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def requeue(self, study_ids: Sequence[int], point: str) -> list[int]:
        """Put RUNNING trials of these studies back to WAITING; their reports are written over when they run again."""
        orphans: list[int] = []
        optuna = self._storage.optuna
        with self._storage.failures():
            for study_id in study_ids:
                for trial in optuna.get_all_trials(
                    study_id, deepcopy=False, states=(TrialState.RUNNING,)
                ):
                    optuna.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                    orphans.append(trial._trial_id)
                    reach(point)
        return orphans

    def ask(self, asked: Sequence[Asked]) -> list[list[Trial]]:
        """Bring a round's trials to RUNNING; new ones are made WAITING first, so that a kill loses none."""
        optuna = self._storage.optuna
        out: list[list[Trial]] = []
        with self._storage.failures():
            for one in asked:
                mine = list(one.waiting)
                for proposal in one.new:
                    template = create_trial(
                        state=TrialState.WAITING,
                        params=dict(proposal.params),
                        distributions=dict(one.space),
                        user_attrs={"origin": proposal.note} if proposal.note else {},
                    )
                    trial_id = optuna.create_new_trial(one.study_id, template)
                    number = optuna.get_trial_number_from_id(trial_id)
                    mine.append(
                        Trial(
                            trial_id,
                            one.study_id,
                            number,
                            TrialState.WAITING,
                            dict(proposal.params),
                        )
                    )
                    reach("asking")
                out.append(mine)
            for mine in out:
                for trial in mine:
                    optuna.set_trial_state_values(trial.trial_id, TrialState.RUNNING)
                    trial.state = TrialState.RUNNING
        return out

    def report(self, reports: Reports) -> None:
        """Write intermediate values of running trials."""
        with self._storage.failures():
            for trial_id, step, value in reports:
                self._storage.optuna.set_trial_intermediate_value(trial_id, step, value)

    def tell(self, outcomes: Sequence[Outcome], swaps: Sequence[Swap] = ()) -> None:
        """Write how a round's trials ended: first the files, which a repeated round writes again alike."""
        with self._storage.begin() as connection:
            refuse_lost(connection, [outcome.trial_id for outcome in outcomes])
            for swap in swaps:
                swap.apply(connection)
        self.report([(o.trial_id, step, v) for o in outcomes for step, v in o.curve.items()])
        optuna = self._storage.optuna
        with self._storage.failures():
            for outcome in outcomes:
                for key, value in outcome.attributes.items():
                    optuna.set_trial_user_attr(outcome.trial_id, key, value)
                values = None if outcome.value is None else (outcome.value,)
                optuna.set_trial_state_values(outcome.trial_id, outcome.state, values)
                reach("telling")

    def show(
        self, attach: Sequence[tuple[int, str, str]], detach: Sequence[tuple[int, str]]
    ) -> None:
        """Nothing: a trial that has ended cannot be changed."""
