"""``--on`` and ``--workers``: commands that have workers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cli.show import note

if TYPE_CHECKING:
    from studies.cluster.engine import Engine
    from studies.export.encoders import Encoding
    from studies.results.scores import Scorer
    from studies.workspace import Workspace

OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Have workers compute: local, slurm, pbs, lsf, sge, or tcp://HOST:PORT of a Dask scheduler.",
        metavar="WHERE",
    ),
]

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="How many, with --on; local: one a GPU or core where not given.",
        metavar="W",
    ),
]


def check_workers(on: str | None, workers: int | None) -> None:
    """Refuse what no workers can be had from.

    Raises
    ------
    InputError
        Naming the option.
    """
    from tuner.errors import InputError

    if on is not None:
        from studies.cluster.places import check

        check(on, workers)
    elif workers is not None:
        raise InputError("--workers: says how many workers --on has; give that too")


@contextmanager
def engine_of(on: str, workers: int | None, workspace: Workspace) -> Iterator[Engine]:
    """Have workers while inside; says where Dask's dashboard is."""
    from studies.cluster.engine import open_engine
    from studies.cluster.supplied import SuppliedEngine

    with open_engine(on, workers, workspace.experiment) as engine:
        if engine.dashboard is not None:
            note(f"Dask's dashboard: {engine.dashboard}")
        else:
            note("Dask's dashboard is not shown: pip install bokeh")
        yield SuppliedEngine(engine, workspace.experiment, note)


@contextmanager
def scoring(workspace: Workspace, on: str | None, workers: int | None) -> Iterator[Scorer]:
    """Who scores studies: this process, or workers."""
    from studies.results.scores import score_here

    check_workers(on, workers)
    if on is None:
        yield score_here
        return
    from studies.cluster.exports import scores_on

    with engine_of(on, workers, workspace) as engine:
        yield partial(scores_on, engine, note)


@contextmanager
def encoding(workspace: Workspace, on: str | None, workers: int | None) -> Iterator[Encoding]:
    """Who makes encoders: this process, or workers."""
    from studies.export.encoders import encode_here

    check_workers(on, workers)
    if on is None:
        yield encode_here
        return
    from studies.cluster.exports import encoders_on

    with engine_of(on, workers, workspace) as engine:
        yield partial(encoders_on, engine, note)
