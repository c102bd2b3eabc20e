"""Workers in this process: an engine without Dask, whose workers do what a test wants of them, in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.main import main
from studies.cluster.coordinator import Coordinator
from studies.cluster.engine import Ended, Heard
from studies.cluster.tasks import DEPTH
from studies.cluster.worker import work
from studies.config.experiment import load_experiment
from studies.database.stores import open_stores
from studies.search.ledger import Done, Ledger
from studies.search.listener import Listener
from studies.workspace import Workspace

TRIALS = 10
SMALL = {
    "training": {"steps": 6, "report_every": 2},
    "search": {"space": {"full": {}, "smooth": {"width": [0.0, 1.5], "penalty": [1.0, 10.0]}}},
}
"""An experiment of twelve small studies, and trials that each is brought to."""


def created(config: Path) -> Path:
    """Create an experiment's studies."""
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    return config


@dataclass
class Given:
    """A task that was given out."""

    key: str
    address: str
    kind: str
    experiment: bytes
    task: bytes


class Died(Exception):  # noqa: N818 - what became of a worker
    """A worker died in the middle of what it did."""


@dataclass
class StandIn:
    """Workers of which one, drawn at random, does its oldest task whenever it is asked what happened.

    Attributes
    ----------
    count
        Workers.
    lose
        Told each task before it is done: whether its worker dies with it.
    before
        Called before a task is done; may raise what the worker is to raise.
    most
        Most workers that had something to do at the same time.
    ahead
        How often a worker that was done with a task had another lying ready.
    """

    count: int = 3
    seed: int = 0
    lose: Callable[[Given], bool] = lambda given: False
    before: Callable[[Given], None] = lambda given: None
    wanted: int | None = None
    given: list[Given] = field(default_factory=list)
    log: list[Given] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    most: int = 0
    ahead: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._rng = np.random.default_rng(self.seed)
        self._born = {f"w{i}": 0 for i in range(self.count)}

    def living(self) -> dict[str, str]:
        return {f"{name}#{born}": name for name, born in self._born.items()}

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        assert address in self.living()
        assert [one.address for one in self.given].count(address) < DEPTH
        one = Given(f"{kind}-{next(self._numbers)}", address, kind, experiment, task)
        self.given.append(one)
        self.log.append(one)
        self.most = max(self.most, len({one.address for one in self.given}))
        return one.key

    def drop(self, key: str) -> None:
        self.given = [one for one in self.given if one.key != key]

    def hear(self, seconds: float) -> Ended | Heard | None:
        if self.heard:
            return self.heard.pop(0)
        if not seconds or not self.given:
            return None
        first = list({one.address: one for one in reversed(self.given)}.values())
        one = first[int(self._rng.integers(len(first)))]
        self.given.remove(one)
        self.ahead += any(other.address == one.address for other in self.given)
        if self.lose(one):
            return self._died(one)
        try:
            self.before(one)
            answer = work(one.kind, one.experiment, one.task, self._send(one))
        except Died:
            return self._died(one)
        except Exception as error:
            return Ended(one.key, error=error)
        self.heard.append(Ended(one.key, answer=answer))  # type: ignore[arg-type]  # told last
        return self.heard.pop(0)

    def _died(self, one: Given) -> Ended:
        name, _, born = one.address.partition("#")
        self._born[name] = int(born) + 1
        self.heard.clear()
        return Ended(one.key)

    def _send(self, one: Given) -> Callable[[dict[str, Any]], None]:
        return lambda said: self.heard.append(Heard(one.key, said))

    def last_words(self, name: str) -> str:
        return f"last words of {name}"


class Told(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rounds: list[tuple[str, str]] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def working(
        self, worker: str, what: str, trials: int, step: int, steps: int, running: int
    ) -> None:
        self.rounds.append((worker, what))


@contextmanager
def coordinator(
    config: Path, engine: Any, n_trials: int, listener: Listener | None = None, **options: Any
) -> Iterator[Coordinator]:
    experiment = load_experiment(config)
    with open_stores(experiment) as stores:
        workspace = Workspace(experiment)
        ledger = Ledger(
            workspace, stores, workspace.grid, n_trials=n_trials, listener=listener, **options
        )
        yield Coordinator(ledger, engine)


def search(
    config: Path, engine: Any, n_trials: int, listener: Listener | None = None, **options: Any
) -> Done:
    """Bring every study to its trials by an engine's workers."""
    with coordinator(config, engine, n_trials, listener, **options) as one:
        return one.run()
