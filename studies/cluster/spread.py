"""Tasks that do not depend on each other, done by workers: each once, and again where its worker is lost.

A layer's tasks go to one worker, which then has its features; where all workers have one cache, those that have nothing left
help the others out.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from studies.cluster import messages
from studies.cluster.engine import Ended, Engine
from studies.cluster.homes import Layer
from studies.cluster.tasks import DEPTH
from studies.search.ledger import ATTEMPTS, blameless, one_line
from studies.workspace import Workspace
from tuner.errors import EnvironmentFailure, TunerError

LOOK_SECONDS = 1.0
"""How often it is looked which workers live."""


@dataclass(frozen=True)
class Job:
    """One task.

    Attributes
    ----------
    kind
        As :func:`studies.cluster.worker.work` knows them.
    layer
        Whose features it needs.
    message
        Makes what the worker is sent, when it is sent; what that raises is raised.
    """

    kind: str
    layer: Layer
    message: Callable[[], bytes]


@dataclass(frozen=True)
class _Given:
    job: int
    address: str
    name: str


class Spread:
    """Has jobs done by workers.

    Parameters
    ----------
    workspace
        The experiment.
    engine
        The workers.
    jobs
        What is to be done.
    say
        Told what is out of the ordinary.
    """

    def __init__(
        self,
        workspace: Workspace,
        engine: Engine,
        jobs: Sequence[Job],
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._say = say
        self._progress = workspace.progress
        self._experiment = messages.pack(messages.document(workspace.experiment))
        self._shared = workspace.experiment.cluster.cache is None
        self._waiting: dict[Layer, deque[int]] = {}
        for number, job in enumerate(jobs):
            self._waiting.setdefault(job.layer, deque()).append(number)
        self._owner: dict[Layer, str] = {}
        self._given: dict[str, _Given] = {}
        self._tries: Counter[int] = Counter()
        self._living: dict[str, str] = {}
        self._left_out: set[str] = set()

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """The number of each job with its answer, as they come.

        Raises
        ------
        EnvironmentFailure
            If a job's worker is lost three times, or every worker's machine fails.
        """
        left = len(self._jobs)
        looked = -LOOK_SECONDS
        while left:
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
            self._give_out()
            came = self._engine.hear(LOOK_SECONDS / 2)
            if came is None:
                continue
            given = self._given.get(came.key)
            if given is None:
                continue
            if not isinstance(came, Ended):
                if "progress" in came.said:
                    what, done, total = came.said["progress"]
                    self._progress(f"worker {given.name}: {what}", done, total)
                continue
            del self._given[came.key]
            if came.answer is not None:
                left -= 1
                yield given.job, came.answer
            elif came.error is None:
                self._lose(given)
            else:
                self._fail(given, came.error)

    def _look(self) -> None:
        self._living = self._engine.living()
        while lost := [k for k, one in self._given.items() if one.address not in self._living]:
            self._engine.drop(lost[0])
            self._lose(self._given.pop(lost[0]))

    def _give_out(self) -> None:
        serving = {n: a for a, n in self._living.items() if n not in self._left_out}
        load = Counter(given.address for given in self._given.values())
        for depth in range(DEPTH):
            for name, address in serving.items():
                if load[address] == depth and (number := self._next(name, serving)) is not None:
                    load[address] += 1
                    job = self._jobs[number]
                    key = self._engine.give(address, job.kind, self._experiment, job.message())
                    self._given[key] = _Given(number, address, name)

    def _next(self, name: str, serving: Mapping[str, str]) -> int | None:
        """The job that a worker does next: of its own layers, of one that is nobody's, or of another's."""
        left = [layer for layer, numbers in self._waiting.items() if numbers]
        own = [layer for layer in left if self._owner.get(layer) == name]
        free = [layer for layer in left if self._owner.get(layer) not in serving]
        if not own and free:
            self._owner[free[0]] = name
            own = free
        if not own and self._shared and left:
            return self._waiting[max(left, key=lambda layer: len(self._waiting[layer]))].pop()
        return self._waiting[own[0]].popleft() if own else None

    def _again(self, number: int) -> None:
        self._waiting[self._jobs[number].layer].appendleft(number)

    def _lose(self, given: _Given) -> None:
        words = self._engine.last_words(given.name)
        lost = f"worker {given.name} was lost" + (f" ({words})" if words else "")
        self._living.pop(given.address, None)
        self._tries[given.job] += 1
        if self._tries[given.job] >= ATTEMPTS:
            raise EnvironmentFailure(f"{lost}, as two before it at the same task")
        self._say(f"{lost}; what it was at is done again")
        self._again(given.job)
        for key, other in list(self._given.items()):
            if other.address == given.address:  # it had not begun with this one
                self._engine.drop(key)
                del self._given[key]
                self._again(other.job)

    def _fail(self, given: _Given, error: BaseException) -> None:
        machine = isinstance(error, EnvironmentFailure) or blameless(error)
        self._tries[given.job] += 1
        if isinstance(error, TunerError) and not machine:
            raise error
        if machine:
            self._left_out.add(given.name)
        others = set(self._living.values()) - self._left_out
        if self._tries[given.job] >= ATTEMPTS or not others:
            raise error
        self._say(f"worker {given.name}: {one_line(error)}; what it was at is done again")
        self._again(given.job)
