"""The search: brings every selected study to its number of trials, round by round, whoever else does the same.

A round is claimed, its orphans are put back, its trials are asked in one transaction, trained, and told in one transaction.
Killed anywhere between, the next to come finds RUNNING trials that nobody holds, and runs them again under their own
numbers with their own parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from optuna.trial import TrialState

from studies.dashboard.pictures import make_pictures
from studies.database import rounds, trials
from studies.database.killpoints import reach
from studies.database.stores import Stores
from studies.database.studies import Stored, require, set_aside, stored_studies
from studies.database.summaries import summaries
from studies.database.trials import Outcome, Trial
from studies.fingerprint import refuse
from studies.grid import Spec, cohorts
from studies.search import best_weights
from studies.search.closed_form import ClosedForm
from studies.search.listener import Listener
from studies.search.proposals import Asking
from studies.search.queue import Standing, Work, next_work
from studies.search.training import Ended, Training
from studies.workspace import Workspace
from tuner.errors import TunerError

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
    complete
        Whether every selected study has its trials now.
    """

    trials: int = 0
    pruned: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
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
        self.specs = list(specs)
        self.n_trials = n_trials
        self.order = order
        self.timeout = timeout
        self.budget = budget
        self.listener = listener = listener or Listener()
        self.done = Done()
        self._everything = stored_studies(storage)
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
        self._training = Training(
            workspace, self._everything, listener, partial(rounds.report, storage)
        )
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._set_aside = {
            name: stored.set_aside
            for name, stored in self._everything.items()
            if stored.set_aside is not None
        }

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
        done = [spec for spec in self.specs if not progress[spec.name].open]
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
        stored = [self._everything[spec.name] for spec in self.specs]
        return {
            spec.name: Standing(
                finished=summary.finished,
                target=self._target(spec),
                best=None if summary.best is None else summary.best.value,
                closed=spec.name in self._set_aside,
            )
            for spec, summary in zip(self.specs, summaries(self.storage, stored), strict=True)
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
        stored = [self._everything[name] for name in specs]
        history = self._recover(work.cohort, stored)
        try:
            asked = self._asking.ask(specs, history)
            if asked:
                reach("asked")
                self._train_and_tell({n: specs[n] for n in asked}, asked, history)
        except BaseException:
            # An interrupt or a failure: what was in flight goes on at the next start, as an orphan would.
            self._put_back([study.study_id for study in stored])
            raise

    def _put_back(self, study_ids: Sequence[int]) -> None:
        try:
            rounds.requeue(self.storage, study_ids, "putting back")
        except TunerError:
            # The database is what failed; whoever takes the claim next finds the orphans.
            return

    def _recover(
        self, cohort: tuple[str, str, str], stored: Sequence[Stored]
    ) -> dict[str, list[Trial]]:
        """Put orphans of the whole cohort back, and read the studies' trials."""
        everyone = [s.study_id for s in self._everything.values() if s.cohort == cohort]
        orphans = rounds.requeue(self.storage, everyone, "recovering")
        loaded = trials.load(self.storage, [s.study_id for s in stored])
        if orphans:
            reach("recovered")
            self.listener.say(
                f"{'/'.join(cohort)}: {len(orphans)} trials were left behind; they run again"
            )
        return {s.name: loaded[s.study_id] for s in stored}

    def _train_and_tell(
        self,
        specs: dict[str, Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> None:
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
        rounds.tell(
            self.storage,
            [Outcome(t.trial_id, TrialState.FAIL, None, {}, {"error": message}) for t in failed],
        )
        set_aside(self.storage, self._everything[name].study_id, message)
        self._set_aside[name] = message
        self.listener.say(f"{name}: set aside after {ATTEMPTS} attempts: {message}")

    # -- telling ------------------------------------------------------------------------------------

    def _tell(
        self,
        results: dict[str, Ended],
        history: dict[str, list[Trial]],
    ) -> None:
        """Write the files of a round, then everything else in one transaction."""
        # A closed form has weights of every unit's own setting, and none of any one trial.
        closed = {spec.name for spec in self.specs if spec.closed_form}
        swaps = [
            best_weights.prepare(
                self.storage,
                self.stores.artifacts,
                self._everything[name],
                [t for t in history[name] if t.state in trials.FINISHED],
                fitted,
                0 if name in closed else self.workspace.experiment.search.keep,
            )
            for name, (_, fitted) in results.items()
        ]
        outcomes = [o for mine, _ in results.values() for o in mine]
        reach("files written")
        rounds.tell(self.storage, outcomes, swaps)
        reach("told")
        for swap in swaps:
            swap.finish(self.stores.artifacts)
        reach("files deleted")
        self.storage.settle()
        self.done.trials += len(outcomes)
        self.done.pruned += sum(o.state == TrialState.PRUNED for o in outcomes)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    return "CUDA error" in text or type(error).__name__ == "AcceleratorError"
