"""``tuner demo``: the tour, init to images, by the commands that a person would type."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.options import Selection, example, settings
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
    from cli import export, init, optimize, study

    start = time.monotonic()
    config = folder / init.FILE
    if not config.exists():
        _step(f"tuner init {folder} --template demo")
        init.init(folder, "demo")
    settings().config = config
    where = f"-c {config}"
    out = folder / "results"

    _step(f"tuner study create {where}")
    study.create_command()
    _step(f"tuner optimize --n-trials {TRIALS} {where}")
    optimize.optimize(n_trials=TRIALS)
    _step(f"tuner export heatmap -o {out} {where}")
    export.heatmap(out)
    for region, layer in PICTURES:
        _step(
            f"tuner export mei -o {out} --region {region} --layer {layer} --readout factorized "
            f"--steps {MEI_STEPS} {where}"
        )
        settings().selection = Selection((), (layer,), (region,), ("factorized",))
        export.mei(out, steps=MEI_STEPS)
    settings().selection = Selection()
    _step(f"tuner export best -o {out} {where}")
    export.best(out)
    _step(f"tuner export report -o {out} {where}")
    export.report(out)

    write("")
    write(f"The demo took {time.monotonic() - start:.0f} s. Look at:")
    sheets = {
        f"what {region} units want to see": out
        / "efficientnet_lite0"
        / layer
        / region
        / "factorized"
        / "sheet.png"
        for region, layer in PICTURES
    }
    look = {
        "which layer explains which region": out / "heatmap.png",
        **sheets,
        "all of it on one page": out / "report.html",
        "the search itself": f"tuner dashboard -c {config}",
    }
    for what, where_it_is in look.items():
        write(f"  {what:<35} {where_it_is}")
    write(
        "All of it is simulated: it shows that known answers are found, and nothing about brains."
    )


def _step(command: str) -> None:
    note(f"\n$ {command}")
