"""Random operations on one experiment, and a model of what must be true beside it.

``python -m tests.soak.chaos --sequences 500 --seed 0``: each sequence is 30 operations, drawn by seed: studies created, made
anew with other settings, deleted (by the command, or through optuna), copied, exported; one to four workers started, killed,
stopped and continued; bytes of kept files flipped, the folder of locks removed, ``doctor`` called. Training is a stand-in
whose results say what was trained (:mod:`tests.soak.stand_in`), so an operation takes a fraction of a second and every
number in the database and in the kept files can be told from any other. At the end the search is finished and compared.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.database import own_tables, trials, weights
from studies.database.artifacts import UnreadableWeights
from studies.database.connection import lock_folder
from studies.database.killpoints import POINTS, VARIABLE
from studies.database.stores import Stores, open_stores
from studies.database.studies import Stored, stored_studies
from studies.search.best_weights import best_first
from tests.soak import stand_in
from tests.soak.zygote import Child, Zygote
from tests.studies import server
from tests.studies.small import REGIONS, write_experiment
from tuner.errors import TunerError
from tuner.fitting.schedule import report_steps

OPERATIONS = 30
TRIALS, KEEP = 6, 2
EVERY = (2, 4, 5, 10)
"""Settings that a sequence goes through; which of them a trial was run under shows in its reports."""

REGION_UNITS = {"V1": range(REGIONS["V1"]), "IT": range(REGIONS["V1"], sum(REGIONS.values()))}

DOCUMENT = {
    "backbone": [
        {"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2", "_blocks.4"]}
    ],
    "training": {"steps": 20, "batch_size": 20, "report_every": EVERY[0], "device": "cpu"},
    "search": {"parallel_trials": 2, "keep": KEEP, "sampler": "random"},
}

Finished = dict[tuple[str, int], tuple[dict[str, float], float | None]]


class Sequence:
    """One experiment and what is done to it.

    Parameters
    ----------
    start
        Folder with the experiment's file, recording and cache.
    where
        Folder of this sequence.
    url
        Its database; None: an SQLite file there.
    """

    def __init__(
        self, zygote: Zygote, start: Path, where: Path, url: str | None, draw: random.Random
    ) -> None:
        self.zygote, self.where, self.draw = zygote, where, draw
        where.mkdir()
        self.config = where / "tuner.toml"
        text = (start / "tuner.toml").read_text()
        self.config.write_text(
            text if url is None else text.replace("[storage]", f'[storage]\nurl = "{url}"')
        )
        self.workers: list[Child] = []
        self.stopped: set[int] = set()
        self.problems: list[str] = []
        self.log: list[str] = []
        self.done: Counter[str] = Counter()
        self.every = EVERY[0]
        self.flipped = False
        self.copies = 0
        self.finished: Finished = {}
        self._logs = 0

    # -- running commands ------------------------------------------------------------------------

    def start(self, *words: object, env: dict[str, str] | None = None) -> Child:
        self._logs += 1
        return self.zygote.start([*words, "-c", self.config], self.where / f"log-{self._logs}", env)

    def run(self, *words: object, allowed: tuple[int, ...] = (0, 2)) -> int:
        """Run a command to its end; whoever was stopped goes on where it has to be waited for."""
        child = self.start(*words)
        until = time.monotonic() + 5
        while child.poll() is None:
            if time.monotonic() > until and self.stopped:
                self.go_on()
            time.sleep(0.003)
        code = child.wait()
        self.judge(words, child, code, allowed)
        return code

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

    def optimize(self) -> None:
        for _ in range(self.draw.randint(1, 4)):
            env = None
            if self.draw.random() < 0.3:
                env = {VARIABLE: f"{self.draw.choice(POINTS)}:1"}
            self.workers.append(self.start("optimize", "--n-trials", TRIALS, env=env))
        time.sleep(self.draw.uniform(0.1, 0.8))

    def alive(self) -> list[Child]:
        """Workers that still run; those that ended are judged."""
        left = []
        for child in self.workers:
            code = child.poll()
            if code is None:
                left.append(child)
            else:
                self.stopped.discard(child.pid)
                self.judge("optimize", child, code, (0, 2, -signal.SIGKILL))
        self.workers = left
        return left

    def kill(self) -> None:
        if some := self.alive():
            self.draw.choice(some).kill()

    def stop(self) -> None:
        if some := self.alive():
            child = self.draw.choice(some)
            child.kill(signal.SIGSTOP)
            self.stopped.add(child.pid)

    def go_on(self) -> None:
        for child in self.alive():
            if child.pid in self.stopped:
                child.kill(signal.SIGCONT)
        self.stopped.clear()

    def delete(self) -> None:
        region = self.draw.choice(list(REGIONS))
        self.run("study", "delete", "--yes", "--region", region)

    def delete_by_optuna(self) -> None:
        with self.stores() as stores:
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
            content = bytearray(path.read_bytes())
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            path.write_bytes(content)
            self.flipped = True

    def doctor(self) -> None:
        self.run("doctor", *self.draw.choice([(), ("--fix",)]))

    def unlock(self) -> None:
        shutil.rmtree(lock_folder(self.where / "tuner.db"), ignore_errors=True)

    def operations(self) -> dict[Callable[[], None], int]:
        """What can be done, and how often it is."""
        return {
            self.create: 4,
            self.force: 4,
            self.edit: 2,
            self.optimize: 6,
            self.kill: 3,
            self.stop: 3,
            self.go_on: 2,
            self.delete: 2,
            self.delete_by_optuna: 2,
            self.copy: 1,
            self.export: 1,
            self.flip: 1,
            self.doctor: 2,
            self.unlock: 1,
        }

    # -- the model -------------------------------------------------------------------------------

    @contextmanager
    def stores(self) -> Iterator[Stores]:
        with open_stores(load_experiment(self.config)) as stores:
            yield stores

    def check(self) -> None:
        """Hold what is there to the model: nothing foreign, nothing lost, no file that is another's."""
        try:
            with self.stores() as stores:
                self._check(stores)
        except TunerError as error:
            if "no studies yet" not in str(error):
                raise

    def _check(self, stores: Stores) -> None:
        studies = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
        # A study that went between the two looks has no trials, or another's.
        again = {s.seal for s in stored_studies(stores.storage).values()}
        seen: Finished = {}
        for name, study in studies.items():
            if study.seal not in again:
                continue
            mine = loaded[study.study_id]
            if [t.number for t in mine] != list(range(len(mine))):
                self.problems.append(f"{name}: numbers {[t.number for t in mine]}")
            for trial in mine:
                self._check_trial(name, study, trial)
                if trial.state in trials.FINISHED:
                    seen[study.seal, trial.number] = (trial.params, trial.value)
        seals = {s.seal for s in studies.values()} & again
        for (seal, number), was in self.finished.items():
            now = seen.get((seal, number))
            if seal in seals and now != was and not (self.flipped and now is None):
                self.problems.append(f"trial {number} was {was} and is {now}")
        self.finished = seen

    def _check_trial(self, name: str, study: Stored, trial: trials.Trial) -> None:
        made = study.fingerprint
        steps = report_steps(made["training.steps"], made["training.report_every"])
        expected = stand_in.curve(trial.params, REGION_UNITS[study.key.region], tuple(steps))
        if trial.state in trials.FINISHED:
            right = trial.curve == expected and trial.value == expected[max(expected)]
        else:
            right = all(expected.get(step) == value for step, value in trial.curve.items())
        if not right:
            self.problems.append(
                f"{name}, trial {trial.number} ({trial.state.name}): {trial.value} {trial.curve} and "
                f"should be {expected}"
            )

    def check_files(self) -> None:
        """Each kept file is the one that was trained, and those that are kept are the best; nobody works any more."""
        with self.stores() as stores:
            studies = stored_studies(stores.storage)
            loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
            for name, study in studies.items():
                complete = {
                    t.number: t.value
                    for t in loaded[study.study_id]
                    if t.state == TrialState.COMPLETE and t.value is not None
                }
                kept = weights.kept_files(stores.storage, study.study_id)
                best = set(best_first(complete)[:KEEP])
                if {n for n in kept if n is not None} != best:
                    self.problems.append(f"{name}: kept {sorted(map(str, kept))}, best {best}")
                for number, file in kept.items():
                    try:
                        self._check_file(name, number, file.read(stores.artifacts), complete)
                    except UnreadableWeights as error:
                        self.problems.append(str(error))
            with stores.storage.read() as connection:
                rows = connection.execute(sa.select(own_tables.weights.c.study_id)).scalars()
                if strays := set(rows) - {s.study_id for s in studies.values()}:
                    self.problems.append(f"weights of studies {strays}, which are not there")

    def _check_file(self, name: str, number: int | None, tensors: object, complete: object) -> None:
        assert isinstance(tensors, dict)
        assert isinstance(complete, dict)
        weight = tensors["weight"].numpy().reshape(len(tensors["weight"]), -1)
        numbers = tensors["trial"].tolist() if number is None else [number] * len(weight)
        expected = np.array([np.float32(complete.get(n, np.nan)) for n in numbers])
        if not np.array_equal(weight, np.repeat(expected[:, None], weight.shape[1], 1)):
            self.problems.append(f"{name}: weights of {number} are not what was trained")

    # -- a sequence ------------------------------------------------------------------------------

    def play(self) -> list[str]:
        """Do it all; returns what was found wrong."""
        choices = self.operations()
        if not (self.where / "tuner.db").parent.exists():
            raise AssertionError
        try:
            for number in range(OPERATIONS):
                operation = (
                    self.create
                    if number == 0
                    else self.draw.choices(list(choices), list(choices.values()))[0]
                )
                self.log.append(operation.__name__)
                self.done[operation.__name__] += 1
                operation()
                self.alive()
                self.check()
                if self.problems:
                    return self.problems
            self._finish()
        finally:
            for child in self.workers:
                child.kill()
                child.wait()
        return self.problems

    def _finish(self) -> None:
        self.go_on()
        for child in self.workers:
            child.wait()
        self.alive()
        self.check()
        self.run("study", "create", "--force", allowed=(0,))
        # What is put back by the first is run again before the second looks.
        for words in (("doctor", "--fix"), ("optimize", "--n-trials", TRIALS)) * 2:
            self.run(*words, allowed=(0,))
        self.check()
        with self.stores() as stores:
            studies = stored_studies(stores.storage)
            loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
            counts = {
                name: sum(t.state in trials.FINISHED for t in loaded[s.study_id])
                for name, s in studies.items()
            }
        if counts != dict.fromkeys(counts, TRIALS) or len(counts) != 4:
            self.problems.append(f"finished trials {counts}")
        self.check_files()
        self.run("doctor", allowed=(0,))
        if "RUNNING" in (last := (self.where / f"log-{self._logs}").read_text()):
            self.problems.append(last)


def chaos(
    folder: Path,
    sequences: int,
    seed: int,
    *,
    database: str = "sqlite",
    prepare: str = "tests.soak.stand_in:install",
    until_found: bool = False,
) -> tuple[list[str], Counter[str]]:
    """Play sequences; returns what was found wrong, and how often each operation was done.

    Parameters
    ----------
    database
        ``sqlite`` or ``postgresql``.
    prepare
        What is installed in the processes, see :mod:`tests.soak.stand_in`.
    until_found
        Whether it ends with the first sequence in which something is wrong.
    """
    config = write_experiment(folder / "start", folder / "shared", DOCUMENT)
    config.write_text(config.read_text().replace(", factorized = {  }", ""))
    problems: list[str] = []
    done: Counter[str] = Counter()
    with (
        server.running() if database == "postgresql" else nullcontext() as postgres,
        Zygote((prepare, str(config))) as zygote,
    ):
        for number in range(sequences):
            where = folder / f"sequence-{number}"
            url = None if postgres is None else postgres.new_database(f"chaos-{number}")
            draw = random.Random(f"{seed} {number}")
            sequence = Sequence(zygote, folder / "start", where, url, draw)
            found = sequence.play()
            done.update(sequence.done)
            done["sequences"] += 1
            if found:
                history = " ".join(sequence.log)
                problems += [f"sequence {number} of seed {seed} ({history}): {p}" for p in found]
                print(problems[-1], file=sys.stderr, flush=True)
                if until_found:
                    break
            else:
                shutil.rmtree(where)
            if (number + 1) % 10 == 0:
                print(
                    f"{number + 1} sequences, {len(problems)} problems", file=sys.stderr, flush=True
                )
    return problems, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--unfenced", action="store_true", help="nothing is checked in any write")
    parser.add_argument("--folder", type=Path, help="kept when something is wrong")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    begun = time.monotonic()
    problems, done = chaos(
        folder,
        options.sequences,
        options.seed,
        database=options.database,
        prepare=f"tests.soak.stand_in:install{'_without_fences' if options.unfenced else ''}",
        until_found=options.unfenced,
    )
    print(f"seed                 {options.seed}, {options.database}")
    print(f"sequences            {done.pop('sequences')} in {time.monotonic() - begun:.0f} s")
    print(f"operations           {sum(done.values())}")
    for name, count in sorted(done.items()):
        print(f"  {name:<19}{count}")
    print(f"problems             {len(problems)}")
    for problem in problems[:20]:
        print(f"  {problem[:1500]}")
    if problems:
        print(f"what is left lies in {folder}")
    else:
        shutil.rmtree(folder)
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
