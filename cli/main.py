"""``tuner``: finds the command, runs it, turns whatever happens into an exit code.

A command's module is imported when the command is typed, so that ``tuner --help`` and shell
completion answer at once; the line shown for it stands in the table below.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
import typer.main
from typer.core import TyperGroup

from cli import errors, options
from studies.selection import Selection


class Entry(NamedTuple):
    """A command of ``tuner``: where it is written and what the list of commands says of it."""

    module: str
    name: str
    help: str


COMMANDS = {
    "init": Entry("cli.init", "init", "Write a commented tuner.toml."),
    "demo": Entry("cli.demo", "demo", "Run the whole job on embedded data: the tour."),
    "data": Entry("cli.data", "app", "See and convert recordings."),
    "backbone": Entry("cli.backbone", "app", "See backbones and their layers."),
    "study": Entry("cli.study", "app", "Create, list, show, copy and delete studies."),
    "optimize": Entry("cli.optimize", "optimize", "Bring every study to N finished trials."),
    "status": Entry("cli.status", "status", "Watch the search: what runs, time left, failures."),
    "doctor": Entry("cli.doctor", "doctor", "Find and mend what kills and copies leave behind."),
    "dashboard": Entry("cli.dashboard", "dashboard", "Open optuna-dashboard on the experiment."),
    # cli.figures adds its command to those of cli.export
    "export": Entry("cli.figures", "app", "Write heatmaps, figures, encoders, images, the report."),
    "stimuli": Entry("cli.stimuli", "app", "Send images to the rig and score what comes back."),
}
HELP = """Fit image-computable models of visual cortex.

Tunes a readout of every layer of every backbone for every region, and shows which layer explains
which region, and the images that its units want most.
"""
EPILOG = """\b
Examples:
  tuner demo                        the whole job on embedded data
  tuner init my-experiment          a config file to start from
  tuner study create --dry-run      what the search would take
  tuner optimize --n-trials 50      search; run it again to go on
  tuner export heatmap -o results   which layer explains which region
"""


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and imports a command when it is typed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that was typed, and load it."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, None if known is None or name is None else load(name), rest


def load(name: str) -> Any:
    """Import a command and give it the common options."""
    entry = COMMANDS[name]
    found = getattr(import_module(entry.module), entry.name)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(found)
        return options.complete(typer.main.get_command(app))
    group = options.complete(typer.main.get_group(found))
    group.name = name
    group.help = entry.help
    return group


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"tuner {version('cortex-tuner')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Declare the options of ``tuner`` itself."""


def build() -> Any:
    """Build the command ``tuner``, with the commands' names and no more of them."""
    app = typer.Typer(
        cls=LazyGroup,
        help=HELP,
        epilog=EPILOG,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, entry in COMMANDS.items():
        app.command(name, help=entry.help)(_stand_in)
    command = typer.main.get_command(app)
    command.params = [*options.parameters_of(options.common), *command.params]
    return command


def _stand_in() -> None:
    """Hold a command's place in the list; the command itself is loaded when it is typed."""


def run(arguments: list[str]) -> Any:
    """Run a command; whatever it raises is the caller's."""
    options.settings().selection = Selection()
    command = build()
    with command.make_context("tuner", arguments) as context:
        return command.invoke(context)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tuner``.

    Parameters
    ----------
    argv
        The words after ``tuner``; by default those typed.

    Returns
    -------
    int
        0 done; 2 the user's input was wrong; 3 the environment failed; 130 after Ctrl-C, 143 after
        SIGTERM; 1 for a defect of ours.
    """
    # Thousands of small objects are made and kept: looking for garbage among them so often costs a listing 0.2 s.
    gc.set_threshold(50_000, 20, 100)
    errors.reopen_closed_streams()
    settings = options.reset()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with errors.sigterm_raises():
            if "_TUNER_COMPLETE" in os.environ:
                build().main(args=arguments, prog_name="tuner", complete_var="_TUNER_COMPLETE")
            result = run(arguments or ["--help"])
            sys.stdout.flush()  # a closed pipe is met here, not in the interpreter's last breath
    except BaseException as error:
        return errors.conclude(error, verbose=settings.verbose)
    return result if isinstance(result, int) else 0
