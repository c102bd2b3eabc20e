"""The workers as the coordinator knows them: who lives, what each was given, what came back."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from studies.cluster.places import Place, need_dask, open_place
from studies.cluster.worker import work
from studies.config.experiment import Experiment
from tuner.errors import EnvironmentFailure

TOPIC = "tuner"

FETCH_SECONDS = 5.0
"""After this time it is looked whether the worker whose answer is fetched still lives; then after twice as long."""

_STATUS = {
    "slurm": ["squeue", "-h", "-o", "%T", "-j"],
    "pbs": ["qstat"],
    "lsf": ["bjobs", "-noheader"],
    "sge": ["qstat", "-j"],
}
"""How it is asked whether a job is still there: a failure, or nothing said, means that it is not."""


@dataclass(frozen=True)
class Ended:
    """A task that ended: with an answer, with an error, or with neither where its worker was lost."""

    key: str
    answer: bytes | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Heard:
    """What a worker told while it worked on a task."""

    key: str
    said: dict[str, Any]


class Engine(Protocol):
    """Workers that do tasks, one at a time each."""

    @property
    def wanted(self) -> int | None:
        """Workers that there are to be; None where there are those that there are."""
        ...

    def living(self) -> dict[str, str]:
        """Address to name of the workers that take tasks now; a lost one of ours is replaced meanwhile."""
        ...

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        """Give a worker something to do; returns the task's key."""
        ...

    def drop(self, key: str) -> None:
        """Forget a task; what comes of it is not told any more."""
        ...

    def hear(self, seconds: float) -> Ended | Heard | None:
        """What happens next, if anything does within so many seconds."""
        ...

    def last_words(self, name: str) -> str:
        """What a worker wrote last on standard error, in one line; empty where nobody knows."""
        ...


def _task(kind: str, experiment: bytes, task: bytes, key: str) -> bytes:
    """What Dask runs on a worker."""
    from distributed import get_worker

    def send(said: dict[str, Any]) -> None:
        get_worker().log_event(TOPIC, {"key": key, "said": said})

    return work(kind, experiment, task, send)


class DaskEngine:
    """Workers of a Dask cluster.

    Parameters
    ----------
    place
        The open cluster.
    on
        What it is, as the person named it.
    client
        Dask's client of it.
    """

    def __init__(self, place: Place, on: str, client: Any) -> None:
        self._place = place
        self._on = on
        self._client = client
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._given: dict[str, tuple[Any, str]] = {}  # key to future and the address of its worker
        self._numbers = itertools.count()
        self._looked = 0
        client.subscribe_topic(TOPIC, lambda event: self._inbox.put(event[1]))

    @property
    def wanted(self) -> int | None:
        """Workers that there are to be; None where the scheduler has its own."""
        return self._place.wanted

    @property
    def dashboard(self) -> str | None:
        """Address of Dask's own dashboard, where what it needs is installed."""
        from studies.cluster.places import has_dashboard

        return str(self._client.dashboard_link) if has_dashboard() else None

    def living(self) -> dict[str, str]:
        """Address to name of the workers that take tasks now; lost ones of ours are replaced meanwhile."""
        try:
            known = self._client.scheduler_info(n_workers=-1)["workers"]  # some releases say 5
        except OSError as error:
            raise EnvironmentFailure(
                f"--on {self._on}: the scheduler is not there any more ({error}); run the command again"
            ) from error
        self._replace(len(known))
        return {
            address: str(worker["name"])
            for address, worker in known.items()
            if worker["status"] == "running"
        }

    def _replace(self, there: int) -> None:
        """Have lost workers replaced, and notice jobs that end before a worker comes up."""
        place = self._place
        if place.wanted is None:
            return
        if place.failed:
            raise EnvironmentFailure(
                f"--on {self._on}: a job could not be sent: {place.failed[0]}; see [cluster] in the "
                "config file"
            )
        for name, job in list(place.cluster.workers.items()):
            if getattr(job, "job_id", None) is not None:
                place.jobs[str(name)] = str(job.job_id)
        if there < place.wanted:
            place.cluster.scale(place.wanted)
            self._looked += 1
            if there == 0 and place.jobs and self._looked % 20 == 0:
                self._refuse_dead_jobs()

    def _refuse_dead_jobs(self) -> None:
        jobs = self._place.jobs
        if self._on in _STATUS and not any(self._waits(job) for job in jobs.values()):
            name = list(jobs)[-1]
            raise EnvironmentFailure(
                f"--on {self._on}: jobs end before a worker comes up; the last one wrote: "
                f"{self.last_words(name) or 'nothing'}"
            )

    def _waits(self, job: str) -> bool:
        try:
            done = subprocess.run(
                [*_STATUS[self._on], job], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return True
        return done.returncode == 0 and bool(done.stdout.strip())

    def give(self, address: str, kind: str, experiment: bytes, task: bytes) -> str:
        """Give a worker something to do; returns the task's key."""
        key = f"{kind}-{next(self._numbers)}"
        future = self._client.submit(
            _task,
            kind,
            experiment,
            task,
            key,
            key=f"{TOPIC}-{self._client.id}-{key}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
        )
        self._given[key] = future, address
        future.add_done_callback(partial(self._ended, key))
        return key

    def _ended(self, key: str, future: Any) -> None:
        self._inbox.put((key, future))

    def drop(self, key: str) -> None:
        """Forget a task; what comes of it is not told any more."""
        if key in self._given:
            future, _ = self._given.pop(key)
            future.cancel()

    def hear(self, seconds: float) -> Ended | Heard | None:
        """What happens next, if anything does within so many seconds."""
        try:
            came = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(came, dict):
            return Heard(came["key"], came["said"]) if came["key"] in self._given else None
        key, future = came
        if key not in self._given:
            return None  # dropped
        _, address = self._given.pop(key)
        return self._outcome(key, future, address)

    def _outcome(self, key: str, future: Any, address: str) -> Ended:
        from distributed import KilledWorker

        if future.status == "finished":
            return Ended(key, answer=self._fetched(future, address))
        error = future.exception() if future.status == "error" else None
        return Ended(key) if isinstance(error, KilledWorker) else Ended(key, error=error)

    def _fetched(self, future: Any, address: str) -> bytes | None:
        """The answer; None where its worker went before it was fetched, which Dask would wait for without end."""
        patience = FETCH_SECONDS
        while True:
            try:
                answer: bytes = future.result(timeout=patience)
            except TimeoutError:
                there = address in self._client.scheduler_info(n_workers=-1)["workers"]
                if not there or future.status != "finished":
                    future.cancel()
                    return None
                patience *= 2
            except OSError:
                return None
            else:
                return answer

    def last_words(self, name: str) -> str:
        """What a worker wrote last on standard error, in one line; empty where nobody knows."""
        logs, job = self._place.logs, self._place.jobs.get(name, name)
        if logs is None:
            return ""
        pattern = f"*{job}.err" if self._on == "slurm" else f"*{job}*"
        found = sorted((path for path in logs.glob(pattern) if path.is_file()), key=_changed)
        return _tail(found[-1]) if found else ""


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _tail(path: Path) -> str:
    """The last lines of a file, as one."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").splitlines()
        told = [line.strip() for line in lines if line.strip() and " - INFO - " not in line]
        return " | ".join(told)[-400:]
    return ""


@contextlib.contextmanager
def open_engine(on: str, workers: int | None, experiment: Experiment) -> Iterator[DaskEngine]:
    """Have workers while inside.

    Parameters
    ----------
    on
        Where: ``local``, ``slurm``, ``pbs``, ``lsf``, ``sge``, or the address of a Dask scheduler.
    workers
        How many.
    experiment
        Its ``[cluster]`` says what each is given.

    Raises
    ------
    EnvironmentFailure
        If they cannot be had.
    """
    need_dask()
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with open_place(on, workers, experiment) as place:
        try:
            client = Client(place.cluster, timeout=20, set_as_default=False, **_how(place))
        except (OSError, TimeoutError, ValueError) as error:
            raise EnvironmentFailure(
                f"--on {on}: no Dask scheduler answers ({error}); start one with 'dask scheduler'"
            ) from error
        try:
            yield DaskEngine(place, on, client)
        finally:
            client.close(timeout=5)


def _how(place: Place) -> dict[str, Any]:
    """How a client reaches workers: those of ours give their answers to it directly, not by way of the scheduler."""
    if place.security is None:
        return {}
    return {"security": place.security, "direct_to_workers": True}
