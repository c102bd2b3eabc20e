"""One sequence of random operations on one experiment: what can be done to it, and how it is ended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna

from studies.database.killpoints import POINTS, VARIABLE
from studies.database.sqlite import lock_folder
from tests.soak import journal
from tests.soak.model import Model
from tests.soak.zygote import Child, Zygote
from tests.studies.server import Server
from tests.studies.small import REGIONS

OPERATIONS = 30
TRIALS, KEEP = 6, 2
EVERY = (4, 5, 10)
"""Settings that a sequence goes through; which of them a trial was run under shows in its reports."""

DOCUMENT = {
    "backbone": [
        {"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2", "_blocks.4"]}
    ],
    "training": {"steps": 20, "batch_size": 20, "report_every": EVERY[0], "device": "cpu"},
    "search": {"parallel_trials": 2, "keep": KEEP, "sampler": "random"},
}
STUDIES = 4

PATIENCE = 2.0
"""Seconds after which those that were stopped go on: they may hold what is waited for."""


class Sequence:
    """One experiment and what is done to it.

    Parameters
    ----------
    start
        Folder with the experiment's file, recording and cache.
    where
        Folder of this sequence.
    server
        The PostgreSQL server of its database; None: an SQLite file.
    """

    def __init__(
        self, zygote: Zygote, start: Path, where: Path, server: Server | None, draw: random.Random
    ) -> None:
        self.zygote, self.where, self.server, self.draw = zygote, where, server, draw
        where.mkdir()
        self.config = where / "tuner.toml"
        text = (start / "tuner.toml").read_text()
        if server is not None:
            url = server.new_database(where.name)
            text = text.replace("[storage]", f'[storage]\nurl = "{url}"')
        self.config.write_text(text)
        self.model = Model(self.config, KEEP)
        self.problems = self.model.problems
        self.workers: list[Child] = []
        self.stopped: set[int] = set()
        self.cut_off = False
        self.log: list[str] = []
        self.done: Counter[str] = Counter()
        self.every = EVERY[0]
        self.copies = 0
        self._logs = 0

    # -- running commands ------------------------------------------------------------------------

    def start(self, *words: object, env: dict[str, str] | None = None) -> Child:
        self._logs += 1
        return self.zygote.start([*words, "-c", self.config], self.where / f"log-{self._logs}", env)

    def run(self, *words: object, allowed: tuple[int, ...] = (0, 2)) -> None:
        """Run a command to its end."""
        child = self.start(*words)
        with self.patience():
            code = child.wait()
        self.judge(words, child, code, allowed)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Whoever is stopped goes on when this takes long."""
        timer = threading.Timer(PATIENCE, self.go_on)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def judge(self, words: object, child: Child, code: int, allowed: tuple[int, ...]) -> None:
        text = child.text()
        if code not in allowed or "Traceback" in text or "defect" in text:
            self.problems.append(f"{words}: exit {code}: {text[-600:]}")

    # -- operations ------------------------------------------------------------------------------

    def create(self) -> None:
        self.run("study", "create")

    def force(self) -> None:
        self.run("study", "create", "--force")

    def edit(self) -> None:
        now = self.draw.choice([e for e in EVERY if e != self.every])
        text = self.config.read_text()
        text = text.replace(f"report_every = {self.every}\n", f"report_every = {now}\n")
        self.config.write_text(text)
        self.every = now

    def worker(self, env: dict[str, str] | None = None) -> None:
        self.workers.append(self.start("optimize", "--n-trials", TRIALS, env=env))

    def optimize(self) -> None:
        for _ in range(self.draw.randint(1, 4)):
            env = None
            if self.draw.random() < 0.3:
                env = {VARIABLE: f"{self.draw.choice(POINTS)}:1"}
            self.worker(env)
        time.sleep(self.draw.uniform(0.05, 0.4))

    def alive(self) -> list[Child]:
        """Workers that still run; those that ended are judged."""
        left = []
        for child in self.workers:
            code = child.poll()
            if code is None:
                left.append(child)
            else:
                self.stopped.discard(child.pid)
                lost = (3,) if self.cut_off and "connection" in child.text() else ()
                self.judge("optimize", child, code, (0, 2, -signal.SIGKILL, *lost))
        self.workers = left
        return left

    def kill(self) -> None:
        if some := self.alive():
            self.draw.choice(some).kill()

    def stop(self) -> None:
        if some := self.alive():
            child = self.draw.choice(some)
            self.stopped.add(child.pid)
            child.kill(signal.SIGSTOP)

    def go_on(self) -> None:
        # By number: this is also called while the zygote is asked for something else.
        while self.stopped:
            with suppress(ProcessLookupError):
                os.kill(self.stopped.pop(), signal.SIGCONT)

    def in_a_round(self) -> Child | None:
        """Start a worker, and stop it in the middle of a round, where it gets to one."""
        self.worker()
        child, until = self.workers[-1], time.monotonic() + 1
        while "trials run" not in child.text() and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(self.draw.uniform(0.0, 0.05))
        if child not in self.alive():
            return None
        self.stopped.add(child.pid)
        child.kill(signal.SIGSTOP)
        return child

    def overtake(self) -> None:
        """A worker is stopped in the middle of a round, and finds something else when it goes on."""
        child = self.in_a_round()
        if child is None:
            return
        steps: list[Callable[[], object]] = []
        if self.draw.random() < 0.7:
            steps.append(self.unlock)
        steps += self.draw.choice(
            ([], [self.delete_by_optuna] * STUDIES, [self.delete], [self.edit], [self.edit])
        )
        if steps:
            steps.append(self.force if self.edit in steps else self.create)
        steps.append(self.draw.choice((self.optimize, self.in_a_round, self.in_a_round)))
        for step in steps:
            self.do(step)
        # It goes on alone where the others stand in a round, too.
        child.kill(signal.SIGCONT)
        self.stopped.discard(child.pid)
        time.sleep(0.15)
        self.look()
        self.go_on()

    def delete(self) -> None:
        region = self.draw.choice(list(REGIONS))
        self.run("study", "delete", "--yes", "--region", region)

    def delete_by_optuna(self) -> None:
        with self.model.stores() as stores, self.patience():
            names = [s.study_name for s in stores.storage.optuna.get_all_studies()]
            if names:
                optuna.delete_study(
                    study_name=self.draw.choice(names), storage=stores.storage.optuna
                )

    def copy(self) -> None:
        target = self.where / f"copy-{self.draw.randint(0, self.copies)}.db"
        self.copies += 1
        self.run("study", "copy", f"sqlite:///{target}")

    def export(self) -> None:
        self.run("study", "list", "--format", "json")
        self.run("export", "best", "-o", self.where / "out")

    def flip(self) -> None:
        files = sorted(p for p in (self.where / "artifacts").glob("*") if len(p.name) == 32)
        if files:
            path = self.draw.choice(files)
            with suppress(FileNotFoundError):
                content = bytearray(path.read_bytes())
                content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
                path.write_bytes(content)
                self.model.flipped = True

    def doctor(self) -> None:
        self.run("doctor", *self.draw.choice([(), ("--fix",)]))

    def unlock(self) -> None:
        """Claims are torn from those who hold them."""
        if self.server is None:
            shutil.rmtree(lock_folder(self.where / "tuner.db"), ignore_errors=True)
            return
        with self.server.connect(self.where.name) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
        self.cut_off = True

    def operations(self) -> dict[Callable[[], object], int]:
        """What can be done, and how often it is."""
        return {
            self.create: 4,
            self.force: 4,
            self.edit: 2,
            self.optimize: 6,
            self.overtake: 3,
            self.kill: 3,
            self.stop: 3,
            self.go_on: 2,
            self.delete: 2,
            self.delete_by_optuna: 2,
            self.copy: 1,
            self.export: 1,
            self.flip: 2,
            self.doctor: 2,
            self.unlock: 1,
        }

    # -- from beginning to end -------------------------------------------------------------------

    def do(self, operation: Callable[[], object]) -> None:
        """Do one thing, and look."""
        self.log.append(operation.__name__)
        self.done[operation.__name__] += 1
        operation()
        self.alive()
        self.look()

    def look(self) -> None:
        """Hold what is there to what must be."""
        with self.patience():
            self.model.check()

    def play(self) -> list[str]:
        """Do it all; returns what was found wrong."""
        choices = self.operations()
        try:
            self.run("study", "create", allowed=(0,))
            with self.model.stores() as stores:
                journal.begin(stores.storage)
            while sum(self.done.values()) < OPERATIONS and not self.problems:
                self.do(self.draw.choices(list(choices), list(choices.values()))[0])
            if not self.problems:
                self._finish()
        finally:
            for child in self.workers:
                child.kill()
                child.wait()
        return self.problems

    def _finish(self) -> None:
        """The search is brought to its end, and has every trial and file that it should."""
        self.go_on()
        for child in self.workers:
            child.wait()
        self.alive()
        self.model.check()
        self.run("study", "create", "--force", allowed=(0,))
        # What is put back by the first is run again before the second looks.
        for words in (("doctor", "--fix"), ("optimize", "--n-trials", TRIALS)) * 2:
            self.run(*words, allowed=(0,))
        self.model.check()
        counts = self.model.counts()
        if counts != dict.fromkeys(counts, TRIALS) or len(counts) != STUDIES:
            self.problems.append(f"finished trials {counts}")
        self.model.check_files()
        self.run("doctor", allowed=(0,))
        if "RUNNING" in (last := (self.where / f"log-{self._logs}").read_text()):
            self.problems.append(last)
