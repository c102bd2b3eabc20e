"""The coordinator: one process that has the database and the claims, and has the rounds trained by others.

Every cohort that nobody else works on is claimed for the whole search. A worker that is lost costs its round, which
another takes up with the same trials. Where a round is lost three times it is split into its studies, as after an error in
training; a study that is lost, or raises, three times by itself is set aside.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from studies.cluster import messages
from studies.cluster.engine import Ended, Engine, Heard
from studies.cluster.homes import Homes, Layer
from studies.cluster.schedule import may_begin
from studies.cluster.tasks import DEPTH, Flight, Task, Tasks
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

HELP_SECONDS = 10.0
"""How long a worker has had nothing to do before it takes a round whose features it has to extract for that."""


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
        self.engine = engine
        self.order = order
        self.listener = ledger.listener
        self.specs = ledger.specs
        self._experiment = messages.pack(messages.document(workspace.experiment))
        self._round_size = workspace.experiment.search.parallel_trials
        self._homes = _homes(workspace, self.specs)
        self._standings: dict[str, Standing] = {}
        self._groups: dict[tuple[str, str, str], list[list[Spec]]] = {}
        self._claimed: set[tuple[str, str, str]] = set()
        self._flights: list[Flight] = []
        self._tasks = Tasks()
        self._again: deque[Task] = deque()
        self._reports: list[tuple[int, int, float]] = []
        self._living: dict[str, str] = {}
        self._there: dict[str, set[Layer]] = {}
        self._opened: set[str] = set()
        self._idle_since: dict[str, float] = {}
        self._ready: list[Work] | None = None
        self._left_out: set[str] = set()
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
            if not self._flights and not self._tasks:
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
        self._living = self.engine.living()
        for address in self._tasks.addresses() - set(self._living):
            self._lose(self._withdraw(self._tasks.at(address)[0]))
        self._idle_since = {a: t for a, t in self._idle_since.items() if a in self._living}
        if self._reports:
            reports, self._reports = self._reports, []
            with contextlib.suppress(StudyGone):  # said already; what comes of it is not stored
                self.ledger.report(reports)

    # -- giving out ---------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Give workers that have too little to do what comes next: first those that have nothing, then one task ahead.

        What lies ready at a worker is gone on with while the round before it is stored and the next one asked.
        """
        serving = {n: a for a, n in self._living.items() if n not in self._left_out}
        idle = self._with_tasks(serving, 0)
        now = time.monotonic()
        for address in idle.values():
            self._idle_since.setdefault(address, now)
        while self._again and idle:
            task = self._again.popleft()
            name = None if task.layer is None else self._homes.of(task.layer)
            name = name if name in idle else next(iter(idle))
            self._send(task, idle.pop(name), name)
        if self.ledger.late():
            self._leave_waiting()
        elif self._groups and (self._homes.shared or not self._tasks.any("open")):
            # Where each has its own layers, those that open the experiment are waited for: else they would have none.
            self._begin_rounds(idle, serving, now)
            for depth in range(1, DEPTH):
                self._begin_rounds(self._with_tasks(serving, depth), serving)
            self._even_out(self._with_tasks(serving, 0), now)
        elif not self._groups:
            self._begin_with(idle)

    def _begin_with(self, idle: dict[str, str]) -> None:
        """Have one worker cut the studies into rounds, and the others open the experiment meanwhile."""
        for name, address in idle.items():
            if not self._tasks.any("groups"):
                self._send(Task("groups"), address, name)
            elif address not in self._opened:
                self._send(Task("open", names=(self.specs[0].name,)), address, name)
            self._opened.add(address)

    def _with_tasks(self, serving: Mapping[str, str], count: int) -> dict[str, str]:
        """Name to address of the workers that have so many tasks."""
        return {n: a for n, a in serving.items() if len(self._tasks.at(a)) == count}

    def _begin_rounds(
        self, free: dict[str, str], serving: Collection[str], now: float | None = None
    ) -> None:
        """Begin rounds on workers that have room, each with those whose features it has first.

        Parameters
        ----------
        free
            Name to address of the workers; those that were given something are taken out.
        serving
            Names of all workers.
        now
            The time, where the workers have nothing to do and may help others out; None where they have.
        """
        away: list[Work] = []
        for work in list(self._may_begin()) if free else ():
            if now is None and not self._homes.shared:
                home = self._homes.of(_layer(work))
                name = home if home in free else None
            else:
                name = self._homes.choose(_layer(work), free, serving)
            if name is None:
                away.append(work)
            else:
                self._begin(work, free, name)
            if not free:
                return
        for work in away:
            ready = [name for name, address in free.items() if self._helps(address, now)]
            if ready:
                self._begin(work, free, ready[0])

    def _helps(self, address: str, now: float | None) -> bool:
        """Whether a worker takes what is another's: at once where all have one cache, else after it was idle for a time."""
        if self._homes.shared:
            return True
        return now is not None and now - self._idle_since[address] >= HELP_SECONDS

    def _even_out(self, idle: dict[str, str], now: float) -> None:
        """Give workers that have nothing to do what waits behind another's work."""
        for name, address in idle.items():
            waiting = self._tasks.waiting()
            if waiting and self._helps(address, now):
                self._send(self._withdraw(waiting[0]), address, name)

    def _withdraw(self, key: str) -> Task:
        """Take a task from its worker."""
        self.engine.drop(key)
        task = self._tasks.pop(key)
        assert task is not None
        return task

    def _take_back(self, address: str) -> None:
        """Have others do what a worker has not begun with."""
        for key in self._tasks.at(address):
            task = self._withdraw(key)
            if task.flight is not None:
                self._again.append(task)

    def _leave_waiting(self) -> None:
        """Put back rounds that have begun in the books alone."""
        for key in self._tasks.waiting():
            task = self._tasks.get(key)
            if task is None or task.flight is None or task.flight.out != set(task.names):
                continue  # some of its studies are elsewhere
            self._flights.remove(task.flight)
            self._withdraw(key)
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
        if layer not in self._there.setdefault(address, set()):
            living = set(self._living.values()) - self._left_out
            self._homes.settle(layer, name, self.engine.wanted or len(living), living)
            del idle[name]
            self._send(Task("extract", layer, names=(work.specs[0].name,)), address, name)
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
        self._send(Task("fit", layer, flight, tuple(begun.specs)), address, name)

    def _send(self, task: Task, address: str, name: str) -> None:
        task.address, task.worker = address, name
        self._idle_since.pop(address, None)
        key = self.engine.give(address, task.kind, self._experiment, self._message(task))
        self._tasks.add(key, task)

    def _message(self, task: Task) -> bytes:
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
            assert task.layer is not None
            backbone, layers = task.layer[0], self._homes.together(task.layer, task.worker)
            header |= {"backbone": backbone, "layers": layers}
            self._there[task.address] |= {(backbone, layer) for layer in layers}
        elif task.flight is not None:
            begun = task.flight.begun
            for what, some in (("asked", begun.asked), ("history", begun.history)):
                header[what] = {name: messages.plain_trials(some[name]) for name in names}
        return messages.pack(header)

    # -- what comes back ----------------------------------------------------------------------------

    def _hear(self, heard: Heard) -> None:
        task = self._tasks.get(heard.key)
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
        task = self._tasks.pop(ended.key)
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
        self._living.pop(task.address, None)
        self._take_back(task.address)
        self.listener.resting(task.worker)
        if task.flight is None:
            self.listener.say(lost)
            self._faults += 1
            if self._faults >= ATTEMPTS:
                raise EnvironmentFailure(f"{lost}, and others before it, before any round began")
        elif task.tries < ATTEMPTS:
            self.listener.say(f"{lost}; its round runs again")
            self._again.append(task)
        else:
            self._blame(task, task.flight, lost)

    def _fail(self, task: Task, error: BaseException) -> None:
        """Find out whose fault an error is: the machine's, the person's, or the round's."""
        if isinstance(error, EnvironmentFailure) or blameless(error):
            self._left_out.add(task.worker)
            self._take_back(task.address)
            others = set(self._living.values()) - self._left_out
            task.tries += 1
            if not others or task.tries >= ATTEMPTS:
                raise error
            self.listener.say(f"worker {task.worker}: {one_line(error)}; it is given nothing more")
            if task.flight is not None:
                self._again.append(task)
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
                self._again.append(task)
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
        self._again += [Task("fit", task.layer, flight, (name,)) for name in task.names]


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
