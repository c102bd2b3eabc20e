"""``tuner data``: what is in a recording, and any supported format as the generic file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import example, experiment
from cli.progress import Progress
from cli.show import note, write
from tuner.errors import InputError

if TYPE_CHECKING:
    from studies.experiment import Experiment

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """See and convert recordings."""


@app.command()
@example(
    "tuner data convert -o recording.h5",
    "tuner data convert -o shared.h5 --embed",
    "tuner data convert -o both.h5 --join N=n/tuner.toml --join F=f/tuner.toml",
)
def convert(
    out: Annotated[Path, typer.Option("-o", help="The file to write.", metavar="OUT.h5")],
    embed: Annotated[
        bool, typer.Option("--embed", help="Write the images too, not only their paths.")
    ] = False,
    join: Annotated[
        list[str] | None,
        typer.Option(
            "--join",
            help="Join the recordings of these config files, on the same images, into one.",
            metavar="NAME=FILE",
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            help="Raw TVSD trials: the order of the channels, where it is not beside them.",
            metavar="FILE",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the config file's recording as one generic HDF5 file."""
    from studies.recording import join_experiments, open_for_conversion
    from tuner.recordings import write_recording

    if out.exists() and not force:
        raise InputError(f"{out}: exists; say --force to replace it, or name another file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    with Progress() as progress:
        if join:
            recording = join_experiments(_named(join), progress.update)
        else:
            recording = open_for_conversion(experiment(), mapping, progress.update)
        written = write_recording(recording, out, embed=embed, progress=progress.update)
    for line in recording.notes:
        note(f"note: {line}")
    write(f"wrote {written}")
    note(f'use it with format = "hdf5" and path = "{written}" under [data]')


def _named(pairs: list[str]) -> dict[str, Experiment]:
    """Read the config files given as ``NAME=FILE``."""
    from studies.experiment import load_experiment

    named: dict[str, Experiment] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise InputError(f"--join {pair}: must be NAME=FILE, such as N=monkeyN/tuner.toml")
        if name in named:
            raise InputError(f"--join {pair}: the name {name} is given twice")
        named[name] = load_experiment(file)
    return named
