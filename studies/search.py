"""The search: brings every selected study to its number of trials, round by round, whoever else does the same.

A round is claimed, its orphans are put back, its trials are asked in one transaction, trained, and told in one transaction.
Killed anywhere between, the next to come finds RUNNING trials that nobody holds, and runs them again under their own
numbers with their own parameters.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from optuna.trial import TrialState

from studies import keeping, trials
from studies.artifacts import Artifacts
from studies.claims import Claims
from studies.cohort import Member, Reports, ReportWriter, Result, Round
from studies.fingerprint import refuse
from studies.grid import Spec, cohorts, shallower
from studies.keeping import Swap
from studies.queue import Progress, Work, next_work
from studies.ranges import varies
from studies.registry import Stored, require, set_aside, stored_studies
from studies.results import summaries
from studies.space import distributions, hyperparameters, propose
from studies.storage import Storage
from studies.trials import Outcome, Trial
from studies.workspace import Workspace
from tuner.errors import TunerError

if TYPE_CHECKING:
    from tuner.fitting.plan import Group
    from tuner.fitting.trainer import Trainer

ATTEMPTS = 3
"""Times that a trial may raise with the same parameters."""

POLL_SECONDS = 1.0
"""How often it is looked whether what others hold has become free."""


class Listener(Protocol):
    """What the person at the terminal is told."""

    def started(self, finished: int, target: int) -> None:
        """Finished trials of all selected studies, and how many they are to have."""
        ...

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        """While a round runs."""
        ...

    def told(self, finished: int) -> None:
        """After a round: finished trials of all selected studies."""
        ...

    def say(self, message: str) -> None:
        """Something worth a line."""
        ...


@dataclass
class Report:
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
    storage, artifacts, claims
        Where results are kept, and who works on what.
    specs
        The selected studies, in the grid's order.
    n_trials
        Finished trials that each is brought to.
    order
        See :mod:`studies.queue`.
    timeout
        Seconds after which no new round is begun.
    budget
        Finished trials over all selected studies after which no new round is begun.

    Raises
    ------
    InputError
        If a study was not created, or was created with other settings.
    """

    def __init__(
        self,
        workspace: Workspace,
        storage: Storage,
        artifacts: Artifacts,
        claims: Claims,
        specs: Sequence[Spec],
        *,
        n_trials: int,
        order: str = "fewest",
        timeout: float | None = None,
        budget: int | None = None,
        listener: Listener,
    ) -> None:
        self.workspace = workspace
        self.storage = storage
        self.artifacts = artifacts
        self.claims = claims
        self.specs = list(specs)
        self.n_trials = n_trials
        self.order = order
        self.timeout = timeout
        self.budget = budget
        self.listener = listener
        self.report = Report()
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
        self._trainers: deque[tuple[object, Trainer]] = deque(maxlen=1)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._set_aside = {
            name: stored.set_aside
            for name, stored in self._everything.items()
            if stored.set_aside is not None
        }

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> Report:
        """Work until every selected study has its trials, or time or budget is spent."""
        progress = self._progress()
        finished, target = self._totals(progress)
        self.listener.started(finished, target)
        groups = self._groups()
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
            progress = self._progress()
            self.listener.told(self._totals(progress)[0])
        self.report.complete = not any(p.open for p in progress.values())
        selected = {spec.name for spec in self.specs}
        self.report.set_aside = {n: m for n, m in self._set_aside.items() if n in selected}
        return self.report

    def _work_on_first_free(self, work: Sequence[Work]) -> bool:
        for item in work:
            with self.claims.claim(item.claim) as mine:
                if mine:
                    self._round(item)
                    return True
        return False

    def _spent(self, progress: dict[str, Progress]) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.listener.say("the time given is over")
            return True
        if self.budget is not None and self._totals(progress)[0] >= self.budget:
            self.listener.say(f"the budget of {self.budget} trials is spent")
            return True
        return False

    def _target(self, spec: Spec) -> int:
        return self.n_trials if varies(spec.space) else min(1, self.n_trials)

    def _progress(self) -> dict[str, Progress]:
        stored = [self._everything[spec.name] for spec in self.specs]
        return {
            spec.name: Progress(
                finished=summary.finished,
                target=self._target(spec),
                best=None if summary.best is None else summary.best.value,
                closed=spec.name in self._set_aside,
            )
            for spec, summary in zip(self.specs, summaries(self.storage, stored), strict=True)
        }

    @staticmethod
    def _totals(progress: dict[str, Progress]) -> tuple[int, int]:
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
                parts = self._cut(members)
                out[cohort] = [[s for s in part if s.name in selected] for part, _ in parts]
        return out

    def _cut(self, members: Sequence[Spec], shrink: int = 1) -> list[tuple[list[Spec], Group]]:
        """Cut specs of one cohort into groups, by the plans that were fixed when they were created."""
        from tuner import readouts
        from tuner.fitting.plan import grouping

        training = self.workspace.experiment.training
        by_plan: dict[tuple[int, bool], list[Spec]] = {}
        for spec in members:
            plan = self._everything[spec.name].plan
            by_plan.setdefault((plan["memory"], plan["compiled"]), []).append(spec)
        out = []
        for (memory, compiled), some in by_plan.items():
            groups = grouping(
                [spec.units for spec in some],
                self.workspace.experiment.search.parallel_trials,
                readout=readouts.get(some[0].key.readout),
                shape=some[0].shape,
                batch_size=training.batch_size,
                steps=training.steps,
                device=self.workspace.device,
                memory=memory // shrink,
                compiled=compiled,
            )
            out += [([some[i] for i in group.studies], group) for group in groups]
        return out

    # -- one round ------------------------------------------------------------------------------

    def _round(self, work: Work) -> None:
        """Ask, train and tell a round of these studies; the claim is held."""
        specs = {spec.name: spec for spec in work.specs}
        stored = [self._everything[name] for name in specs]
        history = self._recover(work.cohort, stored)
        asked: dict[str, list[Trial]] = {}
        try:
            asked = self._ask(specs, history)
            if asked:
                self._train_and_tell({n: specs[n] for n in asked}, asked, history)
        except BaseException:
            # An interrupt or a failure: what was in flight goes on at the next start, as an orphan would.
            self._put_back([self._everything[name].study_id for name in asked])
            raise

    def _put_back(self, study_ids: Sequence[int]) -> None:
        try:
            with self.storage.begin() as connection:
                trials.requeue(connection, study_ids)
        except TunerError:
            # The database is what failed; whoever takes the claim next finds the orphans.
            return

    def _recover(
        self, cohort: tuple[str, str, str], stored: Sequence[Stored]
    ) -> dict[str, list[Trial]]:
        """Put orphans of the whole cohort back, and read the studies' trials."""
        everyone = [
            s.study_id
            for s in self._everything.values()
            if (s.key.backbone, s.key.layer, s.key.readout) == cohort
        ]
        with self.storage.begin() as connection:
            orphans = trials.requeue(connection, everyone)
            loaded = trials.load(connection, [s.study_id for s in stored])
        if orphans:
            self.listener.say(
                f"{'/'.join(cohort)}: {len(orphans)} trials were left behind; they run again"
            )
        return {s.name: loaded[s.study_id] for s in stored}

    def _ask(
        self, specs: dict[str, Spec], history: dict[str, list[Trial]]
    ) -> dict[str, list[Trial]]:
        """Trials of the round, all RUNNING: those that wait, else new ones; made in one transaction."""
        size = self.workspace.experiment.search.parallel_trials
        chosen: dict[str, list[Trial]] = {}
        new: dict[str, list[trials.Proposal]] = {}
        for name, spec in specs.items():
            mine = history[name]
            finished = sum(t.state in trials.FINISHED for t in mine)
            count = min(size, self._target(spec) - finished)
            if count <= 0:
                continue
            chosen[name] = [t for t in mine if t.state == TrialState.WAITING][:count]
            if not chosen[name]:
                new[name] = self._propose(spec, mine, count)
        with self.storage.begin() as connection:
            for name, waiting in chosen.items():
                trials.start(connection, waiting)
                if name in new:
                    study_id = self._everything[name].study_id
                    space = distributions(specs[name].space)
                    chosen[name] = trials.create(connection, study_id, new[name], space)
        return chosen

    def _propose(self, spec: Spec, mine: Sequence[Trial], count: int) -> list[trials.Proposal]:
        search = self.workspace.experiment.search
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

    def _neighbour_best(self, spec: Spec, size: int) -> tuple[dict[str, float], str] | None:
        """Best parameters of the shallower neighbour's first round, if that is finished."""
        neighbour = shallower(spec, self.workspace.grid)
        if neighbour is None or neighbour.name not in self._everything:
            return None
        study_id = self._everything[neighbour.name].study_id
        with self.storage.read() as connection:
            loaded = trials.load(connection, [study_id], curves=False)[study_id]
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
        best = keeping.best_first(values)[0]
        return next(t.params for t in first if t.number == best), neighbour.name

    def _train_and_tell(
        self,
        specs: dict[str, Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> None:
        try:
            results = dict(self._trained(list(specs.values()), asked, history))
        except TunerError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError | OSError) or _device_lost(error):
                raise
            self.listener.say(f"a round failed ({_one_line(error)}); its studies run one by one")
            results = dict(self._one_by_one(specs, asked, history))
        if results:
            self._tell(results, history)

    def _one_by_one(
        self,
        specs: dict[str, Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> Iterator[tuple[str, tuple[list[Outcome], list[keeping.Fitted]]]]:
        """Find the study that raises; after three attempts its trials FAIL and it is set aside."""
        for name, spec in specs.items():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    yield from self._trained([spec], asked, history)
                    break
                except TunerError:
                    raise
                except Exception as error:
                    if isinstance(error, MemoryError | OSError) or _device_lost(error):
                        raise
                    if attempt == ATTEMPTS:
                        self._fail(name, asked[name], _one_line(error))

    def _fail(self, name: str, failed: Sequence[Trial], message: str) -> None:
        with self.storage.begin() as connection:
            trials.tell(
                connection,
                [
                    Outcome(t.trial_id, TrialState.FAIL, None, {}, {"error": message})
                    for t in failed
                ],
            )
        set_aside(self.storage, self._everything[name].study_id, message)
        self._set_aside[name] = message
        self.listener.say(f"{name}: set aside after {ATTEMPTS} attempts: {message}")

    # -- training -------------------------------------------------------------------------------

    def _trained(
        self,
        specs: Sequence[Spec],
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> Iterator[tuple[str, tuple[list[Outcome], list[keeping.Fitted]]]]:
        """Train studies of one cohort, finer and finer when memory does not suffice."""
        shrink = 1
        done: set[str] = set()
        while True:
            try:
                for some, group in self._cut([s for s in specs if s.name not in done], shrink):
                    result = self._train(some, group, asked, history)
                    for spec, outcomes, fitted in zip(
                        some, result.outcomes, result.fitted, strict=True
                    ):
                        done.add(spec.name)
                        yield spec.name, (outcomes, fitted)
                return
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or shrink >= 64:
                    raise
                self._trainers.clear()
                shrink *= 2
                self.listener.say(
                    f"out of memory; going on with 1/{shrink} of the planned memory at a time"
                )

    def _train(
        self,
        specs: Sequence[Spec],
        group: Group,
        asked: dict[str, list[Trial]],
        history: dict[str, list[Trial]],
    ) -> Result:
        from tuner.fitting.schedule import report_steps

        experiment = self.workspace.experiment
        members = [
            Member(
                units=spec.units,
                hyperparameters=[hyperparameters(spec.space, t.params) for t in asked[spec.name]],
                trials=asked[spec.name],
                earlier=[t for t in history[spec.name] if t.state in trials.FINISHED],
            )
            for spec in specs
        ]
        place = {study: i for i, study in enumerate(group.studies)}
        turns = [[(place[b.study], b.units) for b in turn] for turn in group.turns]
        trainer = self._trainer(specs[0])
        running = Round(
            members,
            turns,
            trainer,
            reports=report_steps(experiment.training.steps, experiment.training.report_every),
            prune=experiment.search.pruner == "median",
        )
        what = "/".join(specs[0].cohort)
        watcher = _Watcher(
            what, sum(len(m.trials) for m in members), self.listener, self._write_reports
        )
        return running.run(watcher)

    def _trainer(self, spec: Spec) -> Trainer:
        from tuner import readouts
        from tuner.fitting.trainer import Trainer

        plan = self._everything[spec.name].plan
        key = (spec.cohort, plan["compiled"], plan["memory"])
        for known, trainer in self._trainers:
            if known == key:
                return trainer
        self._trainers.clear()
        experiment, device = self.workspace.experiment, self.workspace.device
        trainer = Trainer(
            readouts.get(spec.key.readout).kernel(spec.shape, device, compiled=plan["compiled"]),
            self.workspace.store(spec.key.backbone, spec.key.layer, plan["memory"]),
            self.workspace.targets,
            loss=experiment.training.loss,
            batch_size=experiment.training.batch_size,
            seed=experiment.search.seed,
            device=device,
        )
        self._trainers.append((key, trainer))
        return trainer

    def _write_reports(self, reports: Reports) -> None:
        with self.storage.begin() as connection:
            trials.report(connection, reports)

    # -- telling ------------------------------------------------------------------------------------

    def _tell(
        self,
        results: dict[str, tuple[list[Outcome], list[keeping.Fitted]]],
        history: dict[str, list[Trial]],
    ) -> None:
        """Write the files of a round, then everything else in one transaction."""
        swaps: list[Swap] = []
        for name, (_, fitted) in results.items():
            swaps.append(
                keeping.prepare(
                    self.storage,
                    self.artifacts,
                    self._everything[name],
                    [t for t in history[name] if t.state in trials.FINISHED],
                    fitted,
                    self.workspace.experiment.search.keep,
                )
            )
        outcomes = [o for mine, _ in results.values() for o in mine]
        with self.storage.begin() as connection:
            trials.tell(connection, outcomes)
            for swap in swaps:
                swap.apply(connection)
        for swap in swaps:
            swap.finish(self.artifacts)
        self.report.trials += len(outcomes)
        self.report.pruned += sum(o.state == TrialState.PRUNED for o in outcomes)


class _Watcher:
    """Passes a round's reports on to the terminal and to the database."""

    def __init__(
        self, what: str, n: int, listener: Listener, write: Callable[[Reports], None]
    ) -> None:
        self._what = what
        self._n = n
        self._listener = listener
        self._writer = ReportWriter(write)

    def reported(self, step: int, steps: int, running: int, reports: Reports) -> None:
        self._listener.training(self._what, self._n, step, steps, running)
        self._writer.add(reports)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    return "CUDA error" in text or type(error).__name__ == "AcceleratorError"
