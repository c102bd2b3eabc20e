"""Where workers run: processes of this machine, jobs of a cluster's scheduler, or whatever a Dask scheduler already has.

Each worker does one thing at a time, with the threads of its cores, and has one GPU at most. What coordinator and workers
tell each other is encrypted, and each proves by a certificate made for this one search that it belongs to it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuner.errors import EnvironmentFailure, InputError, unknown

if TYPE_CHECKING:
    from studies.config.experiment import Experiment
    from studies.config.keys import ClusterConfig

JOBS = ("slurm", "pbs", "lsf", "sge")
"""Schedulers of jobs."""

GPU_DIRECTIVES = {"slurm": "--gres=gpu:1", "lsf": "-gpu num=1", "sge": "-l gpu=1"}
"""How a job says that it needs a GPU; another way goes into ``cluster.directives``, with ``cluster.gpus = 0``."""

DEATH_SECONDS = 30
"""How long a worker looks for its coordinator before it ends."""

START_SECONDS = 600
"""How long a worker of this machine may take to start: minutes, where it is busy or its libraries lie on a slow disk."""

WARNING_SECONDS = 120
"""So long before its walltime a job gives its round back."""

SETTINGS: dict[str, Any] = {
    # Memory is planned by `training.memory`; mapped features that Dask would count as used are no reason to stop.
    **{
        f"distributed.worker.memory.{at}": False for at in ("target", "spill", "pause", "terminate")
    },
    # By itself it looks a hundred times a second at what a worker's threads do, fifty times at whether its loops keep up,
    # and at disks and networks, in every process: a tenth of the processors where two workers share two cores.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # Tasks stay where they are sent, and there is one copy of each.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
"""What Dask is told, in the coordinator and in workers that are started here."""

NANNY = "distributed.nanny.pre-spawn-environ"
"""Variables that Dask sets before it starts a worker."""

UNSET = "MALLOC_TRIM_THRESHOLD_"
"""The one of them that it must not set: memory then goes back to the system at once, and training, which allocates the same
sizes at every step, has it cleared anew each time; where rounds are small 15 of 55 ms a trial."""


def job_variables() -> dict[str, str]:
    """All this as variables of the environment, quoted for a shell, for workers that are started by a job."""
    settings = SETTINGS | {NANNY: {UNSET: None}}
    names = {key: key.upper().replace(".", "__").replace("-", "_") for key in settings}
    return {f"DASK_{name}": shlex.quote(str(settings[key])) for key, name in names.items()}


@dataclass
class Place:
    """An open cluster.

    Attributes
    ----------
    cluster
        Dask's cluster, or the address of a scheduler.
    security
        Certificates, or None where the address says how.
    wanted
        Workers that there are to be; None where it is not ours to say.
    logs
        Folder of what workers write on standard error; None where it is not known.
    jobs
        Name of a worker to the number of its job.
    failed
        Why jobs could not be sent.
    """

    cluster: Any
    security: Any = None
    wanted: int | None = None
    logs: Path | None = None
    jobs: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def need_dask() -> None:
    """Refuse to go on without the extra ``cluster``.

    Raises
    ------
    EnvironmentFailure
        Naming what to install.
    """
    missing = [
        package
        for package in ("distributed", "dask_jobqueue", "cryptography")
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise EnvironmentFailure(
            f"--on: {missing[0]} is not installed; pip install 'cortex-tuner[cluster]'"
        )


def check(on: str, workers: int | None) -> None:
    """Refuse what no workers can be had from.

    Raises
    ------
    InputError
        Naming the option.
    """
    if "://" in on:
        if not on.startswith(("tcp://", "tls://")):
            raise InputError(f"--on: {on} must begin with tcp:// or tls://")
        if not _has_port(on):
            raise InputError(
                f"--on: {on} must name host and port of a Dask scheduler, such as tcp://login1:8786"
            )
        if workers is not None:
            raise InputError(f"--workers: {on} has the workers that it has; remove the option")
    elif on not in ("local", *JOBS):
        raise unknown("--on", on, ["local", *JOBS, "tcp://HOST:PORT"])


def _has_port(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname and parts.port)
    except ValueError:
        return False


@contextlib.contextmanager
def open_place(on: str, workers: int | None, experiment: Experiment) -> Iterator[Place]:
    """Have workers while inside; they, and their jobs, end with it however it is left.

    Parameters
    ----------
    on
        ``local``, a scheduler of jobs, or a Dask scheduler's address.
    workers
        How many; where not given one a GPU, or one a core where there is none.

    Raises
    ------
    EnvironmentFailure
        If they cannot be had.
    """
    if "://" in on:
        yield Place(on)
        return
    import dask.config
    from distributed.security import Security

    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS | {f"{NANNY}.{UNSET}": None}))
        security = Security.temporary()
        if on == "local":
            place = _local(workers, security, stack)
        else:
            place = _jobs(on, workers or 1, experiment, security)
        stack.callback(place.cluster.close, timeout=20)
        yield place


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _local(workers: int | None, security: Any, stack: contextlib.ExitStack) -> Place:
    import dask.config
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = _gpus()
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    count = workers or gpus or cores
    folder = Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(prefix="tuner-", ignore_cleanup_errors=True)
        )
    )
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    common = {
        "nthreads": 1,
        "memory_limit": 0,
        "host": "127.0.0.1",
        "local_directory": str(folder),
        "security": security,
        "death_timeout": START_SECONDS,  # they end with this process in any case
        "preload": ["studies.cluster.log_file"],
    }

    def environment(number: int) -> dict[str, str]:
        out = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        out["TUNER_WORKER_LOG"] = str(folder / f"{number}.log")
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            here = [one for one in visible if one] or [str(i) for i in range(gpus)]
            out["CUDA_VISIBLE_DEVICES"] = here[number % len(here)]
        return out

    quiet = {f"{NANNY}.DASK_LOGGING__DISTRIBUTED": "warning"}
    stack.enter_context(dask.config.set(quiet))  # for as long as workers may be started anew
    try:
        cluster = SpecCluster(
            scheduler={
                "cls": Scheduler,
                "options": {
                    "host": "127.0.0.1",
                    "protocol": "tls://",
                    "security": security,
                    "dashboard": has_dashboard(),
                    "dashboard_address": "127.0.0.1:0",
                },
            },
            workers={
                i: {"cls": Nanny, "options": {**common, "env": environment(i)}}
                for i in range(count)
            },
            security=security,
            silence_logs="CRITICAL",
        )
    except (RuntimeError, AssertionError, OSError) as error:  # as Dask says that a start failed
        raise EnvironmentFailure(
            f"--on local: workers of this machine do not start within {START_SECONDS} s "
            f"({type(error).__name__}); try --workers 1, or without --on"
        ) from error
    return Place(cluster, security, count, folder)


def has_dashboard() -> bool:
    """Whether what Dask's dashboard needs is installed."""
    return importlib.util.find_spec("bokeh") is not None


def _jobs(on: str, workers: int, experiment: Experiment, security: Any) -> Place:
    from distributed.deploy.spec import ProcessInterface

    cluster_class, jobs = job_classes()
    asked = experiment.cluster
    folder = experiment.folder / "cluster"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(
            f"{folder}: cannot be made for the logs of jobs: {error.strerror}; make the folder of "
            "the config file writable"
        ) from error
    failed: list[str] = []
    job: Any = jobs[on]

    class Sent(job):  # type: ignore[misc]
        """A job that says why it could not be sent."""

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                # Not raised, for Dask would print it, twice: whoever looks at `failed` says it in a line.
                failed.append(" ".join(str(error).split())[-300:])
                await ProcessInterface.start(self)

        async def close(self) -> None:
            await super().close()
            await ProcessInterface.close(self)

    cluster = cluster_class(
        job_cls=Sent,
        name=on,
        security=security,
        shared_temp_directory=str(folder),
        scheduler_options={"dashboard": has_dashboard(), "dashboard_address": ":0", "port": 0},
        silence_logs="critical",
        **job_options(on, asked, folder),
    )
    cluster.scale(jobs=workers)
    return Place(cluster, security, workers, folder, failed=failed)


def job_classes() -> tuple[Any, dict[str, Any]]:
    """The class of clusters of jobs, and that of each scheduler's jobs; Ctrl-C goes on meaning what it meant.

    Importing dask-jobqueue sets a handler by which Ctrl-C ends the process at once, with exit code 0.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import JobQueueCluster
        from dask_jobqueue.lsf import LSFJob
        from dask_jobqueue.pbs import PBSJob
        from dask_jobqueue.sge import SGEJob
        from dask_jobqueue.slurm import SLURMJob
    finally:
        signal.signal(signal.SIGINT, before)
    return JobQueueCluster, {"slurm": SLURMJob, "pbs": PBSJob, "lsf": LSFJob, "sge": SGEJob}


def job_options(on: str, asked: ClusterConfig, folder: Path) -> dict[str, Any]:
    """What dask-jobqueue is told of each job."""
    lifetime = max(60, asked.walltime_seconds - WARNING_SECONDS)
    gpu = [GPU_DIRECTIVES[on]] if asked.gpus and on in GPU_DIRECTIVES else []
    threads = [f"export {name}={asked.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    out: dict[str, Any] = {
        "cores": asked.cores,
        "processes": 1,
        "memory": f"{asked.memory}B",
        "walltime": asked.walltime,
        "interface": asked.interface,
        "death_timeout": DEATH_SECONDS,
        "log_directory": str(folder),
        "job_name": "tuner",
        "job_extra_directives": [*gpu, *asked.directives],
        "job_script_prologue": [
            *asked.setup,
            *threads,
            *(f"export {name}={value}" for name, value in job_variables().items()),
        ],
        # One round at a time, with all of the job's cores.
        "worker_extra_args": ["--nthreads", "1", "--lifetime", f"{lifetime}s"],
        "local_directory": "${TMPDIR:-/tmp}",
    }
    if asked.queue is not None:
        out["queue"] = asked.queue
    if asked.account is not None:
        out["project" if on in ("lsf", "sge") else "account"] = asked.account
    if on == "pbs":
        megabytes = asked.memory // 10**6
        gpus = f":ngpus={asked.gpus}" if asked.gpus else ""
        out["resource_spec"] = f"select=1:ncpus={asked.cores}:mem={megabytes}mb{gpus}"
    return out
