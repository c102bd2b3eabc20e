"""Does ``tuner study create --dry-run`` keep its word? Predicted against measured time and disk of a search.

``python -m benchmarks.prediction -o TABLE.md`` predicts a grid on the embedded data for N trials, runs it in a process of
its own from an empty folder, and writes both. Memory against its plan has a benchmark of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, load, publish

CONFIG = """
[data]
format = "simulated"
image_size = 64
[[backbone]]
name = "efficientnet_lite0"
layers = ["_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15"]
[training]
steps = 300
report_every = 30
device = "cpu"
[search]
"""

CHILD = """
import json, sys, time
from cli.main import main
import optuna, torch, sqlalchemy, scipy, tuner.fitting.trainer, studies.search.search, tuner.features.extract
begin = time.perf_counter()
code = main(sys.argv[1:])
print(json.dumps({"code": code, "seconds": time.perf_counter() - begin}))
"""


def child(*words: str) -> dict[str, Any]:
    """Run a command in a process of its own; its time after the imports."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "-q", *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["code"]:
        raise SystemExit(done.stderr)
    return found


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Run:
    """What was predicted and measured, in one go: seconds, and bytes of features and weights."""

    studies: int
    predicted: tuple[float, float, float]
    measured: tuple[float, float, float]


def measure(folder: Path, trials: int) -> Run:
    """Predict, run, and compare."""
    from studies.config.experiment import load_experiment
    from studies.search.calibrate import SECONDS
    from studies.search.forecast import plan, times
    from studies.workspace import Workspace

    config = folder / "tuner.toml"
    config.write_text(CONFIG, encoding="utf-8")
    workspace = Workspace(load_experiment(config))
    cohorts = plan(workspace, workspace.grid, trials)
    found = times(workspace, workspace.grid, cohorts, SECONDS)
    seconds = (found.search + found.extraction).value
    cache = sum({(c.backbone, c.layer): c.cache for c in cohorts}.values())
    kept = sum(c.kept for c in cohorts)
    child("-c", str(config), "study", "create")
    before = folder_bytes(folder / "cache")
    ran = child("-c", str(config), "optimize", "--n-trials", str(trials))
    measured = (
        float(ran["seconds"]),
        float(folder_bytes(folder / "cache") - before),
        float(folder_bytes(folder / "artifacts")),
    )
    return Run(len(workspace.grid), (seconds, float(cache), float(kept)), measured)


def page(runs: Sequence[Run], trials: int, before: float) -> str:
    """All runs as Markdown."""
    lines = [
        "# What `--dry-run` predicts",
        "",
        describe(f"python -m benchmarks.prediction --trials {trials} --repeats {len(runs)}")
        + f" {runs[0].studies} studies, load before {before:.1f}.",
        "",
        "| | predicted | measured | measured / predicted |",
        "|---|---|---|---|",
    ]
    for number, run in enumerate(runs, start=1):
        a, b = run.predicted[0], run.measured[0]
        lines.append(f"| time of run {number}, s | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    ratio = statistics.median(run.measured[0] / run.predicted[0] for run in runs)
    lines.append(f"| time, median | | | {ratio:.2f} |")
    for place, what in ((1, "feature cache, MB"), (2, "kept weights, MB")):
        a, b = runs[-1].predicted[place] / 1e6, runs[-1].measured[place] / 1e6
        lines.append(f"| {what} | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    before = load()
    runs = []
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as name:
            runs.append(measure(Path(name), given.trials))
        print(runs[-1], file=sys.stderr, flush=True)
    publish(page(runs, given.trials, before), given.out)


if __name__ == "__main__":
    main()
