"""What every worker has to do, in the order in which it does it."""

from __future__ import annotations

from dataclasses import dataclass, field

from studies.cluster.homes import Layer
from studies.search.ledger import Begun
from studies.search.queue import Work
from studies.search.training import Ended as Results

DEPTH = 2
"""Tasks that a worker has at most: one that it works on, and one that it goes on with without waiting to be told."""


@dataclass(eq=False)
class Flight:
    """A round that has begun, and the studies of it that are still out."""

    work: Work
    begun: Begun
    out: set[str]
    results: dict[str, Results] = field(default_factory=dict)


@dataclass(eq=False)
class Task:
    """Something that one worker does; of a round all or some of its studies.

    Attributes
    ----------
    kind
        As :func:`studies.cluster.worker.work` knows them.
    tries
        How often it was lost or raised.
    address, worker
        Address and name of the worker that has it.
    heard
        Whether the worker has told anything of it, and so has begun with it.
    """

    kind: str
    layer: Layer | None = None
    flight: Flight | None = None
    names: tuple[str, ...] = ()
    tries: int = 0
    address: str = ""
    worker: str = ""
    heard: bool = False


class Tasks:
    """Tasks that are with workers, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, Task] = {}
        self._at: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def add(self, key: str, task: Task) -> None:
        """Take that a worker was given a task; it does it after those that it has."""
        task.heard = False
        self._by_key[key] = task
        self._at.setdefault(task.address, []).append(key)

    def get(self, key: str) -> Task | None:
        """The task of a key; None where it is over."""
        return self._by_key.get(key)

    def pop(self, key: str) -> Task | None:
        """Take that a task is over; None where it was before."""
        task = self._by_key.pop(key, None)
        if task is not None:
            self._at[task.address].remove(key)
        return task

    def at(self, address: str) -> list[str]:
        """Keys of the tasks that a worker has, the one that it works on first."""
        return list(self._at.get(address, ()))

    def addresses(self) -> set[str]:
        """Addresses of the workers that have something to do."""
        return {address for address, keys in self._at.items() if keys}

    def any(self, kind: str) -> bool:
        """Whether a worker has a task of a kind."""
        return any(task.kind == kind for task in self._by_key.values())

    def waiting(self) -> list[str]:
        """Keys of rounds that have not been begun with, of the workers that have most to do first."""
        queued = [
            (-len(keys), key)
            for keys in self._at.values()
            for key in keys[1:]
            if self._by_key[key].kind == "fit" and not self._by_key[key].heard
        ]
        return [key for _, key in sorted(queued, key=lambda one: one[0])]
