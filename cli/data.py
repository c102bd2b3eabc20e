"""``tuner data``: what is in a recording, and any supported format as the generic file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Settings, example, experiment, settings
from cli.progress import ProgressDisplay
from cli.show import Column, Format, FormatOption, note, show, to_json, write
from studies.export.target import is_file
from tuner.errors import InputError

if TYPE_CHECKING:
    from studies.config.experiment import Experiment
    from tuner.recordings import Recording
    from tuner.recordings.inspect import Summary

app = typer.Typer(no_args_is_help=True)


REGION_COLUMNS = [
    Column("region", fold=True),
    Column("n_units", "units"),
    Column("missing_train", "missing", digits=3),
    Column("reliability"),
    Column("split_half", "split-half"),
    Column("ceiling"),
    Column("n_units_with_ceiling", "with ceiling"),
]


@app.command()
@example(
    "tuner data inspect",
    "tuner data inspect recording.h5",
    "tuner data inspect --format json",
    "tuner data inspect -o units",
)
def inspect(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A generic HDF5 file or NWB; not given: the config file's recording.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="With FILE: the folder of its images.", metavar="DIR"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            help="Draw every unit too: FIGURE.png or .svg, both where it has no suffix.",
            metavar="FIGURE",
        ),
    ] = None,
    format: FormatOption = Format.table,  # noqa: A002 - the word of the command line
) -> None:
    """Show what is in the recording, region by region, and what about it is suspicious.

    FILE needs no config file: its regions are those of units/area, and no unit is dropped.
    """
    from tuner.recordings.inspect import inspect as summarise

    if out is not None:
        _check_figure(out)
    summary = summarise(*_recording(file, images))
    regions = [asdict(region) for region in summary.regions]
    if format is Format.json:
        write(to_json(summary.as_dict()))
    elif format is Format.csv:
        show(regions, format)
    else:
        _describe(summary)
        show(regions, format, REGION_COLUMNS)
        if summary.n_repeats > 1:
            write("reliability, split-half and ceiling: medians over units")
        write("")
        for line in summary.notes:
            write(f"note: {line}")
        for line in summary.suspicious:
            write(f"suspicious: {line}")
        if not summary.suspicious:
            write("nothing about it is suspicious")
    if out is not None:
        _draw(summary, out)


def _recording(file: Path | None, images: Path | None) -> tuple[Recording, str, str | None, str]:
    """What is inspected, the columns of its regions and sessions, and the loss that it is to be fitted by."""
    if file is None:
        from studies.recording import open_recording

        if images is not None:
            raise InputError("--images: only with FILE; the config file says it otherwise")
        configured = experiment()
        data, loss = configured.data, configured.training.loss
        return open_recording(configured), data.region, data.session, loss
    from tuner.recordings import load_recording
    from tuner.recordings.told import told_format

    if settings().config != Settings().config:
        raise InputError(f"{file} and -c {settings().config}: say only one of them")
    try:
        return load_recording(file, told_format(file), images=images), "area", None, "mse"
    except InputError as error:  # said here by options, not by keys of a config file
        said = str(error).replace("set data.images", "say --images FOLDER")
        raise InputError(said.replace("; check data.path", "")) from error


def _describe(summary: Summary) -> None:
    """Print the counts of a recording."""
    simulated = ", SIMULATED" if summary.simulated else ""
    write(f"{summary.label} ({summary.source}){simulated}")
    write(f"  units     {summary.n_units}, columns: {', '.join(summary.columns)}")
    groups = "" if summary.n_groups is None else f" in {summary.n_groups} groups"
    write(f"  training  {summary.n_train} images{groups}")
    if summary.n_test:
        often = f"{summary.n_repeats} repeats"
        if summary.n_repeats == 1:
            often = "one response each: test scores, but no ceilings and none normalised"
        write(f"  test      {summary.n_test} images, {often}")
    else:
        write("  test      none: scores on validation images only, and no ceilings")
    for one in summary.sessions:
        test = f", {one.n_test} test images, {one.n_repeats} repeats" if one.n_test else ""
        write(
            f"  session   {one.session}: {one.n_units} units, {one.n_train} training images{test}"
        )
    sizes = [f"{count} of {size}" for size, count in summary.image_sizes.items()]
    more = f" and {len(sizes) - 4} other sizes" if len(sizes) > 4 else ""
    write(f"  images    {', '.join(sizes[:4])} px{more}")
    write("")


def _draw(summary: Summary, out: Path) -> None:
    """Write the figure of a recording's units."""
    from tuner.figures import captions, style
    from tuner.figures.recordings import reliability_strips

    if summary.n_repeats < 2:
        raise InputError(
            f"-o {out}: nothing to draw: without repeats of test images units have neither "
            "reliability nor ceiling"
        )
    figure = reliability_strips(
        summary.units.region.tolist(),
        summary.units.reliability,
        summary.units.ceiling,
        title=summary.label,
        areas=None if summary.units.area is None else summary.units.area.tolist(),
        about=captions.on_test_images(
            captions.Basis(n_test=summary.n_test, n_repeats=summary.n_repeats)
        ),
        simulated=summary.simulated,
    )
    for path in [style.save_as(figure, out)] if _check_figure(out) else style.save(figure, out):
        note(f"wrote {path}")


def _check_figure(out: Path) -> bool:
    """Refuse what the figure cannot be written to; returns whether it is one file, or both kinds of a name."""
    one = is_file(out, ".png", ".svg")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    return one


@app.command()
@example(
    "tuner data convert -o recording.h5",
    "tuner data convert -o shared.h5 --embed",
    "tuner data convert -o both.h5 --join N=n/tuner.toml --join F=f/tuner.toml",
    "tuner data convert -o recording.h5 --assembly train.nc --test test.nc --images stimuli/",
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
    assembly: Annotated[
        Path | None,
        typer.Option(
            "--assembly",
            help="Convert this Brain-Score assembly (netCDF), not the config file's recording.",
            metavar="FILE",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Its test images, where another assembly.", metavar="FILE"),
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option("--stimuli", help="Its stimulus set (csv).", metavar="FILE"),
    ] = None,
    test_stimuli: Annotated[
        Path | None,
        typer.Option("--test-stimuli", help="That of its test images (csv).", metavar="FILE"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="The folder of its images.", metavar="DIR")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option("--window", help="Its time bins that are averaged, ms.", metavar="FROM TO"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the config file's recording, or an assembly, as one generic HDF5 file."""
    from studies.recording import open_for_conversion
    from tuner.recordings import load_recording, write_recording
    from tuner.recordings.join import join_recordings

    _check_out(out, force)
    of_assembly: dict[str, Any] = {
        "test": test,
        "stimuli": stimuli,
        "test_stimuli": test_stimuli,
        "window_ms": window,
    }
    _check_together(assembly, join, {**of_assembly, "images": images})
    with ProgressDisplay() as progress:
        if assembly is not None:
            recording = load_recording(assembly, "assembly", images=images, **of_assembly)
        elif join:
            recording = join_recordings(
                {
                    name: open_for_conversion(one, progress=progress.update)
                    for name, one in _named(join).items()
                }
            )
        else:
            recording = open_for_conversion(experiment(), mapping, progress.update)
        written = write_recording(recording, out, embed=embed, progress=progress.update)
    for line in recording.notes:
        note(f"note: {line}")
    write(f"wrote {written}")
    note(f'use it with format = "hdf5" and path = "{written}" under [data]')


@app.command()
@example(
    "tuner data join monday.h5 tuesday.h5 -o both.h5",
    "tuner data join monday.h5 tuesday.h5 -o both.h5 --images photographs/",
)
def join(
    files: Annotated[list[Path], typer.Argument(help="Generic HDF5 files.", metavar="FILE.h5...")],
    out: Annotated[Path, typer.Option("-o", help="The file to write.", metavar="OUT.h5")],
    images: Annotated[
        Path | None,
        typer.Option("--images", help="The folder of the images, where the files name them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Join sessions of different units and images into one file.

    What a session was not shown is missing; an image that several were shown, the same to the pixel, is one.
    """
    from tuner.recordings import load_recording, write_recording
    from tuner.recordings.sessions import join_sessions

    _check_out(out, force)
    names = [file.stem for file in files]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise InputError(
            f"{again}: two of the files are called so; sessions carry the files' names: rename one"
        )
    loaded = {file.stem: load_recording(file, "hdf5", images=images) for file in files}
    with ProgressDisplay() as progress:
        recording = join_sessions(loaded, images)
        written = write_recording(recording, out, progress=progress.update)
    for line in recording.notes:
        note(f"note: {line}")
    write(f"wrote {written}")
    note(f'use it with format = "hdf5" and path = "{written}" under [data]')


def _check_out(out: Path, force: bool) -> None:
    """Refuse a file that exists, or whose folder does not."""
    if out.exists() and not force:
        raise InputError(f"{out}: exists; say --force to replace it, or name another file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")


def _check_together(
    assembly: Path | None, join: list[str] | None, of_assembly: dict[str, object]
) -> None:
    """Refuse options that would be passed over."""
    if assembly is not None and join:
        raise InputError("--assembly and --join: say only one; convert the assemblies first")
    for name, value in of_assembly.items():
        if assembly is None and value is not None:
            option = name.removesuffix("_ms").replace("_", "-")
            raise InputError(f"--{option}: only with --assembly; the config file says it otherwise")


def _named(pairs: list[str]) -> dict[str, Experiment]:
    """Read the config files given as ``NAME=FILE``."""
    from studies.config.experiment import load_experiment

    named: dict[str, Experiment] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise InputError(f"--join {pair}: must be NAME=FILE, such as N=monkeyN/tuner.toml")
        if name in named:
            raise InputError(f"--join {pair}: the name {name} is given twice")
        named[name] = load_experiment(file)
    return named
