"""The search: brings every selected study to its number of trials, round by round, whoever else does the same.

A round is claimed, its orphans are put back, its trials are asked in one transaction, trained, and told in one transaction.
Killed anywhere between, the next to come finds RUNNING trials that nobody holds, and runs them again under their own
numbers with their own parameters.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from studies.database.tokens import ClaimLost
from studies.database.trials import Outcome, Trial
from studies.database.weights import Swap
from studies.fingerprint import refuse
from studies.grid import Spec, cohorts
from studies.search import best_weights
from studies.search.best_weights import Fitted
from studies.search.closed_form import ClosedForm
from studies.search.listener import Listener
from studies.search.proposals import Asking
from studies.search.queue import Standing, Work, next_work
from studies.search.round import Reports
from studies.search.training import Ended, Training
from studies.workspace import Workspace
from tuner.errors import TunerError

Written = TypeVar("Written")

ATTEMPTS = 3
"""Times that a trial may raise with the same parameters."""

POLL_SECONDS = 1.0
"""How often it is looked whether what others hold has become free."""


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
    complete
        Whether every other selected study has its trials now.
    """

    trials: int = 0
    pruned: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    complete: bool = False


class Search:
    """Works on the selected studies.

    Parameters
    ----------
    workspace
        The experiment.
    stores
        Where results are kept, and who works on what.
    specs
        The selected studies, in the grid's order.
    n_trials
        Finished trials that each is brought to.
    order
        See :mod:`studies.search.queue`.
    timeout
        Seconds after which no new round is begun.
    budget
        Finished trials over all selected studies after which no new round is begun; those of closed forms do not count.
    listener
        Whom it tells how it goes; nobody where not given.

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
        order: str = "fewest",
        timeout: float | None = None,
        budget: int | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.workspace = workspace
        self.stores = stores
        self.storage = storage = stores.storage
        self.n_trials = n_trials
        self.order = order
        self.timeout = timeout
        self.budget = budget
        self.listener = listener = listener or Listener()
        self.done = Done()
        self._everything = stored_studies(storage)
        self._gone: set[str] = set()
        self._in_flight: dict[int, str] = {}
        self.specs = self._without_ghosts(specs)
        names = [spec.name for spec in self.specs]
        require(self._everything, names, workspace.experiment.file)
        for spec in self.specs:
            stored = self._everything[spec.name]
            refuse(
                workspace.experiment.file,
                spec.name,
                stored.fingerprint,
                workspace.fingerprint(spec),
            )
        self._asking = Asking(workspace, storage, self._everything, self._target)
        self._closed_form = ClosedForm(workspace, self._everything, listener)
        self._training = Training(workspace, self._everything, listener, self._report)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._set_aside = {
            name: stored.set_aside
            for name, stored in self._everything.items()
            if stored.set_aside is not None
        }

    def _without_ghosts(self, specs: Sequence[Spec]) -> list[Spec]:
        """Studies without those that were deleted through optuna's own tools, of which it says so."""
        missing = [spec.name for spec in specs if spec.name not in self._everything]
        gone, line = left_out(self.storage, missing)
        if line is not None:
            self.listener.say(line)
        self.done.gone += sorted(gone)
        return [spec for spec in specs if spec.name not in gone]

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> Done:
        """Work until every selected study has its trials, or time or budget is spent."""
        progress = self._progress()
        finished, target = self._totals(progress)
        groups = self._groups()
        self.listener.started(finished, target)
        waiting = False
        while True:
            work = next_work(
                groups,
                progress,
                self.order,
                specs=self.specs,
                round_size=self.workspace.experiment.search.parallel_trials,
            )
            if not work or self._spent(progress):
                break
            if self._work_on_first_free(work):
                waiting = False
            else:
                if not waiting:
                    self.listener.say("all that is left is being worked on by others; waiting")
                waiting = True
                time.sleep(POLL_SECONDS)
            was, progress = progress, self._progress()
            self.listener.told(self._totals(progress)[0])
            if self._closed_forms_open(was) and not self._closed_forms_open(progress):
                self.listener.say(
                    "all closed forms are fitted: 'tuner export heatmap -o OUT' shows every layer now"
                )
        self.done.complete = not any(p.open for p in progress.values())
        self._draw(progress)
        selected = {spec.name for spec in self.specs}
        self.done.set_aside = {n: m for n, m in self._set_aside.items() if n in selected}
        return self.done

    def _closed_forms_open(self, progress: dict[str, Standing]) -> bool:
        return any(progress[spec.name].open for spec in self.specs if spec.closed_form)

    def _draw(self, progress: dict[str, Standing]) -> None:
        """Pictures for the dashboard of the studies that have their trials."""
        done = [
            spec
            for spec in self.specs
            if not progress[spec.name].open and spec.name not in self._gone
        ]
        make_pictures(self.workspace, self.stores, done, self._everything)

    def _work_on_first_free(self, work: Sequence[Work]) -> bool:
        for item in work:
            with self.stores.claims.claim(item.specs[0].claim) as mine:
                if mine:
                    self._round(item)
                    return True
        return False

    def _spent(self, progress: dict[str, Standing]) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.listener.say("the time given is over")
            return True
        searched = {s.name: progress[s.name] for s in self.specs if not s.closed_form}
        if self.budget is not None and self._totals(searched)[0] >= self.budget:
            self.listener.say(f"the budget of {self.budget} trials is spent")
            return True
        return False

    def _target(self, spec: Spec) -> int:
        return spec.target(self.n_trials)

    def _progress(self) -> dict[str, Standing]:
        here = [spec for spec in self.specs if spec.name not in self._gone]
        stored = [self._everything[spec.name] for spec in here]
        gone = {name: Standing(finished=0, target=0, closed=True) for name in self._gone}
        return gone | {
            spec.name: Standing(
                finished=summary.finished,
                target=self._target(spec),
                best=None if summary.best is None else summary.best.value,
                closed=spec.name in self._set_aside,
            )
            for spec, summary in zip(here, summaries(self.storage, stored), strict=True)
        }

    @staticmethod
    def _totals(progress: dict[str, Standing]) -> tuple[int, int]:
        return (
            sum(min(p.finished, p.target) for p in progress.values()),
            sum(p.target for p in progress.values()),
        )

    # -- what makes a round together ---------------------------------------------------------------

    def _groups(self) -> dict[tuple[str, str, str], list[list[Spec]]]:
        """Selected studies by cohort and group; the groups are those of the whole cohort, selected or not."""
        selected = {spec.name for spec in self.specs}
        created = [spec for spec in self.workspace.grid if spec.name in self._everything]
        wanted = {spec.cohort for spec in self.specs}
        out = {}
        for cohort, members in cohorts(created).items():
            if cohort in wanted:
                if members[0].closed_form:
                    parts = self._closed_form.cut(members)
                else:
                    parts = [part for part, _ in self._training.cut(members)]
                out[cohort] = [[s for s in part if s.name in selected] for part in parts]
        return out

    # -- one round ------------------------------------------------------------------------------

    def _round(self, work: Work) -> None:
        """Ask, train and tell a round of these studies; the claim is held."""
        specs = {spec.name: spec for spec in work.specs}
        try:
            history = self._recover(work.cohort, specs)
            specs = {name: specs[name] for name in history}
            asked = self._asking.ask(specs, history)
            if asked:
                reach("asked")
                self._train_and_tell({n: specs[n] for n in asked}, asked, history)
        except ClaimLost as lost:
            # Whoever has it now has put back what was in flight.
            self.listener.say(str(lost))
        except StudyGone as gone:
            self._leave(gone)
            self._put_back(specs)
        except BaseException:
            # An interrupt or a failure: what was in flight goes on at the next start, as an orphan would.
            self._put_back(specs)
            raise

    def _put_back(self, names: Iterable[str]) -> None:
        # Where it is the database that failed, whoever takes the claim next finds the orphans.
        with contextlib.suppress(TunerError):
            self._write(names, lambda some: rounds.requeue(self.storage, some, "putting back"))

    def _write(
        self, names: Iterable[str], write: Callable[[list[Stored]], Written]
    ) -> Written | None:
        """Write to studies; what is gone is left, and the others are written all the same. None where none is left."""
        while left := [n for n in names if n not in self._gone]:
            try:
                return write([self._everything[name] for name in left])
            except StudyGone as gone:
                self._leave(gone)
        return None

    def _leave(self, gone: StudyGone) -> None:
        """Have nothing more to do with studies that are no longer the ones that were begun with."""
        new = [name for name in gone.names if name not in self._gone]
        self._gone.update(new)
        selected = {spec.name for spec in self.specs}.intersection(new)
        if selected:
            self.done.gone += sorted(selected)
            self.listener.say(str(StudyGone(sorted(selected))))

    def _recover(
        self, cohort: tuple[str, str, str], names: Iterable[str]
    ) -> dict[str, list[Trial]]:
        """Put orphans of the whole cohort back, and read the studies' trials."""
        everyone = [name for name, study in self._everything.items() if study.cohort == cohort]
        orphans = self._write(
            everyone, lambda some: rounds.requeue(self.storage, some, "recovering")
        )
        here = {n: self._everything[n].study_id for n in names if n not in self._gone}
        loaded = trials.load(self.storage, list(here.values()))
        if orphans:
            reach("recovered")
            self.listener.say(
                f"{'/'.join(cohort)}: {len(orphans)} trials were left behind; they run again"
            )
        return {name: loaded[study_id] for name, study_id in here.items()}

    def _report(self, reports: Reports) -> None:
        """Write reports of the round that runs; one whose studies are all gone is not trained any further."""
        mine: dict[str, Reports] = {}
        for row in reports:
            mine.setdefault(self._in_flight[row[0]], []).append(row)
        self._write(
            mine, lambda some: rounds.report(self.storage, [(s, mine[s.name]) for s in some])
        )
        if set(mine) <= self._gone:
            raise StudyGone(mine)

    def _train_and_tell(
        self,
        specs: dict[str, Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> None:
        self._in_flight = {t.trial_id: name for name, mine in asked.items() for t in mine}
        try:
            results = dict(self._run(list(specs.values()), asked, history))
        except TunerError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError | OSError) or _device_lost(error):
                raise
            self.listener.say(f"a round failed ({_one_line(error)}); its studies run one by one")
            results = dict(self._one_by_one(specs, asked, history))
        if results:
            self._tell(results, history)

    def _run(
        self,
        specs: Sequence[Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> Iterator[tuple[str, Ended]]:
        """Fit the asked trials of studies of one cohort, by steps or in closed form."""
        if specs[0].closed_form:
            return self._closed_form.run(specs, asked)
        return self._training.run(specs, asked, history)

    def _one_by_one(
        self,
        specs: dict[str, Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> Iterator[tuple[str, Ended]]:
        """Find the study that raises; after three attempts its trials FAIL and it is set aside."""
        for name, spec in specs.items():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    yield from list(self._run([spec], asked, history))
                    break
                except TunerError:
                    raise
                except Exception as error:
                    if isinstance(error, MemoryError | OSError) or _device_lost(error):
                        raise
                    if attempt == ATTEMPTS:
                        self._fail(name, asked[name], _one_line(error))

    def _fail(self, name: str, failed: Sequence[Trial], message: str) -> None:
        ended = [Outcome(t.trial_id, TrialState.FAIL, None, {}, {"error": message}) for t in failed]

        def fail(some: list[Stored]) -> bool:
            rounds.fail(self.storage, Told(some[0], ended), message)
            return True

        if self._write([name], fail):
            self._set_aside[name] = message
            self.listener.say(f"{name}: set aside after {ATTEMPTS} attempts: {message}")

    # -- telling ------------------------------------------------------------------------------------

    def _tell(
        self,
        results: dict[str, Ended],
        history: dict[str, list[Trial]],
    ) -> None:
        """Write the files of a round, then everything else in one transaction."""
        told: dict[str, Told] = {}
        for name, (outcomes, fitted) in results.items():
            swap = self._swap(name, history[name], fitted)
            if swap is not None:
                told[name] = Told(self._everything[name], outcomes, swap)

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
        self.storage.settle()

    def _swap(self, name: str, history: list[Trial], fitted: Sequence[Fitted]) -> Swap | None:
        """Write a study's files; None where the study is gone: what the database says of its number is another's then."""
        # A closed form has weights of every unit's own setting, and none of any one trial.
        closed = {spec.name for spec in self.specs if spec.closed_form}
        study = self._everything[name]
        if not still_there(self.storage, study):
            self._leave(StudyGone([name]))
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
            self._leave(StudyGone([name]))
            return None


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    return "CUDA error" in text or type(error).__name__ == "AcceleratorError"
