"""``tuner`` itself: its commands, their help, the common options, completion."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import typer

from cli import main, options


def here(name: str) -> bool:
    return find_spec(main.COMMANDS[name].module) is not None


def leaves() -> list[tuple[str, ...]]:
    """Every command that does something, as typed."""
    found: list[tuple[str, ...]] = []
    for name in filter(here, main.COMMANDS):
        below = getattr(main.load(name), "commands", None)
        found += [(name, sub) for sub in below] if below else [(name,)]
    return found


def test_help_lists_every_command_and_ends_well(run):
    for words in ([], ["--help"], ["-h"]):
        ended = run(*words)
        assert (ended.code, ended.err) == (0, "")
        for name, entry in main.COMMANDS.items():
            assert f"  {name} " in ended.out
            assert entry.help in ended.out


def test_help_imports_nothing_heavy():
    heavy = ("torch", "optuna", "sqlalchemy", "matplotlib", "pandas", "numpy", "scipy", "rich")
    check = (
        "import sys, cli.main\n"
        "for words in (['--help'], ['--version'], ['study', '--help'], ['export', '--help']):\n"
        "    cli.main.main(words)\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_is_there_and_described(name):
    command = main.load(name)
    assert command.help


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_every_command_has_an_example_and_the_common_options(run, words):
    ended = run(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"Usage: tuner {' '.join(words)}" in ended.out
    assert f"\n    tuner {' '.join(words)}" in ended.out.split("Examples:")[1]
    for option in ("--config", "--quiet", "--verbose"):
        assert option in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("name", [name for name in main.COMMANDS if here(name)])
def test_every_group_shows_examples(run, name):
    assert f"  tuner {name} " in run(name, "--help").out.split("Examples:")[1]


def test_version(run):
    ended = run("--version")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("tuner 0.1.0")


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (["optimise"], ["no such command 'optimise'", "optimize"]),
        (["init"], ["DIR", "see 'tuner init --help'"]),
        (["init", "a", "b"], ["unexpected extra argument", "'tuner init --help'"]),
        (["init", "--tmplate", "demo", "a"], ["no such option", "--tmplate"]),
        (["init", "a", "--template"], ["--template", "argument"]),
        (["backbone", "lst"], ["no such command 'lst'", "list"]),
        (["backbone", "list", "--format", "xml"], ["--format", "table", "json", "csv"]),
        (["backbone", "layers", "vgg19", "--image-size", "abc"], ["--image-size", "integer"]),
        (
            ["backbone", "layers", "vgg19", "--image-size", "2"],
            ["'--image-size': must be greater than or equal to 16"],
        ),
        (["study", "copy", "nope"], ["URL: must be", "sqlite:///FILE"]),
        (["study", "copy", "postgresql://ann:secret@host/db"], ["postgresql+psycopg://"]),
        (["export", "mei", "-o", "x", "--seed", str(2**63)], ["--seed", str(2**63 - 1)]),
        (["data", "inspect", "-o", "x.pdf"], ["x.pdf", "NAME.png"]),
        (["--config"], ["--config", "argument"]),
        (["--nothing"], ["no such option", "--nothing"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_cannot_be_typed_is_answered_in_one_line(run, words, mentions):
    run(*words).check_one_line_error(2, *mentions)


def remember(seen: list[options.Settings]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def one() -> None:
        """Remember the settings."""
        seen.append(options.settings())

    @app.command()
    def two() -> None:
        """Do nothing."""

    return app


@pytest.mark.parametrize(
    ("words", "config", "quiet", "verbose"),
    [
        ((), "tuner.toml", False, False),
        (("-c", "a.toml", "init", "one"), "a.toml", False, False),
        (("init", "one", "--config", "b.toml", "-q"), "b.toml", True, False),
        (("-c", "a.toml", "-v", "init", "one", "-c", "b.toml"), "b.toml", False, True),
        (("--quiet", "init", "one", "-v"), "tuner.toml", True, True),
    ],
)
def test_common_options_stand_before_or_after_the_command(
    run, monkeypatch, words, config, quiet, verbose
):
    seen: list[options.Settings] = []
    monkeypatch.setattr(sys.modules[__name__], "app", remember(seen), raising=False)
    monkeypatch.setitem(main.COMMANDS, "init", main.Entry(__name__, "app", "x"))
    assert run(*(words or ("init", "one"))).code == 0
    (settings,) = seen
    assert (str(settings.config), settings.quiet, settings.verbose) == (config, quiet, verbose)


def test_completion_knows_commands_and_options(monkeypatch):
    def completions(words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", "import sys, cli.main; sys.exit(cli.main.main())"],
            env={
                "_TUNER_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
                "PATH": "",
            },
            capture_output=True,
            text=True,
        )
        assert ended.stderr == ""
        return ended.stdout

    assert completions("tuner stu").split() == ["study"]
    assert completions("tuner backbone l").split() == ["list", "layers"]
    assert "--image-size" in completions("tuner backbone layers --im")


def test_completion_can_be_shown(run, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash", raising=False)
    ended = run("--show-completion")
    assert ended.code == 0
    assert "_TUNER_COMPLETE=complete_bash" in ended.out
