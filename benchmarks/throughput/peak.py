"""Peak memory of one contender above what the imports take, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.throughput.problem import Problem

CONTENDERS = ("expert", "compiled", "eager")


def high_water() -> int:
    """Peak resident bytes of this process."""
    return _status("VmHWM")


def resident() -> int:
    """Resident bytes of this process."""
    return _status("VmRSS")


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peaks(problem: Problem) -> dict[str, int]:
    """Peak bytes of each contender in an interval; features included, as each keeps them. Empty where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"region{i}": units for i, units in enumerate(problem.regions)}
        path = Path(folder) / "problem.npz"
        np.savez(path, half=problem.half, targets=problem.targets, **arrays)
        rest = json.dumps([problem.readout, problem.validation, problem.trials])
        found = {}
        for contender in CONTENDERS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.throughput.peak",
                contender,
                str(path),
                rest,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[contender] = int(done.stdout.split()[-1])
    return found


def _child(contender: str, path: str, rest: str) -> int:
    """Bytes above the imports; half-precision features count for the contender that keeps them."""
    from benchmarks.throughput.expert import Expert, variants

    readout, validation, trials = json.loads(rest)
    baseline = resident()
    with np.load(path, allow_pickle=False) as file:
        regions = [file[name] for name in sorted(file.files) if name.startswith("region")]
        problem = Problem(readout, file["half"], file["targets"], validation, regions, trials)
    if contender == "expert":
        baseline = resident()
        expert = Expert(problem, variants(readout, 2)[-1])
        expert.interval(*expert.begin(), steps=5)
    else:
        trainer = problem.trainer(compiled=contender == "compiled")
        state = trainer.start(problem.columns())
        for first in (0, 5):
            trainer.advance(state, first, first + 5)
            trainer.validate(state)
            state.remember(np.arange(len(state)))
    return high_water() - baseline


if __name__ == "__main__":
    print(_child(*sys.argv[1:]))
