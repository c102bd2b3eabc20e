"""The coordinator: one process that has the database and the claims, and has the rounds trained by others.

Every cohort that nobody else works on is claimed for the whole search. A worker that is lost costs its round, which
another takes up with the same trials. Where a round is lost three times it is split into its studies, as after an error in
training; a study that is lost, or raises, three times by itself is set aside.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from studies.cluster import messages
from studies.cluster.crew import Crew
from studies.cluster.engine import Ended, Engine, Heard
from studies.cluster.homes import Homes, Layer
from studies.cluster.schedule import may_begin
from studies.cluster.tasks import DEPTH, Flight, Task
from studies.database.fences import StudyGone
from studies.grid import Spec, cohorts
from studies.search.ledger import (
    ATTEMPTS,
    WAITING,
    Done,
    Ledger,
    blameless,
    one_line,
    totals,
)
from studies.search.queue import Standing, Work
from studies.workspace import Workspace
from tuner.errors import EnvironmentFailure, TunerError

LOOK_SECONDS = 1.0
"""How often it is looked which workers live, and reports of what runs are written."""


class Coordinator:
    """Works on the selected studies by means of workers.

    Parameters
    ----------
    ledger
        The books: which studies are to have how many trials.
    engine
        The workers.
    order
        See :mod:`studies.search.queue`.
    """

    def __init__(self, ledger: Ledger, engine: Engine, *, order: str = "fewest") -> None:
        self.ledger = ledger
        self.workspace = workspace = ledger.workspace
        self.stores = ledger.stores
        self.order = order
        self.listener = ledger.listener
        self.specs = ledger.specs
        self._round_size = workspace.experiment.search.parallel_trials
        self.engine = engine
        self.crew = Crew(
            engine,
            _homes(workspace, self.specs),
            messages.pack(messages.document(workspace.experiment)),
            self._message,
        )
        self._standings: dict[str, Standing] = {}
        self._groups: dict[tuple[str, str, str], list[list[Spec]]] = {}
        self._claimed: set[tuple[str, str, str]] = set()
        self._flights: list[Flight] = []
        self._reports: list[tuple[int, int, float]] = []
        self._ready: list[Work] | None = None
        self._faults = 0

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> Done:
        """Work until every selected study has its trials, or time or budget is spent."""
        ledger = self.ledger
        self._standings = ledger.standings()
        self.listener.started(*totals(self._standings))
        with contextlib.ExitStack() as claims:
            try:
                self._claim(claims)
                self._loop(claims)
            except BaseException:
                # An interrupt or a failure: what was in flight goes on at the next start, as an orphan would.
                for flight in self._flights:
                    ledger.put_back(flight.begun.specs)
                raise
        ledger.draw(self._standings)
        return ledger.conclude(self._standings)

    def _loop(self, claims: contextlib.ExitStack) -> None:
        looked = -LOOK_SECONDS
        waiting = False
        while True:
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
            self._give_out()
            if not self._flights and not self.crew.tasks:
                if self._over():
                    return
                if not self._open_and_claimed():
                    if not waiting:
                        self.listener.say(WAITING)
                    waiting = True
                    self._claim(claims)
                    self._refresh()
            came = self.engine.hear(LOOK_SECONDS / 2)
            while came is not None:
                if isinstance(came, Heard):
                    self._hear(came)
                else:
                    self._end(came)
                came = self.engine.hear(0)

    def _over(self) -> bool:
        """Whether no round is missing, or none is begun any more."""
        return not any(one.open for one in self._standings.values()) or self.ledger.over(
            self._standings
        )

    def _open_and_claimed(self) -> bool:
        return any(
            self._standings[spec.name].open for spec in self.specs if spec.cohort in self._claimed
        )

    def _claim(self, claims: contextlib.ExitStack) -> None:
        """Claim the cohorts that nobody works on, and put back what was left behind there."""
        for cohort, members in cohorts(self.specs).items():
            if cohort not in self._claimed and any(self._standings[s.name].open for s in members):
                attempt = contextlib.ExitStack()
                if attempt.enter_context(self.stores.claims.claim(members[0].claim)):
                    claims.push(attempt.pop_all())
                    self._claimed.add(cohort)
                    self.ledger.recover(cohort)

    def _refresh(self) -> None:
        self._ready = None
        self._standings = self.ledger.refreshed(self._standings)

    def _look(self) -> None:
        """See who lives, take back what the lost had, and write what was reported."""
        for task in self.crew.look():
            self._lose(task)
        if self._reports:
            reports, self._reports = self._reports, []
            with contextlib.suppress(StudyGone):  # said already; what comes of it is not stored
                self.ledger.report(reports)

    # -- giving out ---------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Give workers that have too little to do what comes next: first those that have nothing, then one task ahead.

        What lies ready at a worker is gone on with while the round before it is stored and the next one asked.
        """
        crew = self.crew
        idle = crew.idle()
        crew.take_up(idle)
        if self.ledger.late():
            self._leave_waiting()
        elif not self._groups:
            crew.begin_with(idle, Task("groups"), self.specs[0].name)
        elif crew.ready:
            self._begin_rounds(idle, idle=True)
            for depth in range(1, DEPTH):
                self._begin_rounds(crew.with_tasks(depth), idle=False)
            crew.even_out()

    def _begin_rounds(self, free: dict[str, str], *, idle: bool) -> None:
        """Begin rounds on workers that have room, each with those whose features it has first.

        Parameters
        ----------
        free
            Name to address of the workers; those that were given something are taken out.
        idle
            Whether they have nothing to do, and may help others out.
        """
        away: list[Work] = []
        for work in list(self._may_begin()) if free else ():
            name = self.crew.taker(_layer(work), free, idle=idle)
            if name is None:
                away.append(work)
            else:
                self._begin(work, free, name)
            if not free:
                return
        for work in away:
            name = self.crew.helper(free, idle=idle)
            if name is not None:
                self._begin(work, free, name)

    def _leave_waiting(self) -> None:
        """Put back rounds that have begun in the books alone."""
        for key in self.crew.tasks.waiting():
            task = self.crew.tasks.get(key)
            if task is None or task.flight is None or task.flight.out != set(task.names):
                continue  # some of its studies are elsewhere
            self._flights.remove(task.flight)
            self.crew.withdraw(key)
            self.ledger.put_back(task.names)

    def _may_begin(self) -> list[Work]:
        """Rounds that may begin, worked out anew when something has become of one."""
        if self._ready is None:
            claimed = {c: parts for c, parts in self._groups.items() if c in self._claimed}
            self._ready = list(
                may_begin(
                    claimed,
                    self._standings,
                    self.order,
                    specs=self.specs,
                    round_size=self._round_size,
                    running=[flight.work for flight in self._flights],
                    awaits=self.ledger.asking.awaits,
                    after=self.ledger.asking.after,
                    spent=self.ledger.spent,
                )
            )
        return self._ready

    def _begin(self, work: Work, idle: dict[str, str], name: str) -> None:
        """Begin a round on a worker; before its first one of a layer the features are brought in."""
        layer, address = _layer(work), idle[name]
        if self.crew.brings(layer, address, name):
            del idle[name]
            self.crew.send(Task("extract", layer, names=(work.specs[0].name,)), address, name)
            return
        self._ready = None
        try:
            begun = self.ledger.begin(work)
        except StudyGone as gone:
            self.ledger.leave(gone)
            self._refresh()
            return
        if begun is None:
            self._refresh()
            return
        flight = Flight(work, begun, set(begun.specs))
        self._flights.append(flight)
        del idle[name]
        self.crew.send(Task("fit", layer, flight, tuple(begun.specs)), address, name)

    def _message(self, task: Task) -> bytes:
        """What a worker is told of a task."""
        if task.kind == "groups":
            wanted = {spec.cohort for spec in self.specs}
            names: Sequence[str] = [
                spec.name
                for spec in self.workspace.grid
                if spec.name in self.ledger.stored and spec.cohort in wanted
            ]
        else:
            names = task.names
        header: dict[str, Any] = {
            "studies": [messages.plain_study(self.ledger.stored[name]) for name in names]
        }
        if task.kind == "extract":
            backbone, layers = self.crew.layers_of(task)
            header |= {"backbone": backbone, "layers": layers}
        elif task.flight is not None:
            begun = task.flight.begun
            for what, some in (("asked", begun.asked), ("history", begun.history)):
                header[what] = {name: messages.plain_trials(some[name]) for name in names}
        return messages.pack(header)

    # -- what comes back ----------------------------------------------------------------------------

    def _hear(self, heard: Heard) -> None:
        task = self.crew.tasks.get(heard.key)
        if task is None:
            return
        task.heard = True
        said = heard.said
        if "reports" in said:
            self._reports += [(trial, step, value) for trial, step, value in said["reports"]]
        elif "training" in said:
            what, trials, step, steps, running = said["training"]
            self.listener.working(task.worker, what, trials, step, steps, running)
        elif "progress" in said:
            what, done, total = said["progress"]
            self.workspace.progress(f"worker {task.worker}: {what}", done, total)
        else:
            self.listener.say(f"worker {task.worker}: {said['say']}")

    def _end(self, ended: Ended) -> None:
        task = self.crew.tasks.pop(ended.key)
        if task is None:
            return
        self.listener.resting(task.worker)
        if ended.answer is not None:
            self._take(task, ended.answer)
        elif ended.error is None:
            self._lose(task)
        else:
            self._fail(task, ended.error)

    def _take(self, task: Task, answer: bytes) -> None:
        self._faults = 0
        if task.kind == "groups":
            self._groups = self._groups_of(messages.unpack(answer).header["groups"])
            self._ready = None
        elif (flight := task.flight) is not None:
            mine = {name: flight.begun.asked[name] for name in task.names}
            flight.results |= messages.ended_of(answer, mine, flight.begun.specs)
            self._close(flight, task.names)

    def _groups_of(
        self, parts: list[list[list[str]]]
    ) -> dict[tuple[str, str, str], list[list[Spec]]]:
        """Selected studies by cohort and group; the groups are those of the whole cohort, selected or not."""
        selected = {spec.name: spec for spec in self.specs}
        out = {}
        for cohort in parts:
            groups = [[selected[name] for name in part if name in selected] for part in cohort]
            out[next(spec for part in groups for spec in part).cohort] = groups
        return out

    def _close(self, flight: Flight, names: Sequence[str]) -> None:
        """Take studies of a round as ended, and tell the round when all are."""
        flight.out -= set(names)
        if flight.out:
            return
        if flight.results:
            self.ledger.tell(flight.results, flight.begun.history)
        self._flights.remove(flight)
        self._refresh()

    def _lose(self, task: Task) -> None:
        """Give what a lost worker had to another; what is lost time and again is split, then set aside."""
        words = self.engine.last_words(task.worker)
        lost = f"worker {task.worker} was lost" + (f" ({words})" if words else "")
        task.tries += 1
        self.crew.strike(task.address)
        self.listener.resting(task.worker)
        if task.flight is None:
            self.listener.say(lost)
            self._faults += 1
            if self._faults >= ATTEMPTS:
                raise EnvironmentFailure(f"{lost}, and others before it, before any round began")
        elif task.tries < ATTEMPTS:
            self.listener.say(f"{lost}; its round runs again")
            self.crew.put_off(task)
        else:
            self._blame(task, task.flight, lost)

    def _fail(self, task: Task, error: BaseException) -> None:
        """Find out whose fault an error is: the machine's, the person's, or the round's."""
        if isinstance(error, EnvironmentFailure) or blameless(error):
            others = self.crew.leave_out(task)
            task.tries += 1
            if not others or task.tries >= ATTEMPTS:
                raise error
            self.listener.say(f"worker {task.worker}: {one_line(error)}; it is given nothing more")
            if task.flight is not None:
                self.crew.put_off(task)
        elif (
            isinstance(error, TunerError) or task.flight is None or not isinstance(error, Exception)
        ):
            raise error
        elif len(task.names) > 1:
            self.listener.say(f"a round failed ({one_line(error)}); its studies run one by one")
            self._split(task, task.flight)
        else:
            task.tries += 1
            if task.tries < ATTEMPTS:
                self.crew.put_off(task)
            else:
                self._blame(task, task.flight, one_line(error))

    def _blame(self, task: Task, flight: Flight, why: str) -> None:
        """Split a round that cannot be fitted, or set its only study aside."""
        if len(task.names) > 1:
            self.listener.say(f"{why}, as two before it; the studies of its round run one by one")
            self._split(task, flight)
            return
        (name,) = task.names
        self.ledger.fail(name, flight.begun.asked[name], why)
        self._close(flight, task.names)

    def _split(self, task: Task, flight: Flight) -> None:
        self.crew.put_off(*(Task("fit", task.layer, flight, (name,)) for name in task.names))


def _layer(work: Work) -> Layer:
    backbone, layer, _ = work.cohort
    return backbone, layer


def _homes(workspace: Workspace, specs: Sequence[Spec]) -> Homes:
    sizes = {
        (spec.key.backbone, spec.key.layer): workspace.features.cached_bytes(spec.shape)
        for spec in specs
    }
    experiment = workspace.experiment
    return Homes(sizes, experiment.storage.cache_limit, shared=experiment.cluster.cache is None)
