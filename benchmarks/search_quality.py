"""Is the search itself right? ``python -m benchmarks.search_quality [--searches 10] [-o FILE]``.

Five combinations of the demo's kind, each searched again and again with other seeds, three ways: TPE with the median rule at
every report (``search.rungs = "reports"``), TPE without it, and random draws without it, with the warm start of the releases
before. Shown are how often the pruned search's best comes within 1 % of the unpruned one's, what pruning saves, and TPE
against random at equal trials. What is shipped is measured by :mod:`benchmarks.quality`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe, threads
from studies.config.experiment import load_experiment
from studies.config.templates import read_template
from studies.database import trials
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.search.create import create
from studies.search.ledger import Ledger
from studies.search.search import Search
from studies.workspace import Workspace

COMBINATIONS = (
    ("_blocks.0", "V1", "full"),
    ("_blocks.2", "V1", "factorized"),
    ("_blocks.4", "V4", "full"),
    ("_blocks.10", "V4", "factorized"),
    ("_blocks.15", "IT", "full"),
)
ARMS = {"tpe, median": ("tpe", "median"), "tpe": ("tpe", "none"), "random": ("random", "none")}
WITHIN = 0.01


@dataclass(frozen=True)
class Searched:
    """One search of one combination.

    Attributes
    ----------
    best
        Lowest validation loss of a COMPLETE trial.
    steps
        Trial-steps that were trained.
    complete
        Trials that were not stopped.
    """

    best: float
    steps: int
    complete: int


@contextmanager
def without_pictures() -> Iterator[None]:
    """Leave out what is made for the dashboard after a search."""
    before = Ledger.draw
    Ledger.draw = lambda self, standings: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Ledger.draw = before  # type: ignore[method-assign]


def search(
    folder: Path, cache: Path, seed: int, arm: str, n_trials: int
) -> tuple[list[Searched], float]:
    """Search all combinations once.

    Returns
    -------
    list of Searched
        One a combination.
    float
        Seconds.
    """
    sampler, pruner = ARMS[arm]
    text = read_template("demo")
    rules = (
        f'sampler = "{sampler}"\npruner = "{pruner}"\nrungs = "reports"\nwarm_start = "neighbour"\n'
    )
    text = text.replace("[search]\n", f"[search]\n{rules}")
    head, rest = text.split("[search]")
    text = head + "[search]" + rest.replace("seed = 0", f"seed = {seed}", 1)
    text = text.replace("[storage]\n", f'[storage]\ncache = "{cache}"\n')
    folder.mkdir(parents=True)
    config = folder / "tuner.toml"
    config.write_text(text)
    workspace = Workspace(load_experiment(config))
    specs = []
    for layer, region, readout in COMBINATIONS:
        key = (layer, region, readout)
        specs += [s for s in workspace.grid if (s.key.layer, s.key.region, s.key.readout) == key]
    with open_stores(workspace.experiment, create=True) as stores:
        create(workspace, stores, specs)
        for spec in specs:
            workspace.features.of(spec.key.backbone, spec.key.layer)
        with without_pictures():
            begun = time.perf_counter()
            Search(Ledger(workspace, stores, specs, n_trials=n_trials)).run()
            seconds = time.perf_counter() - begun
        stored = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [stored[spec.name].study_id for spec in specs])
    out = []
    for spec in specs:
        mine = loaded[stored[spec.name].study_id]
        complete = [t.value for t in mine if t.state.name == "COMPLETE" and t.value is not None]
        steps = sum(max(t.curve, default=0) for t in mine)
        out.append(Searched(min(complete), steps, len(complete)))
    shutil.rmtree(folder)
    return out, seconds


def table(found: dict[str, list[list[Searched]]], seconds: dict[str, float], n: int) -> str:
    """What came of it, as text."""
    best = {arm: np.array([[s.best for s in one] for one in found[arm]]) for arm in ARMS}
    steps = {arm: sum(s.steps for one in found[arm] for s in one) for arm in ARMS}
    complete = np.array([[s.complete for s in one] for one in found["tpe, median"]])
    ratio = best["tpe, median"] / best["tpe"]
    good = ratio <= 1 + WITHIN
    wins = best["tpe"] < best["random"]
    saved = 1 - steps["tpe, median"] / steps["tpe"]
    faster = 1 - seconds["tpe, median"] / seconds["tpe"]
    lines = [
        "# Is the search right?",
        "",
        describe(f"python -m benchmarks.search_quality --searches {len(ratio)}"),
        "",
        f"{len(COMBINATIONS)} combinations of the demo, {len(ratio)} searches of {n} trials each with other seeds. Medians "
        "of the lowest\nvalidation loss of a search; how often the pruned search's is within 1 % of the unpruned one's; "
        "trials that were not stopped.",
        "",
        "| combination | TPE, not pruned | TPE, pruned | random, not pruned | within 1 % | complete |",
        "|---|---|---|---|---|---|",
    ]
    for i, combination in enumerate(COMBINATIONS):
        middle = [f"{np.median(best[arm][:, i]):.4f}" for arm in ("tpe", "tpe, median", "random")]
        lines.append(
            f"| {'/'.join(combination)} | {' | '.join(middle)} | {good[:, i].sum()} of {len(good)} | "
            f"{np.median(complete[:, i]):.0f} of {n} |"
        )
    lines += [
        "",
        "| over all | |",
        "|---|---|",
        f"| pruned best within 1 % of the unpruned one's | {good.mean():.0%} of searches |",
        f"| the worst of them | {ratio.max() - 1:+.1%} |",
        f"| trial-steps saved by pruning | {saved:.0%} |",
        f"| time saved by pruning | {faster:.0%} ({seconds['tpe']:.0f} s to {seconds['tpe, median']:.0f} s) |",
        f"| TPE better than random at equal trials | {wins.mean():.0%} of searches |",
        f"| its best lower by, median | {np.median(1 - best['tpe'] / best['random']):.2%} |",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=10, help="of each combination and kind")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, help="where the table is written, too")
    options = parser.parse_args()
    torch.set_num_threads(threads())
    folder = Path(tempfile.mkdtemp(prefix="quality-"))
    found: dict[str, list[list[Searched]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    search(folder / "warm", folder / "cache", 0, "random", 8)  # features, and first imports
    for seed in range(options.searches):
        for arm in ARMS:
            one, took = search(
                folder / f"{seed}-{len(found)}-{arm}", folder / "cache", seed, arm, options.trials
            )
            found[arm].append(one)
            seconds[arm] += took
    text = table(found, seconds, options.trials)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
