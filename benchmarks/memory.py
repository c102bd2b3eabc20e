"""Whether training keeps to its memory: the plan against the peak of a process, for budgets of 1, 2 and 4 GB.

``python -m benchmarks.memory -o PAGE.md`` trains, in a process of its own for each row, a round of two studies of which one
is bigger than the budget, so that blocks of its units take turns, with reports, pruning and the best weights handed on.
The peak is of resident memory above what the imports take; simulated features and responses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.trial import TrialState

from benchmarks.machine import cores, describe, load, publish
from benchmarks.throughput.peak import high_water, resident

BUDGETS = (1.0, 2.0, 4.0)
CASES = (("full", True), ("full", False), ("factorized", True), ("factorized", False))
SHAPES = {"full": (64, 24, 24), "factorized": (1024, 2, 2)}
"""Feature shapes at which columns of some GB train in seconds."""

IMAGES, VALIDATION, BATCH, TRIALS = 300, 60, 50, 8
REPORTS = (4, 8, 12)
OVERSIZE = 1.6
"""How much bigger than the budget the bigger study is."""


@dataclass(frozen=True)
class Row:
    """One budget and readout; bytes."""

    budget: float
    readout: str
    compiled: bool
    columns: int
    turns: int
    plan: int
    peak: int


def measure(budget: float, readout: str, compiled: bool) -> Row:
    """A row, measured in a process of its own."""
    given = json.dumps([budget, readout, compiled])
    command = [sys.executable, "-m", "benchmarks.memory", "--child", given, "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Row(*json.loads(done.stdout.splitlines()[-1]))


def child(budget: float, readout: str, compiled: bool) -> Row:
    """Plan and train; what the process has taken at most."""
    import torch

    from studies.database.trials import Trial
    from studies.search.round import Member, Round
    from tuner import readouts
    from tuner.features.tiers import open_store
    from tuner.fitting.plan import column_bytes, fixed_bytes, grouping
    from tuner.fitting.targets import Targets
    from tuner.fitting.trainer import Trainer
    from tuner.readouts.readout import FeatureShape

    torch.set_num_threads(cores())
    baseline = resident()
    device = torch.device("cpu")
    shape = FeatureShape(*SHAPES[readout])
    kernel = readouts.get(readout).kernel(shape, device, compiled=compiled)
    memory = int(budget * 1e9)
    held = 2 * IMAGES * shape.size
    each = column_bytes(kernel, BATCH)
    room = memory - held - fixed_bytes(shape, BATCH, device)
    sizes = [max(1, int(share * room / each / TRIALS)) for share in (0.3, OVERSIZE)]
    units = np.split(np.arange(sum(sizes)), sizes[:1])
    groups = grouping(
        units,
        TRIALS,
        readout=readouts.get(readout),
        shape=shape,
        batch_size=BATCH,
        steps=REPORTS[-1],
        device=device,
        memory=memory - held,
        compiled=compiled,
    )
    rng = np.random.default_rng(0)
    half = np.empty((IMAGES, *SHAPES[readout]), dtype=np.float16)
    for image in half:
        image[:] = np.maximum(rng.standard_normal(half.shape[1:], dtype=np.float32), 0)
    targets = rng.standard_normal((IMAGES, sum(sizes)), dtype=np.float32)
    rows, cut = np.arange(IMAGES), IMAGES - VALIDATION
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            kernel,
            open_store(half, "host", device),
            Targets(targets[:cut], targets[cut:], rows[:cut], rows[cut:], rows[cut:] % 2),
            loss="mse",
            batch_size=BATCH,
            seed=0,
            device=device,
            parking=Path(folder),
        )
        for group in groups:
            members = []
            for m in group.studies:
                settings = [
                    dict.fromkeys(readouts.get(readout).penalties, 1e-4)
                    | {"learning_rate": 0.001 * 2**i, "drop": 100.0}
                    for i in range(TRIALS)
                ]
                trials = [
                    Trial(100 * m + i, m, i, TrialState.RUNNING, s) for i, s in enumerate(settings)
                ]
                members.append(Member(units[m], settings, trials, []))
            place = {study: i for i, study in enumerate(group.studies)}
            turns = [[(place[b.study], b.units) for b in turn] for turn in group.turns]
            Round(members, turns, trainer, reports=REPORTS, prune=True).run()
    largest = max(
        sum(len(block.units) for block in turn) * TRIALS for group in groups for turn in group.turns
    )
    plan = largest * each + fixed_bytes(shape, BATCH, device) + held
    n_turns = max(len(group.turns) for group in groups)
    peak = high_water() - baseline
    return Row(budget, readout, compiled, sum(sizes) * TRIALS, n_turns, plan, peak)


def page(rows: list[Row], before: float) -> str:
    """All of it as Markdown."""
    lines = [
        "# Memory",
        "",
        describe("python -m benchmarks.memory") + f" Load before {before:.1f}.",
        "",
        f"{' and '.join(f'{name}: ' + 'x'.join(map(str, shape)) for name, shape in SHAPES.items())} features, "
        f"{IMAGES} images in half precision in memory, {TRIALS} trials a study,\n"
        "two studies of which one\nis bigger than the budget: blocks of its units take turns between reports, and wait in "
        "a file. Peak: resident memory of\nthe process above what its imports take.",
        "",
        "| budget | readout | columns | turns | plan, MB | peak, MB | peak over plan |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.budget:.0f} GB | {r.readout}{'' if r.compiled else ', eager'} | {r.columns:,} | {r.turns} | "
        f"{r.plan / 1e6:,.0f} | {r.peak / 1e6:,.0f} | {r.peak / r.plan:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every budget and write the page."""
    parser = argparse.ArgumentParser(description="Planned against used memory.")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        row = child(*json.loads(given.child))
        print(json.dumps(list(vars(row).values())))
        return
    before = load()
    rows = []
    for budget in BUDGETS:
        for readout, compiled in CASES:
            rows.append(measure(budget, readout, compiled))
            print(rows[-1], file=sys.stderr, flush=True)
    text = page(rows, before)
    publish(text, given.out)


if __name__ == "__main__":
    main()
