"""Options that every command takes, before or after its name, and the examples in its help."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.main

from studies.selection import Selection

if TYPE_CHECKING:
    from studies.config.experiment import Experiment

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the options say that several commands share.

    Attributes
    ----------
    config
        Path of the config file.
    quiet
        No progress and no log, only results and errors.
    verbose
        More log, and tracebacks.
    selection
        The studies that the command is about.
    """

    config: Path = Path("tuner.toml")
    quiet: bool = False
    verbose: bool = False
    selection: Selection = field(default_factory=Selection)


_settings: ContextVar[Settings] = ContextVar("settings")


def settings() -> Settings:
    """Return what the common options of the running command say."""
    try:
        return _settings.get()
    except LookupError:  # used as a library, without a command
        return reset()


def reset() -> Settings:
    """Forget what an earlier command in this process was told."""
    fresh = Settings()
    _settings.set(fresh)
    return fresh


def experiment() -> Experiment:
    """Read the config file that the command was given."""
    from studies.config.experiment import load_experiment

    return load_experiment(settings().config)


def example(*lines: str) -> Callable[[Function], Function]:
    """Attach examples to a command; its help ends with them.

    Parameters
    ----------
    lines
        Each a whole command, as typed.
    """

    def attach(function: Function) -> Function:
        function.examples = lines  # type: ignore[attr-defined]
        return function

    return attach


def complete(command: Any) -> Any:
    """Give a command, and those below it, the common options and the examples in their help.

    Parameters
    ----------
    command
        What typer made of a function or a group.

    Returns
    -------
    object
        The same command.
    """
    command.rich_markup_mode = None  # plain help: the same piped, in a pager, and without colours
    examples = list(getattr(command.callback, "examples", ()))
    children = list(getattr(command, "commands", {}).values())
    for child in children:
        complete(child)
        examples += getattr(child.callback, "examples", ())[:1]
    if not children:
        takes = getattr(command.callback, "takes", None)
        chosen = [] if takes is None else parameters_of(takes)
        command.params = [*command.params, *chosen, *parameters_of(common)]
    if examples and not command.epilog:
        command.epilog = "\n".join(["\b", "Examples:", *map(_broken, examples)])
    return command


def _broken(line: str) -> str:
    """Break a long example as a shell reads it, so that it fits and can be copied."""
    parts = textwrap.wrap(line, 72, break_long_words=False, break_on_hyphens=False)
    return "  " + " \\\n      ".join(parts)


def parameters_of(function: Callable[..., None]) -> list[Any]:
    """Make the options that a function declares, as parameters that a command can be given."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return list(typer.main.get_command(app).params)


def _keep(name: str) -> Callable[[Any], None]:
    """What keeps an option's value in the settings, where it was given."""

    def keep(value: Any) -> None:
        if value:
            setattr(settings(), name, value)

    return keep


def common(
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="The config file; tuner.toml where not given.",
            metavar="FILE",
            callback=_keep("config"),
            expose_value=False,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            help="Only results and errors.",
            callback=_keep("quiet"),
            expose_value=False,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            help="More log, and tracebacks.",
            callback=_keep("verbose"),
            expose_value=False,
        ),
    ] = False,
) -> None:
    """Declare the common options."""
