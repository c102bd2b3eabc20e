"""``tuner stimuli``: images for the rig, and recorded responses against their predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.export import (
    OutOption,
    SeedOption,
    StepsOption,
    opened,
    written,
)
from cli.options import example
from cli.selectors import selects
from cli.show import note
from cli.units import UnitsOption, unit_list

app = typer.Typer(no_args_is_help=True)


@app.command("export")
@selects
@example(
    "tuner stimuli export -o session --layer features.19 --region V4 --readout factorized",
    "tuner stimuli export -o session --region V1 --size 500 --pixels-per-degree 28.9 --centred",
)
def export_command(
    out: OutOption,
    units: UnitsOption = None,
    size: Annotated[
        int,
        typer.Option(
            min=0, help="Side of the full image on the screen, pixels; 0: as fitted.", metavar="PX"
        ),
    ] = 0,
    pixels_per_degree: Annotated[
        float,
        typer.Option(
            "--pixels-per-degree", min=0, help="Of the screen; 0: not known.", metavar="PX"
        ),
    ] = 0.0,
    centred: Annotated[
        bool, typer.Option("--centred", help="Cut images out around each receptive field.")
    ] = False,
    blocks: Annotated[
        int, typer.Option(min=1, help="How often each image is shown.", metavar="N")
    ] = 20,
    natural: Annotated[
        int, typer.Option(min=0, help="Per unit: best and worst natural images each.", metavar="N")
    ] = 1,
    others: Annotated[
        int, typer.Option(min=0, help="Per unit: images of other units.", metavar="N")
    ] = 2,
    noise: Annotated[
        int, typer.Option(min=0, help="Per unit: noise images of equal contrast.", metavar="N")
    ] = 1,
    scrambled: Annotated[
        int, typer.Option(min=0, help="Per unit: phase-scrambled images.", metavar="N")
    ] = 1,
    patches: Annotated[
        int,
        typer.Option(
            min=0,
            help="Per unit: natural patches inside the field, and as many scrambled.",
            metavar="N",
        ),
    ] = 1,
    match: Annotated[
        str,
        typer.Option(help="Where mean and contrast are equal: field or image.", metavar="WHERE"),
    ] = "field",
    prior: Annotated[
        str, typer.Option(help="How images are written: fft, pixel, cppn.", metavar="PRIOR")
    ] = "fft",
    steps: StepsOption = 200,
    contrast: Annotated[
        float,
        typer.Option(
            help="Root-mean-square contrast of images, intensities being 0 to 1.", metavar="C"
        ),
    ] = 0.1,
    mean: Annotated[
        float, typer.Option(help="Mean of images and background, 0 to 1.", metavar="M")
    ] = 0.5,
    ensemble: Annotated[
        int,
        typer.Option(min=1, help="Make images for the mean of so many best trials.", metavar="K"),
    ] = 1,
    variants: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Most exciting images per unit.", metavar="V"),
    ] = 1,
    seed: SeedOption = 0,
) -> None:
    """Write a plain folder for the rig: images, controls, their order, and what every unit is predicted to do.

    README.txt there says how to show them; manifest.csv has a row per image.
    """
    from studies.export.stimuli import export_stimuli
    from tuner.synthesis.mei import MeiSettings
    from tuner.synthesis.stimuli.choice import Choice
    from tuner.synthesis.stimuli.placement import Match, Placement, Rig

    settings = MeiSettings(
        prior=prior,
        steps=steps,
        contrast=contrast,
        mean=mean,
        variants=variants,
        seed=seed,
        match=match,
    )
    choice = Choice(
        natural=natural,
        others=others,
        noise=noise,
        scrambled=scrambled,
        patches=patches,
        seed=seed,
    )
    placement: Placement = "centred" if centred else "full"
    where: Match = "image" if match == "image" else "field"
    rig = Rig(size=size, pixels_per_degree=pixels_per_degree, placement=placement, match=where)
    with opened() as (workspace, stores, specs):
        path = export_stimuli(
            workspace,
            stores,
            specs,
            out,
            settings,
            choice,
            rig,
            blocks=blocks,
            ensemble=ensemble,
            units=unit_list(units, workspace.recording),
            say=note,
        )
    written([path])
    note(
        f"show them as {path / 'README.txt'} says; then: tuner stimuli score {path} RECORDED -o OUT"
    )


@app.command("score")
@example("tuner stimuli score session recorded.csv -o scores")
def score_command(
    folder: Annotated[Path, typer.Argument(help="What `stimuli export` wrote.", metavar="FOLDER")],
    recorded: Annotated[
        Path,
        typer.Argument(
            help="Responses: a CSV (image, repeat, a column per unit headed by #INDEX or its name) or a generic HDF5 "
            "recording.",
            metavar="RECORDED",
        ),
    ],
    out: OutOption,
) -> None:
    """Compare recorded responses with what was predicted: tables and figures.

    Writes summary.csv (a row per study, also printed as a sentence), prediction.csv, preference.csv and selectivity.csv, and
    a figure each.
    """
    from studies.export.stimuli import score_stimuli

    written(score_stimuli(folder, recorded, out, note))
