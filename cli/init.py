"""``tuner init``: a config file to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.options import example
from cli.show import note, write
from tuner.errors import InputError

FILE = "tuner.toml"


@example("tuner init my-experiment", "tuner init things --template tvsd")
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write tuner.toml.", metavar="DIR")],
    template: Annotated[
        str,
        typer.Option(
            help="What to start from: hdf5, your own data in one file; tvsd, the macaque recordings of that name; demo, "
            "a simulated recording.",
            metavar="NAME",
        ),
    ] = "hdf5",
) -> None:
    """Write a commented tuner.toml."""
    from studies.config.templates import read_template

    text = read_template(template)
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: a file is in its place; name another folder") from None
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{path}: exists and is left as it is; name another folder, or remove it first"
        ) from None
    write(f"wrote {path}")
    if template != "demo":
        note(f"edit it:              the lines marked CHANGE in {path}")
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    if template == "demo":
        note(f"run it all:           tuner demo {shlex.quote(str(folder))}")
    else:
        note(f"then see your data:   {there}tuner data inspect")
    note(f"plan the search:      {there}tuner study create --dry-run")
