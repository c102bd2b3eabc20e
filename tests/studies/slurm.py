"""A SLURM of one node on this machine: munged, slurmctld and slurmd of Debian's packages, their state in a folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")


def missing() -> str | None:
    """Why there can be no SLURM here, or None."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    gone = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if gone:
        return f"{gone[0]} is not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "slurmd needs to be root to start jobs"


def _port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def _configuration(folder: Path, cores: int) -> str:
    host = socket.gethostname().split(".")[0]
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={_port()}
SlurmdPort={_port()}
SlurmUser={getpass.getuser()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SchedulerParameters=batch_sched_delay=0,sched_interval=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def server(folder: Path, cores: int = 2) -> Iterator[dict[str, str]]:
    """Run it while inside; yields the environment in which its commands reach it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(_configuration(folder, cores))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]),
    }
    commands = [
        [
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
            *(f"--key-file={key}", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        ],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                running.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=folder)
                )
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), running, folder)
        _wait(lambda: "idle" in _said(["sinfo", "-h", "-o", "%t"], environment), running, folder)
        yield environment
    finally:
        subprocess.run(
            ["scancel", "--user", getpass.getuser()], env=environment, check=False, timeout=20
        )
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=20
    ).stdout


def _wait(ready, running: list[subprocess.Popen[bytes]], folder: Path) -> None:
    for _ in range(300):
        if ready():
            return
        if any(process.poll() is not None for process in running):
            break
        time.sleep(0.1)
    # A container may forbid what its daemons need: that says nothing about the search.
    pytest.skip(f"SLURM does not start here: {_logs(folder)}")


def _logs(folder: Path) -> str:
    logs = [*folder.glob("*.log"), *folder.glob("*.out")]
    return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-500:]}" for path in logs)


def jobs(environment: dict[str, str]) -> list[str]:
    """Numbers of the jobs that wait or run."""
    return _said(["squeue", "-h", "-o", "%i"], environment).split()
