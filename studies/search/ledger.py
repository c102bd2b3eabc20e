"""The search's books: what the studies have and lack, and all that a round changes in the database, one transaction each.

Whoever trains a round begins it and concludes it here, in whatever process it is trained.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from optuna.trial import TrialState

from studies.dashboard.pictures import make_pictures
from studies.database import rounds, trials
from studies.database.fences import StudyGone, still_there
from studies.database.ghosts import left_out
from studies.database.killpoints import reach
from studies.database.rounds import Told
from studies.database.stores import Stores
from studies.database.studies import Stored, require, stored_studies
from studies.database.summaries import summaries
from studies.database.trials import Outcome, Trial
from studies.database.weights import Swap
from studies.fingerprint import refuse
from studies.grid import Spec
from studies.search import best_weights
from studies.search.best_weights import Fitted
from studies.search.listener import Listener
from studies.search.proposals import Asking
from studies.search.queue import Standing, Work
from studies.search.round import Reports
from studies.search.settled import Settling
from studies.search.training import Ended
from studies.workspace import Workspace
from tuner.errors import TunerError

Written = TypeVar("Written")

ATTEMPTS = 3
"""Times that a trial may raise with the same parameters."""

CLOSED_FORMS_DONE = (
    "all closed forms are fitted: 'tuner export heatmap -o OUT' shows every layer now"
)

WAITING = "all that is left is being worked on by others; waiting"


@dataclass
class Done:
    """What a search did.

    Attributes
    ----------
    trials
        Trials that this process finished.
    pruned
        How many of them the median rule stopped.
    set_aside
        Study to why it was set aside.
    gone
        Studies that were deleted or made anew by somebody else, and were left.
    settled
        How many have fewer trials than were asked for, as more are expected to gain nothing.
    complete
        Whether every other selected study has its trials now.
    """

    trials: int = 0
    pruned: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    settled: int = 0
    complete: bool = False


@dataclass(frozen=True)
class Begun:
    """A round whose trials are RUNNING.

    Attributes
    ----------
    specs
        Its studies by name.
    asked
        The trials of each.
    history
        All trials of each before the round.
    """

    specs: dict[str, Spec]
    asked: dict[str, list[Trial]]
    history: dict[str, list[Trial]]


class Ledger:
    """What is known of the selected studies, and every change to them.

    Parameters
    ----------
    workspace
        The experiment.
    stores
        Where results are kept.
    specs
        The selected studies, in the grid's order.
    n_trials
        Finished trials that each is brought to.
    timeout
        Seconds after which no new round is begun.
    budget
        Finished trials over all selected studies after which no new round is begun; those of closed forms do not count.
    until_settled
        Whether a study has enough trials once it is settled, see :mod:`studies.search.settled`.
    listener
        Whom it tells how far the studies are, and what is out of the ordinary; nobody where not given.

    Raises
    ------
    InputError
        If a study was not created, or was created with other settings.
    """

    def __init__(
        self,
        workspace: Workspace,
        stores: Stores,
        specs: Sequence[Spec],
        *,
        n_trials: int,
        timeout: float | None = None,
        budget: int | None = None,
        until_settled: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.workspace = workspace
        self.stores = stores
        self.storage = storage = stores.storage
        self.n_trials = n_trials
        self.budget = budget
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.listener = listener or Listener()
        self.done = Done()
        self.stored = stored_studies(storage)
        self.gone: set[str] = set()
        self.specs = self._without_ghosts(specs)
        names = [spec.name for spec in self.specs]
        require(self.stored, names, workspace.experiment.file)
        for spec in self.specs:
            stored = self.stored[spec.name]
            refuse(
                workspace.experiment.file,
                spec.name,
                stored.fingerprint,
                workspace.fingerprint(spec),
            )
        self.asking = Asking(workspace, storage, self.stored, self.target, self.specs)
        self._settling: Settling | None = None
        if until_settled:
            size = workspace.experiment.search.parallel_trials
            donors = self.asking.donors
            self._settling = Settling(storage, self.stored, self.specs, donors, size)
        self._in_flight: dict[int, str] = {}
        self._set_aside = {
            name: stored.set_aside
            for name, stored in self.stored.items()
            if stored.set_aside is not None
        }

    def _without_ghosts(self, specs: Sequence[Spec]) -> list[Spec]:
        """Studies without those that were deleted through optuna's own tools, of which it says so."""
        missing = [spec.name for spec in specs if spec.name not in self.stored]
        gone, line = left_out(self.storage, missing)
        if line is not None:
            self.listener.say(line)
        self.done.gone += sorted(gone)
        return [spec for spec in specs if spec.name not in gone]

    # -- how far the studies are --------------------------------------------------------------------

    def target(self, spec: Spec) -> int:
        """Finished trials that a study is brought to."""
        return spec.target(self.n_trials)

    def standings(self) -> dict[str, Standing]:
        """How far each selected study is, as the database says now."""
        here = [spec for spec in self.specs if spec.name not in self.gone]
        stored = [self.stored[spec.name] for spec in here]
        gone = {name: Standing(finished=0, target=0, closed=True) for name in self.gone}
        found = gone | {
            spec.name: Standing(
                finished=summary.finished,
                target=self.target(spec),
                best=None if summary.best is None else summary.best.value,
                closed=spec.name in self._set_aside,
            )
            for spec, summary in zip(here, summaries(self.storage, stored), strict=True)
        }
        return found if self._settling is None else self._settling.applied(found)

    def refreshed(self, was: Mapping[str, Standing]) -> dict[str, Standing]:
        """How far the studies are after a round; says how many trials there are, and when the closed forms are done."""
        standings = self.standings()
        self.listener.told(totals(standings)[0])
        if self._closed_forms_open(was) and not self._closed_forms_open(standings):
            self.listener.say(CLOSED_FORMS_DONE)
        return standings

    def _closed_forms_open(self, standings: Mapping[str, Standing]) -> bool:
        return any(standings[spec.name].open for spec in self.specs if spec.closed_form)

    def late(self) -> bool:
        """Whether the time given is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def spent(self, standings: Mapping[str, Standing]) -> bool:
        """Whether the budget is; finished trials of closed forms do not count."""
        if self.budget is None:
            return False
        searched = {s.name: standings[s.name] for s in self.specs if not s.closed_form}
        return totals(searched)[0] >= self.budget

    def over(self, standings: Mapping[str, Standing]) -> bool:
        """Whether no round is begun any more, and says why."""
        if self.late():
            self.listener.say("the time given is over")
            return True
        if self.spent(standings):
            self.listener.say(f"the budget of {self.budget} trials is spent")
            return True
        return False

    def draw(self, standings: Mapping[str, Standing]) -> None:
        """Pictures for the dashboard of the studies that have their trials."""
        done = [s for s in self.specs if not standings[s.name].open and s.name not in self.gone]
        make_pictures(self.workspace, self.stores, done, self.stored)

    def conclude(self, standings: Mapping[str, Standing]) -> Done:
        """Say what was done, at the end."""
        self.done.settled = sum(
            not standings[spec.name].closed and standings[spec.name].target < self.target(spec)
            for spec in self.specs
        )
        self.done.complete = not any(one.open for one in standings.values())
        selected = {spec.name for spec in self.specs}
        self.done.set_aside = {n: m for n, m in self._set_aside.items() if n in selected}
        return self.done

    # -- beginning a round ----------------------------------------------------------------------------

    def recover(self, cohort: tuple[str, str, str]) -> None:
        """Put orphans of a cohort back; its claim is held, and no round of it runs."""
        everyone = [name for name, study in self.stored.items() if study.cohort == cohort]
        orphans = self._write(
            everyone, lambda some: rounds.requeue(self.storage, some, "recovering")
        )
        if orphans:
            reach("recovered")
            self.listener.say(
                f"{'/'.join(cohort)}: {len(orphans)} trials were left behind; they run again"
            )

    def begin(self, work: Work) -> Begun | None:
        """Bring a round's trials to RUNNING; None where none is missing any more."""
        specs = {spec.name: spec for spec in work.specs if spec.name not in self.gone}
        ids = {name: self.stored[name].study_id for name in specs}
        loaded = trials.load(self.storage, list(ids.values()))
        history = {name: loaded[study_id] for name, study_id in ids.items()}
        asked = self.asking.ask(specs, history)
        if not asked:
            return None
        reach("asked")
        self._in_flight |= {t.trial_id: name for name, mine in asked.items() for t in mine}
        return Begun({name: specs[name] for name in asked}, asked, history)

    def put_back(self, names: Iterable[str]) -> None:
        """Have trials in flight wait again; where it is the database that fails, they are left as orphans."""
        names = list(names)
        self._in_flight = {i: name for i, name in self._in_flight.items() if name not in names}
        with contextlib.suppress(TunerError):
            self._write(names, lambda some: rounds.requeue(self.storage, some, "putting back"))

    def _write(
        self, names: Iterable[str], write: Callable[[list[Stored]], Written]
    ) -> Written | None:
        """Write to studies; what is gone is left, and the others are written all the same. None where none is left."""
        while left := [n for n in names if n not in self.gone]:
            try:
                return write([self.stored[name] for name in left])
            except StudyGone as gone:
                self.leave(gone)
        return None

    def leave(self, gone: StudyGone) -> None:
        """Have nothing more to do with studies that are no longer the ones that were begun with."""
        new = [name for name in gone.names if name not in self.gone]
        self.gone.update(new)
        selected = {spec.name for spec in self.specs}.intersection(new)
        if selected:
            self.done.gone += sorted(selected)
            self.listener.say(str(StudyGone(sorted(selected))))

    # -- while it runs, and at its end ------------------------------------------------------------------

    def report(self, reports: Reports) -> None:
        """Write reports of rounds that run; raises StudyGone where all their studies are gone."""
        mine: dict[str, Reports] = {}
        for row in reports:
            if (name := self._in_flight.get(row[0])) is not None:
                mine.setdefault(name, []).append(row)
        if not mine:
            return
        self._write(
            mine, lambda some: rounds.report(self.storage, [(s, mine[s.name]) for s in some])
        )
        if set(mine) <= self.gone:
            raise StudyGone(mine)

    def fail(self, name: str, failed: Sequence[Trial], message: str) -> None:
        """Write that a study's trials failed, and set it aside."""
        ended = [Outcome(t.trial_id, TrialState.FAIL, None, {}, {"error": message}) for t in failed]

        def fail(some: list[Stored]) -> bool:
            rounds.fail(self.storage, Told(some[0], ended), message)
            return True

        if self._write([name], fail):
            self._set_aside[name] = message
            self.listener.say(f"{name}: set aside after {ATTEMPTS} attempts: {message}")
        self._landed(ended)

    def tell(self, results: dict[str, Ended], history: dict[str, list[Trial]]) -> None:
        """Write the files of a round, then everything else in one transaction."""
        told: dict[str, Told] = {}
        for name, (outcomes, fitted) in results.items():
            swap = self._swap(name, history[name], fitted)
            if swap is not None:
                told[name] = Told(self.stored[name], outcomes, swap)

        def tell(some: list[Stored]) -> list[Told]:
            mine = [told[study.name] for study in some]
            rounds.tell(self.storage, mine)
            return mine

        reach("files written")
        written = self._write(told, tell) or []
        reach("told")
        for one in written:
            one.swap.finish(self.stores.artifacts)
            self.done.trials += len(one.outcomes)
            self.done.pruned += sum(o.state == TrialState.PRUNED for o in one.outcomes)
        reach("files deleted")
        for outcomes, _ in results.values():
            self._landed(outcomes)
        self.storage.settle()

    def _landed(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._in_flight.pop(outcome.trial_id, None)

    def _swap(self, name: str, history: list[Trial], fitted: Sequence[Fitted]) -> Swap | None:
        """Write a study's files; None where the study is gone: what the database says of its number is another's then."""
        # A closed form has weights of every unit's own setting, and none of any one trial.
        closed = {spec.name for spec in self.specs if spec.closed_form}
        study = self.stored[name]
        if not still_there(self.storage, study):
            self.leave(StudyGone([name]))
            return None
        try:
            return best_weights.prepare(
                self.storage,
                self.stores.artifacts,
                study,
                [t for t in history if t.state in trials.FINISHED],
                fitted,
                0 if name in closed else self.workspace.experiment.search.keep,
            )
        except Exception:
            if still_there(self.storage, study):
                raise
            self.leave(StudyGone([name]))
            return None


def totals(standings: Mapping[str, Standing]) -> tuple[int, int]:
    """Finished trials of studies, as far as they are wanted, and how many are wanted."""
    return (
        sum(min(one.finished, one.target) for one in standings.values()),
        sum(one.target for one in standings.values()),
    )


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def blameless(error: BaseException) -> bool:
    """Whether an error is the machine's, so that the trials that met it are not to blame."""
    lost = "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"
    return isinstance(error, MemoryError | OSError) or lost
