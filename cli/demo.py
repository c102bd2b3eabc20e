"""``tuner demo``: the tour, init to images, by the commands that a person would type."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.init import FILE
from cli.options import example
from cli.show import note, write

TRIALS = 16

PICTURES = (("V1", "_blocks.2"), ("V4", "_blocks.4"), ("IT", "_blocks.15"))
"""Region, and the layer whose factorized readout shows what its units want."""

MEI_STEPS = 80


@example("tuner demo", "tuner demo my-demo")
def demo(
    folder: Annotated[
        Path, typer.Argument(help="Where to work; made if need be.", metavar="DIR")
    ] = Path("demo"),
) -> None:
    """Run the whole job on embedded data: the tour.

    Writes a config file, creates the studies, searches, exports. Run again, it goes on where it was.
    """
    start = time.monotonic()
    config, out = folder / FILE, folder / "results"
    if not config.exists():
        _step("init", folder, "--template", "demo")
    chosen = ("-c", config)
    _step("study", "create", *chosen)
    _step("optimize", "--n-trials", TRIALS, *chosen)
    _step("export", "heatmap", "-o", out, *chosen)
    for region, layer in PICTURES:
        study = ("--region", region, "--layer", layer, "--readout", "factorized")
        _step("export", "mei", "-o", out, *study, "--steps", MEI_STEPS, *chosen)
    _step("export", "best", "-o", out, *chosen)
    _step("export", "report", "-o", out, *chosen)

    write("")
    write(f"The demo took {time.monotonic() - start:.0f} s. Look at:")
    studies = out / "efficientnet_lite0"
    look = {
        "which layer explains which region": out / "heatmap.png",
        **{
            f"what {region} units want to see": studies / layer / region / "factorized/sheet.png"
            for region, layer in PICTURES
        },
        "all of it on one page": out / "report.html",
        "the search itself": f"tuner dashboard -c {config}",
    }
    for what, where_it_is in look.items():
        write(f"  {what:<35} {where_it_is}")
    write(
        "All of it is simulated: it shows that known answers are found, and nothing about brains."
    )


def _step(*words: object) -> None:
    """Show a command, and run it as if it had been typed."""
    from cli.main import run

    arguments = [str(word) for word in words]
    note(f"\n$ tuner {shlex.join(arguments)}")
    run(arguments)
