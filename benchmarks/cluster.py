"""What a search on workers costs: ``python -m benchmarks.cluster [-o FILE]``.

Two things. The coordinator alone, at full size: 840 studies, 64 simulated workers whose rounds take no time, every trial
with 20 reports, everything else as always (rounds chosen, trials asked, messages packed, compared and stored). And two
workers of this machine against one process, one thread each, from when each of them has told its first round, beside what
the machine gives to two searches that know nothing of each other; where others use the machine too, the seconds of
processors tell more than those of the clock. ``--only pair`` measures that alone, in some minutes for each size.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from optuna.trial import TrialState

from benchmarks import storage
from benchmarks.machine import describe, load, publish
from studies.cluster import messages
from studies.cluster.coordinator import Coordinator
from studies.cluster.engine import Ended, Engine, Heard
from studies.config.experiment import load_experiment
from studies.database.stores import open_stores
from studies.database.trials import Outcome
from studies.search import proposals
from studies.search.best_weights import Fitted
from studies.search.ledger import Ledger
from studies.search.listener import Listener
from studies.search.space import propose
from studies.workspace import Workspace

WORKERS, REPORTS = 64, 20
OURS = (sys.executable, "-m", "benchmarks.cluster")


@dataclass
class Simulated:
    """Workers whose rounds take no time; their own seconds are kept apart."""

    wanted: int = WORKERS
    seconds: float = 0.0
    bytes: int = 0
    rounds: int = 0
    _given: deque[tuple[str, str, bytes]] = field(default_factory=deque)
    _told: deque[Ended | Heard] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    def living(self) -> dict[str, str]:
        """All of them, always."""
        return {f"address {i}": str(i) for i in range(self.wanted)}

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        """Take a task."""
        key = str(next(self._numbers))
        self._given.append((key, kind, task))
        return key

    def drop(self, key: str) -> None:
        """Nothing is ever dropped."""

    def hear(self, seconds: float) -> Ended | Heard | None:
        """The oldest task's reports, then its answer."""
        if not self._told and self._given and seconds:
            begun = time.process_time()
            self._answer(*self._given.popleft())
            self.seconds += time.process_time() - begun
        return self._told.popleft() if self._told else None

    def last_words(self, name: str) -> str:
        """Nobody dies."""
        return ""

    def _answer(self, key: str, kind: str, task: bytes) -> None:
        header = messages.unpack(task).header
        if kind == "groups":
            parts: dict[tuple[str, ...], list[str]] = {}
            for plain in header["studies"]:
                study = messages.study_of(plain)
                parts.setdefault(study.cohort, []).append(study.name)
            answer = messages.pack({"groups": [[names] for names in parts.values()]})
        elif kind in ("open", "extract"):
            answer = messages.pack({})
        else:
            answer = self._fit(key, header)
            self.rounds += 1
            self.bytes += len(answer)
        self._told.append(Ended(key, answer=answer))

    def _fit(self, key: str, header: dict[str, Any]) -> bytes:
        results, rows = {}, []
        for name, plain in header["asked"].items():
            outcomes, fitted = [], []
            for trial in messages.trials_of(plain):
                rng = np.random.default_rng(trial.trial_id)
                curve = np.minimum.accumulate(rng.uniform(0.5, 1.0, REPORTS))
                pruned = trial.number % 2 == 1
                last = REPORTS // 2 if pruned else REPORTS
                values = dict(zip(range(10, 201, 10), map(float, curve[:last]), strict=False))
                value = float(curve[last - 1])
                state = TrialState.PRUNED if pruned else TrialState.COMPLETE
                outcomes.append(Outcome(trial.trial_id, state, value, values))
                rows += [(trial.trial_id, step, v) for step, v in values.items()]
                if not pruned:
                    weights = {
                        "weight": torch.zeros(storage.UNITS, 100),
                        "bias": torch.zeros(storage.UNITS),
                    }
                    loss = rng.uniform(0.5, 1.0, (storage.UNITS, 2))
                    fitted.append(Fitted(trial, value, weights, loss))
            results[name] = (outcomes, fitted)
        self._told.append(Heard(key, {"reports": rows}))
        return messages.pack_ended(results)


def alone(trials: int, folder: Path) -> list[tuple[str, str]]:
    """The coordinator's own time and memory."""
    config = storage.write_experiment(folder / "full", storage.LAYERS, folder / "cache")
    storage.tuner("study", "create", "-c", config)
    spent = [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return propose(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - begun

    engine = Simulated()
    memory: list[tuple[int, int]] = []

    class Watching(Listener):
        def told(self, finished: int) -> None:
            memory.append((finished, psutil.Process().memory_info().rss))

    experiment = load_experiment(config)
    with (
        storage.replaced(proposals, "propose", timed),
        storage.replaced(Ledger, "draw", lambda self, standings: None),
        open_stores(experiment) as stores,
    ):
        workspace = Workspace(experiment)
        searched = [spec for spec in workspace.grid if not spec.closed_form]
        ledger = Ledger(workspace, stores, searched, n_trials=trials, listener=Watching())
        one = Coordinator(ledger, engine)
        begun = time.process_time()
        done = one.run()
        seconds = time.process_time() - begun - engine.seconds
    count = done.trials
    quarter = next(rss for finished, rss in memory if finished >= count // 4)
    return [
        (f"trials, of {len(searched)} studies in {engine.rounds} rounds", f"{count}"),
        ("the coordinator's own time", f"{1e3 * (seconds - spent[0]) / count:.2f} ms a trial"),
        ("the sampler besides", f"{1e3 * spent[0] / count:.2f} ms a trial"),
        ("the same, a round", f"{1e3 * seconds / engine.rounds:.0f} ms"),
        ("what came back", f"{engine.bytes / engine.rounds / 1e3:.0f} kB a round"),
        ("memory after a quarter of the trials", f"{quarter / 1e6:.0f} MB"),
        ("memory at the end", f"{memory[-1][1] / 1e6:.0f} MB"),
    ]


# -- two workers against one process ----------------------------------------------------------------

PAIRS = {64: 48, 128: 24}
"""Side of the images to trials of each study: rounds of a second or so, and of some. With few trials most of a search is its
first two rounds, in which layers wait for their donors."""

SPEED = """
[data]
format = "simulated"
image_size = {size}
n_train = 300
n_test = 20
units_per_region = 40
[[backbone]]
name = "efficientnet_lite0"
layers = ["_blocks.1", "_blocks.3", "_blocks.5", "_blocks.8"]
[training]
steps = 300
folds = 1
start = "readout"
device = "cpu"
[search]
space.full = {{}}
space.factorized = {{}}
[storage]
cache = "{cache}"
"""


class _Stamps(Listener):
    """When rounds were told."""

    def __init__(self) -> None:
        self.at: list[tuple[float, int, float]] = []

    def told(self, finished: int) -> None:
        self.at.append((time.perf_counter(), finished, _spent()))


def _spent() -> float:
    """Processor seconds of all processes of this search."""
    me = psutil.Process()
    seconds = sum(me.cpu_times()[:2])
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            seconds += sum(child.cpu_times()[:2])
    return seconds


class _Watched:
    """An engine that remembers when its workers had something to do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._given: dict[str, tuple[str, str, float]] = {}
        self.spans: dict[str, list[tuple[float, float]]] = {}
        self.fitted: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        """Give a worker something to do."""
        key = self._engine.give(address, kind, experiment, task)
        self._given[key] = address, kind, time.perf_counter()
        return key

    def hear(self, seconds: float) -> Ended | Heard | None:
        """What happens next."""
        came = self._engine.hear(seconds)
        if isinstance(came, Ended):
            address, kind, begun = self._given.pop(came.key)
            self.spans.setdefault(address, []).append((begun, time.perf_counter()))
            if kind == "fit":
                self.fitted.setdefault(address, time.perf_counter())
        return came

    def idle(self, first: float, last: float) -> float:
        """Share of a time in which a worker had nothing to do, the mean over workers."""
        shares = []
        for spans in self.spans.values():
            busy, until = 0.0, first
            for begun, ended in sorted(spans):
                busy += max(0.0, min(ended, last) - max(begun, until))
                until = max(until, min(ended, last))
            shares.append(1 - busy / (last - first))
        return float(np.mean(shares)) if shares else 0.0


def _search(config: Path, workers: int, trials: int) -> None:
    """Search; print what :class:`_Run` holds."""
    from studies.cluster.engine import open_engine
    from studies.search.search import Search

    experiment = load_experiment(config)
    stamps = _Stamps()
    watched = None
    with open_stores(experiment) as stores:
        workspace = Workspace(experiment)
        ledger = partial(
            Ledger, workspace, stores, workspace.grid, n_trials=trials, listener=stamps
        )
        if workers:
            with open_engine("local", workers, experiment) as engine:
                watched = _Watched(engine)
                Coordinator(ledger(), watched).run()
        else:
            Search(ledger()).run()
    rose = [b for a, b in itertools.pairwise(stamps.at) if b[1] > a[1]]
    all_began = 0.0 if watched is None else max(watched.fitted.values())
    first, last = next(one for one in rose if one[0] > all_began), rose[-1]
    idle = 0.0 if watched is None else watched.idle(first[0], last[0])
    print(last[1] - first[1], last[0] - first[0], last[2] - first[2], idle, first[2])


@dataclass(frozen=True)
class _Run:
    """What one search took, from the first round of each worker on, and the processor seconds before."""

    trials: float
    seconds: float
    processor: float
    idle: float
    start: float


def _runs(folder: Path, kinds: Sequence[int], trials: int, size: int) -> list[_Run]:
    """Searches in folders of their own, all at the same time: of one process (0) or of so many workers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = []
    for number, workers in enumerate(kinds):
        here = folder / f"{number}"
        here.mkdir(parents=True)
        config = here / "tuner.toml"
        config.write_text(SPEED.format(cache=folder.parent / "cache", size=size))
        storage.tuner("study", "create", "-c", config)
        words = [*OURS, "--search", str(config), str(workers), str(trials)]
        begun.append(words)
    processes = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        for words in begun
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a search failed; it says why above")
    return [_Run(*map(float, one.split())) for one in said]


def together(trials: int, pairs: int, size: int, folder: Path) -> list[tuple[str, str]]:
    """Two workers of this machine against one process."""
    # Extracts the features that all of them read.
    _runs(folder / "first", [0], min(trials, 8), size)
    found: dict[str, list[_Run]] = {"one": [], "two": [], "side": []}
    for pair in range(pairs):
        found["one"] += _runs(folder / f"one-{pair}", [0], trials, size)
        found["two"] += _runs(folder / f"two-{pair}", [2], trials, size)
        found["side"] += _runs(folder / f"side-{pair}", [0, 0], trials, size)

    def median(name: str, of: Callable[[_Run], float]) -> float:
        return float(np.median([of(run) for run in found[name]]))

    rate = {name: median(name, lambda run: run.trials / run.seconds) for name in found}
    work = {name: 1e3 * median(name, lambda run: run.processor / run.trials) for name in found}
    return [
        ("one process", f"{rate['one']:.1f} trials/s, {work['one']:.0f} ms of a processor a trial"),
        ("two workers", f"{rate['two']:.1f} trials/s, {work['two']:.0f} ms of a processor a trial"),
        ("two workers against one process", f"{rate['two'] / rate['one']:.2f} times"),
        (
            "what the machine gives: two searches of one process at the same time, against one",
            f"{2 * rate['side'] / rate['one']:.2f} times",
        ),
        (
            "until each has told a round",
            f"{median('one', lambda run: run.start):.0f} s of a processor, with two workers "
            f"{median('two', lambda run: run.start):.0f} s",
        ),
        (
            "time in which a worker had nothing to do",
            f"{100 * median('two', lambda run: run.idle):.1f} %",
        ),
        (f"processes that wanted to run meanwhile, of {os.cpu_count()} cores", f"{load():.1f}"),
    ]


def table(rows: list[tuple[str, str]]) -> str:
    """Two columns in Markdown."""
    return "\n".join(["| what | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""])


def main() -> int:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/cluster.md"))
    parser.add_argument("--trials", type=int, default=50, help="of each of the 840 studies")
    parser.add_argument("--layers", type=int, help="of one network, in the place of all 28 of two")
    parser.add_argument("--pairs", type=int, default=3, help="of runs of one process and of two")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        choices=list(PAIRS),
        default=list(PAIRS),
        help="sides of the images that pairs of runs look at",
    )
    parser.add_argument(
        "--only", choices=["coordinator", "pair"], help="one of the two, to be read alone: no page"
    )
    parser.add_argument("--search", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        config, workers, trials = options.search
        torch.set_num_threads(1)
        _search(Path(config), int(workers), int(trials))
        return 0
    if options.layers:
        storage.LAYERS = (options.layers,)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        parts = []
        if options.only != "pair":
            parts += [
                f"## The coordinator alone, with {WORKERS} simulated workers",
                "",
                table(alone(options.trials, Path(folder) / "alone")),
            ]
        if options.only != "coordinator":
            for size in options.sizes:
                here = Path(folder) / f"{size}"
                parts += [
                    f"## Two workers of one machine, images of {size} x {size}",
                    "",
                    table(together(PAIRS[size], options.pairs, size, here)),
                ]
    command = "python -m benchmarks.cluster" + (f" --only {options.only}" if options.only else "")
    text = "\n".join(["# A search on workers", "", describe(command), "", *parts])
    if options.only:
        sys.stdout.write(text)
    else:
        publish(text, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
