"""The trials of a round: those that wait, else new ones; for a study's second round with its neighbour's best setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna.trial import TrialState

from studies.database import rounds, trials
from studies.database.connection import Storage
from studies.database.fences import still_there
from studies.database.rounds import Asked
from studies.database.studies import Stored
from studies.database.trials import Proposal, Trial
from studies.grid import Spec, shallower
from studies.search.best_weights import best_first
from studies.search.space import distributions, propose, unfilled
from studies.workspace import Workspace


class Asking:
    """Finds out what is asked of studies.

    Parameters
    ----------
    workspace
        The experiment.
    storage
        Its database.
    stored
        All studies in it.
    target
        How many finished trials a study is to have.
    """

    def __init__(
        self,
        workspace: Workspace,
        storage: Storage,
        stored: Mapping[str, Stored],
        target: Callable[[Spec], int],
    ) -> None:
        self._workspace = workspace
        self._storage = storage
        self._stored = stored
        self._target = target

    def ask(
        self, specs: Mapping[str, Spec], history: Mapping[str, list[Trial]]
    ) -> dict[str, list[Trial]]:
        """Trials of a round of these studies, all RUNNING; studies that have all of theirs are left out.

        Parameters
        ----------
        history
            All trials of each study; none is RUNNING.
        """
        round_size = self._workspace.experiment.search.parallel_trials
        wanted: dict[str, Asked] = {}
        for name, spec in specs.items():
            mine = history[name]
            finished = sum(t.state in trials.FINISHED for t in mine)
            missing = self._target(spec) - finished
            count = missing if spec.closed_form else min(round_size, missing)
            if count <= 0:
                continue
            waiting = [t for t in mine if t.state == TrialState.WAITING][:count]
            new = [] if waiting else self._propose(spec, mine, count)
            wanted[name] = Asked(self._stored[name], waiting, new, distributions(spec.space))
        made = rounds.ask(self._storage, list(wanted.values())) if wanted else []
        return dict(zip(wanted, made, strict=True))

    def _propose(self, spec: Spec, mine: Sequence[Trial], count: int) -> list[Proposal]:
        if spec.closed_form:
            return unfilled(spec.space, mine)
        search = self._workspace.experiment.search
        warm = None
        if search.warm_start and len(mine) == search.parallel_trials:
            warm = self._neighbour_best(spec, search.parallel_trials)
        return propose(
            mine,
            count,
            spec.space,
            kind=search.sampler,
            seed=search.seed,
            study=spec.name,
            warm_start=warm,
        )

    def awaits(self, spec: Spec, finished: int) -> list[tuple[str, int]]:
        """Studies whose trials the next round of a study looks at, and how many finished ones of each it needs.

        Parameters
        ----------
        finished
            Finished trials of the study.
        """
        search = self._workspace.experiment.search
        if spec.closed_form or not search.warm_start or finished != search.parallel_trials:
            return []
        neighbour = shallower(spec, self._workspace.grid)
        return [] if neighbour is None else [(neighbour.name, search.parallel_trials)]

    def _neighbour_best(self, spec: Spec, size: int) -> tuple[dict[str, float], str] | None:
        """Best parameters of the shallower neighbour's first round, if that is finished."""
        neighbour = shallower(spec, self._workspace.grid)
        if neighbour is None or neighbour.name not in self._stored:
            return None
        study = self._stored[neighbour.name]
        loaded = trials.load(self._storage, [study.study_id], curves=False)[study.study_id]
        if not still_there(self._storage, study):
            return None
        first = [t for t in loaded if t.number < size]
        if len(first) < size or any(t.state not in trials.FINISHED for t in first):
            return None
        values = {
            t.number: t.value
            for t in first
            if t.state == TrialState.COMPLETE and t.value is not None
        }
        if not values:
            return None
        best = best_first(values)[0]
        return next(t.params for t in first if t.number == best), neighbour.name
