"""The trials of a round: those that wait, else new ones, the first of which may take settings that are good elsewhere."""

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
from studies.search.donors import MOST, Donors, Gift, best_trial
from studies.search.portfolio import portfolio
from studies.search.space import distributions, propose, unfilled
from studies.workspace import Workspace

KNOWN = "known to be good elsewhere"
"""Where settings of the portfolio are from."""


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
    selected
        The studies that are worked on.
    """

    def __init__(
        self,
        workspace: Workspace,
        storage: Storage,
        stored: Mapping[str, Stored],
        target: Callable[[Spec], int],
        selected: Sequence[Spec],
    ) -> None:
        self._workspace = workspace
        self._storage = storage
        self._stored = stored
        self._target = target
        search = workspace.experiment.search
        self.donors: Donors | None = None
        if search.warm_start == "finished":
            created = [spec for spec in workspace.grid if spec.name in stored]
            self.donors = Donors(created, selected, search.parallel_trials)

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
        gifts = self._gifts([s for name, s in specs.items() if len(history[name]) < MOST])
        wanted: dict[str, Asked] = {}
        for name, spec in specs.items():
            mine = history[name]
            finished = sum(t.state in trials.FINISHED for t in mine)
            missing = self._target(spec) - finished
            count = missing if spec.closed_form else min(round_size, missing)
            if count <= 0:
                continue
            waiting = [t for t in mine if t.state == TrialState.WAITING][:count]
            new = [] if waiting else self._propose(spec, mine, count, gifts)
            wanted[name] = Asked(self._stored[name], waiting, new, distributions(spec.space))
        made = rounds.ask(self._storage, list(wanted.values())) if wanted else []
        return dict(zip(wanted, made, strict=True))

    def _propose(
        self, spec: Spec, mine: Sequence[Trial], count: int, gifts: Mapping[str, list[Gift]]
    ) -> list[Proposal]:
        if spec.closed_form:
            return unfilled(spec.space, mine)
        search = self._workspace.experiment.search
        given = gifts.get(spec.name, [])[len(mine) :]
        if search.warm_start == "neighbour" and len(mine) == search.parallel_trials:
            given = self._neighbour_best(spec, search.parallel_trials)
        return propose(
            mine,
            count,
            spec.space,
            kind=search.sampler,
            seed=search.seed,
            study=spec.name,
            given=given,
            by=search.proposals,
        )

    def after(self, spec: Spec, finished: int) -> list[tuple[str, int]]:
        """As :meth:`awaits`, of what is waited for by one process too."""
        return [] if self.donors is None else self.donors.awaits(spec, finished)

    def awaits(self, spec: Spec, finished: int) -> list[tuple[str, int]]:
        """Studies whose trials the next round of a study looks at, and how many finished ones of each it needs.

        Parameters
        ----------
        finished
            Finished trials of the study.
        """
        search = self._workspace.experiment.search
        if search.warm_start != "neighbour":
            return self.after(spec, finished)
        if spec.closed_form or finished != search.parallel_trials:
            return []
        neighbour = shallower(spec, self._workspace.grid)
        return [] if neighbour is None else [(neighbour.name, search.parallel_trials)]

    def _gifts(self, specs: Sequence[Spec]) -> dict[str, list[Gift]]:
        """What studies are given by their donors, and settings known to be good where these are few."""
        if self.donors is None:
            return {}
        searched = [spec for spec in specs if not spec.closed_form]
        names = {donor.name for spec in searched for donor in self.donors.of(spec)}
        donors = {name: self._stored[name] for name in names}
        loaded = trials.load(self._storage, [s.study_id for s in donors.values()], curves=False)
        known = {
            name: loaded[study.study_id]
            for name, study in donors.items()
            if still_there(self._storage, study)
        }
        return {spec.name: self._given(spec, known) for spec in searched}

    def _given(self, spec: Spec, known: Mapping[str, list[Trial]]) -> list[Gift]:
        assert self.donors is not None
        out = self.donors.gifts(spec, known)
        space, steps = distributions(spec.space), self._workspace.experiment.training.steps
        for settings in portfolio(spec.key.readout, spec.space, steps):
            mine = {name: value for name, value in settings.items() if name in space}
            if mine not in [params for params, _ in out]:
                out.append((mine, KNOWN))
        return out[:MOST]

    def _neighbour_best(self, spec: Spec, size: int) -> list[Gift]:
        """Best parameters of the shallower neighbour's first round, if that is finished."""
        neighbour = shallower(spec, self._workspace.grid)
        if neighbour is None or neighbour.name not in self._stored:
            return []
        study = self._stored[neighbour.name]
        loaded = trials.load(self._storage, [study.study_id], curves=False)[study.study_id]
        if not still_there(self._storage, study):
            return []
        first = [t for t in loaded if t.number < size]
        if len(first) < size or any(t.state not in trials.FINISHED for t in first):
            return []
        best = best_trial(first)
        return [] if best is None else [(best.params, f"best of {neighbour.name}")]
