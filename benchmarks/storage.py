"""What keeping the books costs: ``python -m benchmarks.storage [-o FILE]``.

A search whose training takes no time: made-up curves of 20 reports, everything else as always (orphans looked for, trials
asked, reports written, weights kept, rounds told, progress read). Once on an empty database and once on one of full size,
840 studies of 50 trials, on which the commands that people wait for are timed too. The sampler's own time is reported
apart: it is optuna's. All times are the processor's, so that what else the machine does counts for little.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import h5py
import numpy as np
import psutil
import torch
from optuna.trial import TrialState

from benchmarks import reading
from benchmarks.machine import describe, load
from studies.config.experiment import load_experiment
from studies.config.ranges import IntRange
from studies.database import rounds
from studies.database.rounds import Asked, Told
from studies.database.stores import Stores, open_stores
from studies.database.studies import stored_studies
from studies.database.trials import Outcome, Proposal
from studies.search import proposals
from studies.search import round as search_round
from studies.search.best_weights import Fitted
from studies.search.ledger import Ledger
from studies.search.search import Search
from studies.search.space import distributions, propose
from studies.workspace import Workspace

ARRAYS, LAYERS, TRIALS, REPORTS = 15, (16, 12), 50, 20
UNITS, IMAGES, SIZE = 4, 120, 32

TUNER = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")

CONFIG = """
[data]
path = "recording.h5"
region = "array"
image_size = 32
validation_fraction = 0.25
{backbones}
[training]
steps = 200
batch_size = 20
report_every = 10
device = "cpu"
[search]
rungs = "reports"
[search.space.full]
[search.space.factorized]
[storage]
cache = "{cache}"
"""
BACKBONE = """
[[backbone]]
name = "efficientnet_lite0"
alias = "{alias}"
layers = {layers}
weights = "{weights}"
"""


def write_experiment(folder: Path, layers: Sequence[int], cache: Path) -> Path:
    """Write a config file and a recording of 15 arrays.

    Parameters
    ----------
    layers
        How many layers of each backbone.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "recording.h5", "w") as file:
        file["train/images"] = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
        file["train/responses"] = rng.standard_normal((IMAGES, ARRAYS * UNITS)).astype(np.float32)
        file["units/area"] = np.array(["V1"] * (ARRAYS * UNITS), dtype=h5py.string_dtype())
        names = [f"array {i:02d}" for i in range(ARRAYS) for _ in range(UNITS)]
        file["units/array"] = np.array(names, dtype=h5py.string_dtype())
    tables = [
        BACKBONE.format(
            alias=f"net{i}",
            layers=json.dumps([f"_blocks.{k}" for k in range(count)]),
            weights=weights,
        )
        for i, (count, weights) in enumerate(zip(layers, ("imagenet", "random"), strict=False))
    ]
    config = folder / "tuner.toml"
    config.write_text(CONFIG.format(backbones="".join(tables), cache=cache))
    return config


def tuner(*words: object) -> float:
    """Run the command in a process of its own; processor seconds that it took."""
    begun = _children()
    subprocess.run(
        [*TUNER, *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return _children() - begun


def _children() -> float:
    """Processor seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _used(process: subprocess.Popen[Any]) -> float:
    """Processor seconds of a command that runs."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def fill(stores: Stores, workspace: Workspace, trials: int) -> None:
    """Give every study so many finished trials with curves, made up."""
    stored = stored_studies(stores.storage)
    rng = np.random.default_rng(1)
    steps = range(10, 10 * REPORTS + 1, 10)
    for spec in workspace.grid:
        space = distributions(spec.space)
        new = []
        for _ in range(trials):
            params: dict[str, float] = {}
            for name, setting in spec.space.items():
                low, high = np.log(setting.low), np.log(setting.high)  # type: ignore[union-attr]
                value = float(np.exp(rng.uniform(low, high)))
                params[name] = round(value) if isinstance(setting, IntRange) else value
            new.append(Proposal(params))
        made = rounds.ask(stores.storage, [Asked(stored[spec.name], [], new, space)])
        outcomes = []
        for trial in made[0]:
            pruned = rng.random() < 0.5
            curve = np.minimum.accumulate(rng.uniform(0.5, 1.0, REPORTS))
            last = REPORTS // 2 if pruned else REPORTS
            outcomes.append(
                Outcome(
                    trial.trial_id,
                    TrialState.PRUNED if pruned else TrialState.COMPLETE,
                    float(curve[last - 1]),
                    dict(zip(steps, map(float, curve[:last]), strict=False)),
                )
            )
        rounds.tell(stores.storage, [Told(stored[spec.name], outcomes)])
    stores.storage.settle()


def made_up(
    self: search_round.Round, observer: search_round.Observer | None = None
) -> search_round.Result:
    """A round that takes no time: every trial reports 20 times and completes, with weights of full size."""
    rng = np.random.default_rng(self.running[0].trial.trial_id)
    curves = np.minimum.accumulate(rng.uniform(0.5, 1.0, (len(self.running), REPORTS)), axis=1)
    outcomes: list[list[Outcome]] = [[] for _ in self.members]
    fitted: list[list[Fitted]] = [[] for _ in self.members]
    for i, running in enumerate(self.running):
        units = self.members[running.member].units
        curve = dict(zip(self.reports, map(float, curves[i]), strict=True))
        outcomes[running.member].append(
            Outcome(running.trial.trial_id, TrialState.COMPLETE, float(curves[i, -1]), curve)
        )
        weights = {"weight": torch.zeros(len(units), 100), "bias": torch.zeros(len(units))}
        loss = rng.uniform(0.5, 1.0, (len(units), 2))
        fitted[running.member].append(Fitted(running.trial, float(curves[i, -1]), weights, loss))
    if observer is not None:
        for number, step in enumerate(self.reports):
            observer(
                step,
                self.reports[-1],
                len(self.running),
                [
                    (r.trial.trial_id, step, float(curves[i, number]))
                    for i, r in enumerate(self.running)
                ],
            )
    return search_round.Result(outcomes, fitted)


@contextmanager
def replaced(where: Any, name: str, by: Any) -> Iterator[None]:
    """Put something in another's place for a while."""
    before = getattr(where, name)
    setattr(where, name, by)
    try:
        yield
    finally:
        setattr(where, name, before)


def bookkeeping(config: Path, n_trials: int, layer: str) -> tuple[int, float, float]:
    """Search a layer's studies without training; trials, milliseconds a trial without the sampler, and the sampler's."""
    workspace = Workspace(load_experiment(config))
    stores = open_stores(workspace.experiment)
    specs = [s for s in workspace.grid if (s.key.layer, s.key.readout) == (layer, "full")]
    specs = [s for s in specs if s.key.backbone == "net0"]
    spent = [0.0]

    def timed(*args: Any, **kwargs: Any) -> list[Proposal]:
        begun = time.process_time()
        try:
            return propose(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - begun

    with (
        replaced(search_round.Round, "run", made_up),
        replaced(proposals, "propose", timed),
        replaced(Ledger, "draw", lambda self, standings: None),
    ):
        search = Search(Ledger(workspace, stores, specs, n_trials=n_trials))
        search._training._trainer_of = lambda spec: None  # type: ignore[method-assign,assignment,return-value]
        begun = time.process_time()
        report = search.run()
        seconds = time.process_time() - begun
    stores.storage.close()
    count = report.trials
    return count, 1e3 * (seconds - spent[0]) / count, 1e3 * spent[0] / count


def starts_work(config: Path) -> tuple[float, float]:
    """Processor seconds from typing ``tuner optimize`` to its first line, and to the first round in training."""
    words = ["optimize", "--n-trials", str(TRIALS + 20), "-c", str(config)]
    code = (
        "import sys; from cli import progress; progress.LINE_EVERY = 0.0; "
        "from cli.main import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
    )
    first = working = 0.0
    assert process.stderr is not None
    for line in process.stderr:
        now = _used(process)
        if line.startswith("trials:") and not first:
            first = now
        if "trials run" in line:
            working = now
            break
    process.kill()
    process.wait()
    return first, working


def dashboard(config: Path) -> tuple[float, float]:
    """Median processor seconds of the dashboard's list of studies and of one study."""
    from tests.studies.server import free_port

    port = free_port()
    words = ["dashboard", "--port", str(port), "-c", str(config)]
    process = subprocess.Popen([*TUNER, *words], stderr=subprocess.DEVNULL)

    def timed(path: str) -> float:
        begun = _used(process)
        with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            answer.read()
        return _used(process) - begun

    try:
        for _ in range(300):
            try:
                timed("/api/studies")
                break
            except OSError:
                time.sleep(0.1)
        return (
            statistics.median(timed("/api/studies") for _ in range(5)),
            statistics.median(timed(f"/api/studies/{i}") for i in (5, 50, 500)),
        )
    finally:
        process.kill()
        process.wait()


def median(measure: Callable[[], float], times: int = 3) -> float:
    """Median of repeated measurements."""
    return statistics.median(measure() for _ in range(times))


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="where the table is written, too")
    parser.add_argument("--folder", type=Path, help="keep the databases there")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each of the 840 studies")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="storage-"))
    before = load()
    rows: list[tuple[str, str]] = []

    empty = write_experiment(folder / "empty", (1,), folder / "cache")
    tuner("study", "create", "-c", empty)
    count, ours, sampler = bookkeeping(empty, 72, "_blocks.0")
    rows += [
        (
            f"bookkeeping, {count} trials of {REPORTS} reports, empty database",
            f"{ours:.1f} ms a trial",
        ),
        ("the sampler besides", f"{sampler:.1f} ms a trial"),
    ]

    full = write_experiment(folder / "full", LAYERS, folder / "cache")
    rows.append(
        ("tuner study create, 840 studies", f"{tuner('study', 'create', '-c', full):.1f} s")
    )
    workspace = Workspace(load_experiment(full))
    stores = open_stores(workspace.experiment)
    begun = time.process_time()
    fill(stores, workspace, options.trials)
    seconds = time.process_time() - begun
    studies = len(stored_studies(stores.storage))
    stores.storage.close()
    size = (full.parent / "tuner.db").stat().st_size / 1e6
    total = studies * options.trials
    rows.append((f"filling it with {total} trials", f"{1e3 * seconds / total:.2f} ms a trial"))
    rows.append((f"database of {studies} studies x {options.trials} trials", f"{size:.0f} MB"))
    count, ours, sampler = bookkeeping(full, options.trials + 16, "_blocks.3")
    rows += [
        (
            f"bookkeeping, {count} trials of {REPORTS} reports, full database",
            f"{ours:.1f} ms a trial",
        ),
        ("the sampler besides", f"{sampler:.1f} ms a trial"),
    ]
    for words in (("study", "list"), ("study", "list", "--format", "json"), ("status",)):
        took = median(lambda words=words: tuner(*words, "-c", full))  # type: ignore[misc]
        rows.append((f"tuner {' '.join(words)}", f"{took:.2f} s"))
    shown = median(lambda: tuner("--version"))
    rows.append(("of which starting Python", f"{shown:.2f} s"))
    starts_work(full)  # features of the first cohort come into the cache
    first, working = starts_work(full)
    rows.append(("tuner optimize, to its first line", f"{first:.2f} s"))
    rows.append(("tuner optimize, to the first round's first report", f"{working:.2f} s"))
    listing, one = dashboard(full)
    rows.append(("dashboard, list of studies", f"{listing:.2f} s"))
    rows.append(("dashboard, one study", f"{one:.2f} s"))
    rows += reading.rows(folder / "reading")

    text = "\n".join(
        [
            "# Keeping the books",
            "",
            describe("python -m benchmarks.storage") + f" SQLite. Load before {before:.0f}.",
            "",
            "A search whose training takes no time; everything else as always. Processor time.",
            "",
            "| what | took |",
            "|---|---|",
            *(f"| {name.strip()} | {value} |" for name, value in rows),
        ]
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
