"""Does ``tuner study create --dry-run`` keep its word? Predicted against measured time and disk of a search.

``python -m benchmarks.prediction -o TABLE.md`` predicts a grid on the embedded data for N trials, runs it in a process of
its own from an empty folder, and writes both. Memory against its plan has a benchmark of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
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
import optuna, torch, sqlalchemy, scipy, tuner.fitting.trainer, studies.search, tuner.features.extract
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


def measure(folder: Path, trials: int) -> str:
    """Predict, run, and compare."""
    from studies.dryrun import extraction_seconds, plan
    from studies.experiment import load_experiment
    from studies.workspace import Workspace

    config = folder / "tuner.toml"
    config.write_text(CONFIG, encoding="utf-8")
    workspace = Workspace(load_experiment(config))
    cohorts = plan(workspace, workspace.grid, trials)
    seconds = sum(c.search_seconds for c in cohorts) + extraction_seconds(workspace, workspace.grid)
    cache = sum({(c.backbone, c.layer): c.cache for c in cohorts}.values())
    kept = sum(c.kept for c in cohorts)
    child("-c", str(config), "study", "create")
    before = folder_bytes(folder / "cache")
    ran = child("-c", str(config), "optimize", "--n-trials", str(trials))
    rows = [
        ("time, s", seconds, ran["seconds"]),
        ("feature cache, MB", cache / 1e6, (folder_bytes(folder / "cache") - before) / 1e6),
        ("kept weights, MB", kept / 1e6, folder_bytes(folder / "artifacts") / 1e6),
    ]
    lines = [f"| {what} | {a:.1f} | {b:.1f} | {b / a:.2f} |" for what, a, b in rows]
    return (
        "# What `--dry-run` predicts\n\n"
        + describe(f"python -m benchmarks.prediction --trials {trials}")
        + f" {len(workspace.grid)} studies, load before {load():.1f}.\n\n"
        + "| | predicted | measured | measured / predicted |\n|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=24)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text = measure(Path(name), given.trials)
    publish(text, given.out)


if __name__ == "__main__":
    main()
