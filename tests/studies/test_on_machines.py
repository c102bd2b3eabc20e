"""A search on real workers: processes of this machine, and jobs of a SLURM."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.main import main
from studies.cluster.engine import open_engine
from studies.cluster.places import (
    NANNY,
    SETTINGS,
    UNSET,
    job_classes,
    job_options,
    job_variables,
)
from studies.config.experiment import load_experiment
from studies.config.keys import ClusterConfig
from tests.conftest import Run
from tests.soak.outcome import look
from tests.studies import slurm
from tests.studies.conftest import MakeExperiment
from tests.studies.test_cluster import write_job
from tests.studies.workers import SMALL, TRIALS, created

ROOT = Path(__file__).parents[2]


LEAVING = """
from studies.cluster.engine import DaskEngine
given, left, give, hear = {}, [], DaskEngine.give, DaskEngine.hear
async def leave(dask_worker):
    await dask_worker.close_gracefully()  # as Dask does when a worker's lifetime is over
def giving(self, address, kind, experiment, task):
    key = give(self, address, kind, experiment, task)
    given[key] = address
    return key
def hearing(self, seconds):
    came = hear(self, seconds)
    if "training" in getattr(came, "said", ()) and not left:
        left.append(came)
        self._client.run(leave, workers=[given[came.key]], wait=False)
    return came
DaskEngine.give, DaskEngine.hear = giving, hearing
"""
"""Has the first worker that tells of a round leave as it does before its walltime is over."""


@contextmanager
def optimizing(
    config: Path, *words: str, environment: Mapping[str, str] | None = None, before: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run ``tuner optimize`` in a process of its own, after some other lines of Python."""
    program = f"{before}\nimport sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "optimize", "--n-trials", str(TRIALS)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*command, *words, "-c", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env={**(environment or os.environ), "PYTHONPATH": paths},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(process: subprocess.Popen[str], *wanted: str) -> list[str]:
    """Lines of standard error up to one that holds all of these words; all lines where none does."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if wanted and all(word in line for word in wanted):
            break
    return seen


def wait(until: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if until():
            return True
        time.sleep(0.1)
    return until()


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that compute: those that a process has spawned, and that have not ended meanwhile."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_processes_of_this_machine(
    make_experiment: MakeExperiment, alone: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = created(make_experiment(SMALL))
    with optimizing(config, "--on", "local", "--workers", "2") as process:
        seen = read_until(process, "worker ", "trials")
        assert any("Dask's dashboard" in line for line in seen)
        # Beside it, as from another terminal.
        assert main(["status", "--format", "json", "-c", str(config)]) == 0
        (status,) = json.loads(capsys.readouterr().out)
        assert status["counts"]["running"] > 0
        # Dask would have them give memory back at once, which training then waits for at every step.
        assert all("MALLOC_TRIM_THRESHOLD_" not in worker.environ() for worker in below(process))
        below(process)[0].kill()
        seen += read_until(process)
        assert process.wait(timeout=60) == 0, "".join(seen)
    found = look(config, TRIALS)
    assert not found.problems
    assert found.outcome == alone


def test_a_worker_that_leaves_before_its_time_is_over_loses_nothing(
    make_experiment: MakeExperiment, alone: Any
) -> None:
    config = created(make_experiment(SMALL))
    with optimizing(config, "--on", "local", "--workers", "2", before=LEAVING) as process:
        seen = read_until(process)
        assert process.wait(timeout=60) == 0, "".join(seen)
    assert any("was lost" in line for line in seen), "".join(seen)
    found = look(config, TRIALS)
    assert not found.problems
    assert found.outcome == alone


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SLURM; the environment in which its commands reach it."""
    reason = slurm.missing()
    if reason:
        pytest.skip(f"no SLURM: {reason}")
    with slurm.server(tmp_path_factory.mktemp("slurm") / "slurm") as environment:
        yield environment


@pytest.mark.slurm
def test_jobs_of_a_slurm(
    make_experiment: MakeExperiment, alone: Any, scheduler: dict[str, str]
) -> None:
    cluster = {"memory": "1GB", "cores": 1, "walltime": "00:10:00"}
    config = created(make_experiment({**SMALL, "cluster": cluster}))
    words = ("--on", "slurm", "--workers", "2")
    with optimizing(config, *words, environment=scheduler) as process:
        seen = read_until(process, "worker slurm", "trials")
        first = slurm.jobs(scheduler)[0]
        subprocess.run(["scancel", "--signal=KILL", first], env=scheduler, check=True)
        seen += read_until(process, "worker slurm", "100 %")
        assert process.poll() is None, "".join(seen)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # Nobody is left to cancel the jobs: they end by themselves.
    assert wait(lambda: not slurm.jobs(scheduler), 60), "".join(seen)
    with optimizing(config, *words, environment=scheduler) as process:
        seen = read_until(process)
        assert process.wait(timeout=60) == 0, "".join(seen)
    assert not slurm.jobs(scheduler)
    found = look(config, TRIALS)
    assert not found.problems
    assert found.outcome == alone


@pytest.mark.slurm
def test_the_array_script_of_the_documentation(
    make_experiment: MakeExperiment, alone: Any, scheduler: dict[str, str]
) -> None:
    config = created(make_experiment(SMALL))
    job = write_job(config, n_trials=TRIALS)
    # This machine has no GPU and two cores; options of the command come before those of the script.
    smaller = ["--array=1-2", "--gres=none", "--mem=100M", "--cpus-per-task=1", "--time=10"]
    environment = {**scheduler, "HOME": str(config.parent)}
    command = ["sbatch", "--parsable", *smaller, "--chdir", str(config.parent), str(job)]
    said = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, cwd=config.parent
    ).stdout
    logs = config.parent / "logs"

    def written() -> str:
        return "".join(path.read_text() for path in sorted(logs.glob("*.log")))

    # As before the limit; the other job goes on.
    assert wait(lambda: "trials run" in written(), 300), written()
    first = f"{said.strip()}_1"
    subprocess.run(["scancel", "--batch", "--signal=TERM", first], env=scheduler, check=False)
    assert wait(lambda: not slurm.jobs(scheduler), 300), written()
    found = look(config, TRIALS)
    assert not found.problems, written()
    assert found.outcome == alone


def test_the_dashboard_of_dask_answers(make_experiment: MakeExperiment) -> None:
    pytest.importorskip("bokeh", reason="Dask's dashboard needs bokeh")
    with open_engine("local", 1, load_experiment(make_experiment(SMALL))) as engine:
        assert engine.dashboard is not None
        with urllib.request.urlopen(engine.dashboard, timeout=30) as answer:
            assert answer.status == 200
            assert b"Dask" in answer.read()


def test_what_is_asked_of_each_scheduler_is_what_it_understands(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    _, jobs = job_classes()
    assert signal.getsignal(signal.SIGINT) is before
    asked = ClusterConfig(
        queue="long", account="lab", memory="2GB", cores=3, gpus=1, walltime="01:30:00"
    )
    wanted = {
        "slurm": ["-p long", "-A lab", "--cpus-per-task=3", "-t 01:30:00", "--gres=gpu:1"],
        "pbs": ["-q long", "-A lab", "select=1:ncpus=3:mem=2000mb:ngpus=1"],
        "lsf": ["-q long", '-P "lab"', "-n 3", "-gpu num=1"],
        "sge": ["-q long", "-P lab", "-l gpu=1"],
    }
    for on, parts in wanted.items():
        options = job_options(on, asked, tmp_path)
        script = jobs[on]("tls://here:1", name="w", **options).job_script()
        for part in [*parts, "export OMP_NUM_THREADS=3", "--lifetime 5280s"]:
            assert part in script, script


def test_jobs_tell_dask_what_it_is_to_leave() -> None:
    dask_config = pytest.importorskip("dask.config")
    told = {name: "".join(shlex.split(value)) for name, value in job_variables().items()}
    read = dask_config.collect_env(told)
    assert {key: dask_config.get(key, config=read) for key in SETTINGS} == SETTINGS
    assert dask_config.get(NANNY, config=read) == {UNSET: None}


def test_what_no_workers_can_be_had_from_is_refused(
    make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment()
    words = ("optimize", "--n-trials", "1", "-c", config)
    run(*words, "--on", "slrum").check_one_line_error(2, "--on", "slrum", "slurm")
    run(*words, "--workers", "2").check_one_line_error(2, "--workers", "--on")
    run(*words, "--on", "http://a").check_one_line_error(2, "--on", "tcp://")
    for address in ("tcp://login1", "tcp://:8786", "tcp://login1:x"):
        run(*words, "--on", address).check_one_line_error(2, f"--on: {address}", "host and port")
