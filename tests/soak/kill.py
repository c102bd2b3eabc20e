"""Searches that are killed again and again, and end like one that was not.

``python -m tests.soak.kill --runs 100``: each run is a small search on SQLite, killed with -9 at random moments from its
first line of progress on and at named points between its writes, then finished, then compared.
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
from pathlib import Path

from studies.database.killpoints import POINTS, VARIABLE
from tests.soak.outcome import Seen, differences, look
from tests.soak.zygote import Child, Zygote
from tests.studies.small import write_experiment

TRIALS = 12
SPACE = {"full": {}, "factorized": {}, "smooth": {"width": [0.0, 1.5], "penalty": [0.1, 1.0]}}
RARE = ("recovering", "recovered", "reported", "putting back")
"""Points that a search may get to only once."""
FIRST_LINE = "trials: "


class Soak:
    """Kills searches in a folder.

    Parameters
    ----------
    folder
        Where recording, cache, the undisturbed search and the disturbed ones lie.
    folds
        ``training.folds``.
    """

    def __init__(self, folder: Path, zygote: Zygote, folds: int) -> None:
        self.folder = folder
        self.zygote = zygote
        self.kills: Counter[str] = Counter()
        self.processes = 0
        changes = {"search": {"space": SPACE}, "training": {"folds": folds}}
        config = write_experiment(folder / "start", folder / "shared", changes)
        assert self._run(folder / "start", "study", "create").wait() == 0
        shutil.copytree(folder / "start", folder / "whole")
        # The first search extracts the features; the second shows how long one takes.
        for name in ("start", "whole"):
            shutil.rmtree(folder / "whole")
            shutil.copytree(folder / "start", folder / "whole")
            child = self._optimize(folder / "whole")
            assert child.until(FIRST_LINE), (name, child.text())
            begun = time.monotonic()
            assert child.wait() == 0, child.text()
            self.seconds = time.monotonic() - begun
        self.config = config
        self.whole = look(folder / "whole" / "tuner.toml", TRIALS)
        assert not self.whole.problems, self.whole.problems

    def _run(self, where: Path, *words: str, env: dict[str, str] | None = None) -> Child:
        self.processes += 1
        return self.zygote.start(
            [*words, "-c", where / "tuner.toml"], where / f"log-{self.processes}", env
        )

    def _optimize(self, where: Path, env: dict[str, str] | None = None) -> Child:
        return self._run(where, "optimize", "--n-trials", str(TRIALS), env=env)

    def _at_random(self, where: Path, draw: random.Random) -> None:
        child = self._optimize(where)
        if not child.until(FIRST_LINE):
            return
        time.sleep(draw.uniform(0, 0.9 * self.seconds))
        child.kill()
        if child.wait() == -signal.SIGKILL:
            self.kills["at random"] += 1

    def _at_point(self, where: Path, point: str, draw: random.Random) -> None:
        if point in ("recovering", "recovered"):  # there must be something to recover
            self._at_point(where, "asked", draw)
        count = 1 if point in RARE else draw.randint(1, 3)
        child = self._optimize(where, {VARIABLE: f"{point}:{count}"})
        if point == "putting back" and child.until("trials run"):
            child.kill(signal.SIGTERM)
        if child.wait() == -signal.SIGKILL:
            self.kills[point] += 1

    def run(self, number: int, draw: random.Random, kills: int) -> Seen:
        """Disturb one search, finish it, and compare it with the undisturbed one."""
        where = self.folder / f"run-{number}"
        shutil.copytree(self.folder / "start", where)
        # Every point has its turn first, when there is most to do; then others, by turns with random moments.
        self._at_point(where, POINTS[number % len(POINTS)], draw)
        for step in range(1, kills):
            if step % 2:
                self._at_random(where, draw)
            else:
                self._at_point(where, draw.choice(POINTS), draw)
        last = self._optimize(where)
        code = last.wait()
        seen = look(where / "tuner.toml", TRIALS)
        if code != 0:
            seen.problems.append(f"exit {code}: {last.text()}")
        seen.problems += differences(self.whole.outcome, seen.outcome)
        if not seen.problems:
            shutil.rmtree(where)
        return seen


def soak(
    folder: Path, runs: int, seed: int, kills: int = 4, folds: int = 2
) -> tuple[Soak, list[str]]:
    """Run so many disturbed searches; returns what was found wrong."""
    problems: list[str] = []
    with Zygote() as zygote:
        job = Soak(folder, zygote, folds)
        for number in range(runs):
            seen = job.run(number, random.Random(f"{seed} {number}"), kills)
            problems += [f"run {number}: {problem}" for problem in seen.problems]
            if sys.stderr.isatty():
                print(f"{number + 1}/{runs}: {sum(job.kills.values())} kills", file=sys.stderr)
    return job, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=4, help="attempts to kill, per run")
    parser.add_argument("--folds", type=int, default=2, help="training.folds; 1: a single cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept when something is wrong")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    begun = time.monotonic()
    job, problems = soak(folder, options.runs, options.seed, options.kills, options.folds)
    whole = job.whole
    print(f"runs                 {options.runs} in {time.monotonic() - begun:.0f} s")
    print(f"processes started    {job.processes}")
    print(f"killed               {sum(job.kills.values())}")
    for name, count in sorted(job.kills.items()):
        print(f"  {name:<19}{count}")
    print(
        f"studies a run        {len(whole.outcome)}, {TRIALS} trials each, the grid in closed form"
    )
    print(f"trials compared      {options.runs * whole.trials}")
    print(f"kept files compared  {options.runs * whole.files}")
    print(f"problems             {len(problems)}")
    for problem in problems[:50]:
        print(f"  {problem}")
    if not problems and options.folder is None:
        shutil.rmtree(folder)
    else:
        print(f"the searches lie in {folder}")
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
