"""``[cluster]``: what is asked of a cluster's scheduler for each worker. Nothing of it changes results."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from studies.config.keys.table import Table
from studies.config.values import Name, Size


def _walltime(text: str) -> str:
    if not re.fullmatch(r"(\d+-)?\d{1,3}:[0-5]\d(:[0-5]\d)?", text):
        raise ValueError('must be hours and minutes, such as "08:00:00"')
    if not re.search("[1-9]", text):
        raise ValueError('must be longer than no time at all, such as "08:00:00"')
    return text


def _lines(value: object) -> object:
    """Take a list of texts, each of one line."""
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of texts, such as ["--constraint=a100"]')
    for line in value:
        if not isinstance(line, str) or not line.strip() or not line.isprintable():
            raise ValueError("must hold texts of one line each")
    return tuple(value)


def _folder(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError('must be a folder, such as "/scratch/$USER/tuner"')
    return text


Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]


class ClusterConfig(Table):
    """``[cluster]``: what each worker of ``tuner optimize --on`` is given; free to change at any time."""

    queue: Name | None = Field(None, description="the partition or queue that jobs are sent to")
    account: Name | None = Field(None, description="the account that jobs are charged to")
    walltime: Annotated[str, AfterValidator(_walltime)] = Field(
        "08:00:00",
        description="how long a job may run; its round is given back two minutes before, and another "
        "job is sent",
    )
    memory: Size = Field(
        "16GB",  # type: ignore[assignment]  # checked like what is written
        description="memory of a job",
        json_schema_extra={"words": 'size, such as "16GB"'},
    )
    cores: int = Field(
        4, ge=1, le=4096, description="cores of a job, and threads that it computes with"
    )
    gpus: int = Field(0, ge=0, le=1, description="GPUs of a job: a worker uses one")
    directives: Lines = Field(
        (),
        description="further options of the job, as its scheduler knows them, such as "
        "--constraint=a100",
        json_schema_extra={"words": "list of texts"},
    )
    setup: Lines = Field(
        (),
        description="shell commands before the worker starts, such as module load cuda",
        json_schema_extra={"words": "list of texts"},
    )
    interface: Name | None = Field(
        None,
        description="the network interface by which the machines reach each other, such as ib0",
    )
    cache: Annotated[str, AfterValidator(_folder)] | None = Field(
        None,
        description="folder of extracted features on a disk of each machine's own, and of the recording "
        "where the machine does not see it; environment variables are those of the machine; where not "
        "given storage.cache",
    )

    @property
    def walltime_seconds(self) -> int:
        """The walltime in seconds."""
        days, _, clock = self.walltime.rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        parts += [0] * (3 - len(parts))
        return int(days or 0) * 86_400 + parts[0] * 3600 + parts[1] * 60 + parts[2]
