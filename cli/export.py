"""``tuner export``: figures and tables, encoders, images, the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import example, experiment
from cli.progress import ProgressDisplay
from cli.selectors import select, selects
from cli.show import detail, note
from cli.units import UnitsOption, unit_list
from cli.workers import OnOption, WorkersOption, encoding, scoring
from studies.export.target import is_file
from studies.selection import Selection

if TYPE_CHECKING:
    from studies.database.stores import Stores
    from studies.grid import Spec
    from studies.workspace import Workspace

app = typer.Typer(no_args_is_help=True)


def out_option(*kinds: str) -> Any:
    """Declare ``-o``: a folder, or one file of these kinds; what is neither is refused before work begins."""

    def check(out: Path) -> Path:
        is_file(out, *kinds)
        return out

    files = f", or the one file NAME{' or NAME'.join(kinds)}" if kinds else ""
    return typer.Option(
        "-o",
        "--out",
        help=f"Folder to write to, made if need be{files}.",
        metavar="OUT",
        callback=check,
    )


OutOption = Annotated[Path, out_option()]

StepsOption = Annotated[
    int, typer.Option(min=1, max=10**6, help="Steps of gradient ascent.", metavar="N")
]

SeedOption = Annotated[
    int,
    typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is drawn.", metavar="SEED"),
]
"""No larger than what a manifest may say, so that images can be made again from theirs."""

ResplitOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Fit the best settings on so many other cuts, such as 5: how sure is the choice of layer?",
        metavar="K",
    ),
]

StackedOption = Annotated[
    bool,
    typer.Option("--stacked", help="Add all studies of a region together, as one encoder."),
]

FwrfOption = Annotated[
    bool,
    typer.Option(
        "--fwrf",
        help="Draw ridge readouts under a Gaussian mask a unit beside: the factorized readout in "
        "closed form.",
    ),
]

LocatedOption = Annotated[
    bool,
    typer.Option(
        "--located",
        help="Draw the closed form that searches start in beside: what is above it, the search has "
        "added. Time grows with the cube of the images.",
    ),
]

RandomOption = Annotated[
    bool,
    typer.Option(
        "--random", help="Draw ridge readouts of the same layers with random weights beside."
    ),
]

Opened = tuple["Workspace", "Stores", "list[Spec]"]
"""An experiment, its stores, and the selected studies that were created."""


@contextmanager
def opened(selection: Selection | None = None) -> Iterator[Opened]:
    """An experiment opened to export from, closed however it is left."""
    from studies.database.ghosts import left_out
    from studies.database.stores import as_made, open_stores
    from studies.database.studies import stored_studies
    from studies.workspace import Workspace
    from tuner.errors import InputError

    with ProgressDisplay() as bar:
        workspace = Workspace(as_made(experiment()), bar.update)
        with open_stores(workspace.experiment) as stores:
            created = stored_studies(stores.storage)
            chosen = select(workspace.grid, selection)
            specs = [spec for spec in chosen if spec.name in created]
            _, line = left_out(
                stores.storage, [spec.name for spec in chosen if spec.name not in created]
            )
            if line is not None:
                note(line)
            if not specs:
                raise InputError(
                    f"{workspace.experiment.file}: none of these studies was created; run "
                    "'tuner study create' first"
                )
            yield workspace, stores, specs


def written(paths: list[Path]) -> None:
    """Say what was written."""
    for path in paths[:20]:
        note(f"wrote {path}")
    if len(paths) > 20:
        note(f"and {len(paths) - 20} more")


@app.command("heatmap")
@selects
@example(
    "tuner export heatmap -o results",
    "tuner export heatmap -o results --metric feve --ridge --random",
    "tuner export heatmap -o sure --resplit 5",
)
def heatmap(
    out: Annotated[Path, out_option(".png", ".svg", ".csv")],
    metric: Annotated[
        str | None,
        typer.Option(
            help="Column of heatmap.csv that is drawn, such as feve; test correlation where not given, validation "
            "correlation without test images.",
            metavar="COLUMN",
        ),
    ] = None,
    ridge: Annotated[
        bool,
        typer.Option("--ridge", help="Draw closed-form ridge readouts of the same layers beside."),
    ] = False,
    fwrf: FwrfOption = False,
    located: LocatedOption = False,
    random: RandomOption = False,
    resplit: ResplitOption = 0,
    stacked: StackedOption = False,
    on: OnOption = None,
    workers: WorkersOption = None,
) -> None:
    """Show which layer explains which region.

    Writes heatmap.png and .svg, heatmap.csv (a row per study) and units.csv (a row per study and unit); with -o NAME.png,
    NAME.svg or NAME.csv that file alone. Further: references.csv of what is drawn beside; resplit.csv and best_layers of
    --resplit; nested.csv, what the choice of a layer is worth; unit_layers.csv, how sure each unit's is; networks of
    several backbones.
    """
    from studies.export.heatmap import export_heatmap

    wanted = {"ridge": ridge, "fwrf": fwrf, "located": located, "random": random}
    with opened() as (workspace, stores, specs), scoring(workspace, on, workers) as scorer:
        paths = export_heatmap(
            workspace,
            stores,
            specs,
            out,
            metric=metric,
            references=[name for name, drawn in wanted.items() if drawn],
            cuts=resplit,
            stacked=stacked,
            say=note,
            scorer=scorer,
        )
    written(paths)


@app.command("best")
@selects
@example("tuner export best -o encoders --region V4", "tuner export best -o encoders --per-unit")
def best(
    out: OutOption,
    per_unit: Annotated[
        bool,
        typer.Option(
            "--per-unit", help="For every unit its own best trial, shrunk towards the region's."
        ),
    ] = False,
    with_backbone: Annotated[
        bool,
        typer.Option("--with-backbone", help="Embed the backbone, up to the layer, in the file."),
    ] = False,
    stacked: Annotated[
        bool,
        typer.Option(
            "--stacked", help="One encoder of each region instead, over layers and readouts."
        ),
    ] = False,
    on: OnOption = None,
    workers: WorkersOption = None,
) -> None:
    """Write the best encoder of every study: OUT/STUDY/encoder.safetensors and encoder.json.

    Load one in Python: tuner.load_encoder("OUT/STUDY").
    """
    from studies.export.encoders import export_best
    from tuner.errors import InputError

    if stacked and per_unit:
        raise InputError("--stacked and --per-unit: say only one; a stack weighs studies by unit")
    if stacked and on is not None:
        raise InputError("--stacked and --on: stacks are made in this process; leave --on out")
    with opened() as (workspace, stores, specs), encoding(workspace, on, workers) as made:
        paths = export_best(
            workspace,
            stores,
            specs,
            out,
            per_unit=per_unit,
            with_backbone=with_backbone,
            stacked=stacked,
            encoding=made,
            say=note,
        )
    written(paths)


def prior_options(given: list[str]) -> dict[str, object]:
    """Options of a prior from ``KEY=VALUE``: numbers, shapes such as ``256,6,6``, else text."""
    from tuner.errors import InputError

    out: dict[str, object] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise InputError(f"--prior-option {item}: write KEY=VALUE, such as colour=0")
        if key in out:
            raise InputError(f"--prior-option {key}: is given twice")
        out[key] = _value(value)
    return out


def _value(text: str) -> object:
    for kind in (int, lambda t: [int(part) for part in t.split(",")], float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@app.command("mei")
@selects
@example(
    "tuner export mei -o images --layer features.19 --region V4 --readout factorized",
    "tuner export mei -o images --prior generator --prior-option path=deepsim.pt --prior-option code=4096",
)
def mei(
    context: typer.Context,
    out: OutOption,
    units: UnitsOption = None,
    prior: Annotated[
        str,
        typer.Option(help="How images are written: fft, pixel, cppn, generator.", metavar="PRIOR"),
    ] = "fft",
    prior_option: Annotated[
        list[str] | None,
        typer.Option(
            "--prior-option",
            help="An option of the prior; repeatable. fft, pixel: colour, ascent; fft: decay. generator: path of "
            "your network (TorchScript, or a state dict and its architecture), code, output, bounds.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    transforms: Annotated[
        str,
        typer.Option(help="What shakes them: jitter, lucent, predecessor, none.", metavar="NAME"),
    ] = "jitter",
    steps: StepsOption = 200,
    contrast: Annotated[
        float | None,
        typer.Option(
            help="Root-mean-square contrast that every image is held at, intensities being 0 to 1; 0.1 unless --norm is "
            "given.",
            metavar="C",
        ),
    ] = None,
    norm: Annotated[
        float | None,
        typer.Option(
            help="Instead of a contrast: the largest Euclidean norm of an image's deviation from its "
            "mean, intensities being 0 to 1.",
            metavar="NORM",
        ),
    ] = None,
    mean: Annotated[
        float, typer.Option(help="Mean that every image is held at, 0 to 1.", metavar="M")
    ] = 0.5,
    match: Annotated[
        str,
        typer.Option(
            help="Where mean and contrast are held: over the whole image, or inside each unit's receptive field, "
            "beyond which the image is grey: image, field.",
            metavar="WHERE",
        ),
    ] = "image",
    ensemble: Annotated[
        int,
        typer.Option(min=1, help="Make them for the mean of so many best trials.", metavar="K"),
    ] = 1,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Put the images to encoders that did not make them, beside the best natural image of equal mean and "
            "contrast, over the image and inside the receptive field: evaluation.csv, evaluation.json.",
        ),
    ] = False,
    variants: Annotated[
        int, typer.Option(min=1, max=1000, help="Images per unit.", metavar="V")
    ] = 1,
    seed: SeedOption = 0,
    manifest: Annotated[
        Path | None,
        typer.Option("--from", help="Make the images of a manifest.json again.", metavar="FILE"),
    ] = None,
) -> None:
    """Make most exciting images of every unit of the selected studies.

    Writes to OUT/STUDY a PNG per unit, sheet.png with what each is held against, meis.npz and manifest.json.
    """
    from studies.export.images import combination_of, export_images
    from tuner.synthesis.manifest import read_manifest
    from tuner.synthesis.mei import MeiSettings

    options = prior_options(prior_option or [])
    selection = again = None
    if manifest is not None:
        _refuse_beside_manifest(context)
        again = read_manifest(manifest, options)
        settings = again.settings
        selection = Selection(*((part,) for part in astuple(combination_of(again))))
    else:
        settings = MeiSettings(
            prior=prior,
            prior_options=options,
            transforms=transforms,
            steps=steps,
            contrast=0.1 if contrast is None and norm is None else contrast,
            norm=norm,
            mean=mean,
            match=match,
            variants=variants,
            seed=seed,
        )
    with opened(selection) as (workspace, stores, specs):
        chosen = unit_list(units, workspace.recording) if again is None else again.units
        paths = export_images(
            workspace,
            stores,
            specs,
            out,
            settings,
            units=chosen,
            ensemble_size=ensemble,
            again=again,
            evaluate=evaluate,
            say=note,
        )
    written(paths)
    for path in paths:
        if path.name == "evaluation.json":
            note(f"{path.parent}: {json.loads(path.read_text())['headline']}")
    detail("activations are those of the 8-bit images under the encoder that made them")


BESIDE_MANIFEST = ("out", "manifest", "evaluate", "prior_option", "config", "quiet", "verbose")
"""Options of ``export mei`` that mean something where a manifest says how images are made, and of which studies."""


def _refuse_beside_manifest(context: typer.Context) -> None:
    """Refuse options that would be passed over."""
    from tuner.errors import InputError

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in BESIDE_MANIFEST:
            option = parameter.opts[0]
            raise InputError(
                f"{option}: not with --from, whose manifest says it; remove it, or make new images without --from"
            )


@app.command("report")
@selects
@example("tuner export report -o results", "tuner export report -o page.html")
def report(
    out: Annotated[Path, out_option(".html")],
    fwrf: FwrfOption = False,
    located: LocatedOption = False,
    random: RandomOption = False,
    resplit: ResplitOption = 0,
    stacked: StackedOption = False,
    on: OnOption = None,
    workers: WorkersOption = None,
) -> None:
    """Write report.html, or the file that -o names: all results on one page.

    The page needs nothing else, not even a network.

    Closed-form ridge on the same layers is shown beside the studies.

    Images that `tuner export mei` wrote to the same folder are shown in it.
    """
    from studies.export.report.fill import export_report

    with opened() as (workspace, stores, specs), scoring(workspace, on, workers) as scorer:
        wanted = {"ridge": True, "fwrf": fwrf, "located": located, "random": random}
        beside = [name for name, shown in wanted.items() if shown]
        path = export_report(
            workspace,
            stores,
            specs,
            out,
            references=beside,
            cuts=resplit,
            stacked=stacked,
            say=note,
            scorer=scorer,
        )
    written([path])
