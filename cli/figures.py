"""``tuner export``, one command more: ``figures``, what was searched and how models compare, for print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.export import app, opened, out_option, written
from cli.options import example
from cli.selectors import selects
from cli.show import note


@app.command("figures")
@selects
@example(
    "tuner export figures -o results --region V4",
    "tuner export figures -o results --only best_layer_by_region --metric feve",
    "tuner export figures -o results --theme dark --width double",
    "tuner export figures -o best.svg --only best_layer_by_region",
)
def figures(
    out: Annotated[Path, out_option(".png", ".svg")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this figure; repeatable: curves, importance, slices, weights, "
            "units_by_readout, units_by_layer, best_layer_by_region.",
            metavar="FIGURE",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Score that is compared, such as feve; test correlation where not given, validation correlation "
            "without test images.",
            metavar="COLUMN",
        ),
    ] = None,
    theme: Annotated[Literal["light", "dark"], typer.Option(help="Colours.")] = "light",
    width: Annotated[
        Literal["single", "double"] | None,
        typer.Option(
            help="Of a journal's columns, 85 or 180 mm; as the content asks if not given."
        ),
    ] = None,
) -> None:
    """Draw figures for print, of each study and of regions.

    Per study: learning curves, hyperparameter importance, slices, weights. Per region: units by readout and by layer.
    And the best layer against region. Each is written as PNG and SVG, those of a study to OUT/STUDY. Where but one is
    chosen, -o NAME.png or NAME.svg writes that one.
    """
    from studies.export.figures import export_figures

    with opened() as (workspace, stores, specs):
        drawn = export_figures(
            workspace,
            stores,
            specs,
            out,
            only=only or (),
            metric=metric,
            theme=theme,
            width=width,
        )
    written(drawn.paths)
    for line in drawn.notes():
        note(line)
