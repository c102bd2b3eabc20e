"""The crew: which workers there are, what each has to do, whose features lie where, and who takes what next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from studies.cluster.engine import Engine
from studies.cluster.homes import Homes, Layer
from studies.cluster.tasks import Task, Tasks

HELP_SECONDS = 10.0
"""How long a worker has had nothing to do before it takes a round whose features it has to extract for that."""


class Crew:
    """The workers, as whoever hands out rounds sees them.

    Parameters
    ----------
    engine
        Gives them tasks and hears of them.
    homes
        Which of them has which layers.
    experiment
        What every worker is told of the experiment.
    message
        What a worker is told of a task, whose worker is known by then.

    Attributes
    ----------
    tasks
        What they have to do.
    """

    def __init__(
        self, engine: Engine, homes: Homes, experiment: bytes, message: Callable[[Task], bytes]
    ) -> None:
        self.engine = engine
        self.tasks = Tasks()
        self._homes = homes
        self._experiment = experiment
        self._message = message
        self._again: deque[Task] = deque()
        self._living: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._there: dict[str, set[Layer]] = {}
        self._opened: set[str] = set()
        self._idle_since: dict[str, float] = {}

    # -- who there is ---------------------------------------------------------------------------------

    def look(self) -> list[Task]:
        """See who lives; what those who are gone were at, a task each."""
        self._living = self.engine.living()
        gone = self.tasks.addresses() - set(self._living)
        self._idle_since = {a: t for a, t in self._idle_since.items() if a in self._living}
        return [self.withdraw(self.tasks.at(address)[0]) for address in gone]

    def with_tasks(self, count: int) -> dict[str, str]:
        """Name to address of the workers that have so many tasks and are given more."""
        return {n: a for n, a in self._serving().items() if len(self.tasks.at(a)) == count}

    def idle(self) -> dict[str, str]:
        """Name to address of the workers that have nothing to do; from when on they had not is kept."""
        idle = self.with_tasks(0)
        now = time.monotonic()
        for address in idle.values():
            self._idle_since.setdefault(address, now)
        return idle

    def strike(self, address: str) -> None:
        """Take that a worker is lost: others do what it has not begun with."""
        self._living.pop(address, None)
        self._take_back(address)

    def leave_out(self, task: Task) -> bool:
        """Give the worker of a task nothing more; whether there are others."""
        self._left_out.add(task.worker)
        self._take_back(task.address)
        return bool(self._serving())

    def _serving(self) -> dict[str, str]:
        return {n: a for a, n in self._living.items() if n not in self._left_out}

    # -- who takes what -------------------------------------------------------------------------------

    def begin_with(self, idle: dict[str, str], groups: Task, study: str) -> None:
        """Have one worker cut the studies into rounds, and the others open the experiment meanwhile.

        Parameters
        ----------
        idle
            Name to address of the workers that have nothing to do.
        groups
            The task of cutting.
        study
            Name of a study that the others open the experiment with.
        """
        for name, address in idle.items():
            if not self.tasks.any("groups"):
                self.send(groups, address, name)
            elif address not in self._opened:
                self.send(Task("open", names=(study,)), address, name)
            self._opened.add(address)

    @property
    def ready(self) -> bool:
        """Whether rounds may be given out.

        Where each worker has its own layers, those that open the experiment are waited for: else they would have none.
        """
        return self._homes.shared or not self.tasks.any("open")

    def taker(self, layer: Layer, free: dict[str, str], *, idle: bool) -> str | None:
        """Name of the worker that a round of a layer goes to; None where its own worker is at work.

        Parameters
        ----------
        free
            Name to address of the workers that have room.
        idle
            Whether those have nothing to do.
        """
        if not idle and not self._homes.shared:
            # A task ahead is of its own layers: another's would have to be extracted for it.
            home = self._homes.of(layer)
            return home if home in free else None
        return self._homes.choose(layer, free, self._serving())

    def helper(self, free: dict[str, str], *, idle: bool) -> str | None:
        """Name of a worker that takes what is another's; None where none does."""
        return next((n for n, a in free.items() if self._helps(a, idle=idle)), None)

    def _helps(self, address: str, *, idle: bool) -> bool:
        """Whether a worker takes what is another's: at once where all have one cache, else after it was idle for a time."""
        if self._homes.shared:
            return True
        return idle and time.monotonic() - self._idle_since[address] >= HELP_SECONDS

    def brings(self, layer: Layer, address: str, name: str) -> bool:
        """Whether a worker has to bring a layer's features in; it is the layer's home then, where none is."""
        if layer in self._there.setdefault(address, set()):
            return False
        living = set(self._serving())
        self._homes.settle(layer, name, self.engine.wanted or len(living), living)
        return True

    def layers_of(self, task: Task) -> tuple[str, list[str]]:
        """Backbone and layers whose features a worker brings in together for a task; they count as there from now on."""
        assert task.layer is not None
        backbone, layers = task.layer[0], self._homes.together(task.layer, task.worker)
        self._there[task.address] |= {(backbone, layer) for layer in layers}
        return backbone, list(layers)

    # -- what they have -------------------------------------------------------------------------------

    def send(self, task: Task, address: str, name: str) -> None:
        """Give a worker a task; it does it after those that it has."""
        task.address, task.worker = address, name
        self._idle_since.pop(address, None)
        key = self.engine.give(address, task.kind, self._experiment, self._message(task))
        self.tasks.add(key, task)

    def withdraw(self, key: str) -> Task:
        """Take a task from its worker."""
        self.engine.drop(key)
        task = self.tasks.pop(key)
        assert task is not None
        return task

    def put_off(self, *tasks: Task) -> None:
        """Have tasks done by whoever has nothing to do next."""
        self._again += tasks

    def take_up(self, idle: dict[str, str]) -> None:
        """Give out what was put off, to the worker that has its features if that is free; takers leave ``idle``."""
        while self._again and idle:
            task = self._again.popleft()
            name = None if task.layer is None else self._homes.of(task.layer)
            name = name if name in idle else next(iter(idle))
            self.send(task, idle.pop(name), name)

    def even_out(self) -> None:
        """Give workers that have nothing to do what waits behind another's work."""
        for name, address in self.with_tasks(0).items():
            waiting = self.tasks.waiting()
            if waiting and self._helps(address, idle=True):
                self.send(self.withdraw(waiting[0]), address, name)

    def _take_back(self, address: str) -> None:
        """Have others do what a worker has not begun with."""
        for key in self.tasks.at(address):
            task = self.withdraw(key)
            if task.flight is not None:
                self._again.append(task)
