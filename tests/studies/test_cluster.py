"""The array script of the documentation, as SLURM runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from cli.main import main
from tests.soak.outcome import look
from tests.studies.conftest import MakeExperiment

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "cluster.md"


def script() -> str:
    (found,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return found


def write_job(config: Path, n_trials: int = 50) -> Path:
    """Write the script beside an experiment, with the ``tuner`` that it runs."""
    folder = config.parent
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    tuner = bin_folder / "tuner"
    tuner.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PAGE.parents[1])!r})\n"
        "from cli.main import main\nsys.exit(main())\n"
    )
    tuner.chmod(0o755)
    (folder / ".tuner-db-password").write_text("x\n")
    (folder / "logs").mkdir()  # SLURM does not make it
    job = folder / "job.sh"
    job.write_text(script().replace("--n-trials 50", f"--n-trials {n_trials}"))
    return job


def test_the_script_answers_the_signal_before_the_limit(make_experiment: MakeExperiment) -> None:
    config = make_experiment({"training": {"steps": 3000, "report_every": 30}})
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    # B: the signal goes to the batch script's own process, which is tuner after exec.
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", script(), flags=re.MULTILINE)
    folder, job = config.parent, write_job(config)
    environment = os.environ | {
        "HOME": str(folder),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_CPUS_PER_TASK": "1",
    }
    process = subprocess.Popen(
        ["bash", str(job)], env=environment, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "trials run" in line:
            break
    time.sleep(0.2)
    begun = time.monotonic()
    process.terminate()
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 143, seen + rest
    process.stderr.close()
    assert time.monotonic() - begun < 60
    assert rest.splitlines()[-1] == "terminated"
    assert "run the same command again to go on" in rest
    states = {
        state for study in look(config, 50).outcome.values() for _, state, *_ in study["trials"]
    }
    assert "WAITING" in states
    assert "RUNNING" not in states
