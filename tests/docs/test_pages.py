"""What the documentation shows is run: Python, what is typed, config files; links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import h5py
import pytest

from cli.main import COMMANDS, load
from studies.config.experiment import parse_experiment
from tests.docs.blocks import ROOT, Block, blocks, pages, run_console, shortened
from tests.docs.conftest import Main, within, write_recording
from tests.recordings import cases
from tuner.recordings import FORMATS, load_recording

ALL = [block for page in pages() for block in blocks(page)]
IN_EXPERIMENT = (
    "docs/reference/python.md",
    "docs/howto/low-memory.md",
    "docs/howto/closed-loop.md",
    "docs/howto/images.md",
)
LANGUAGES = {"python", "console", "sh", "toml", "text", "json"}


def of(*languages: str) -> list[Any]:
    return [pytest.param(b, id=b.where) for b in ALL if b.language in languages]


def things(folder: Path) -> None:
    """A small recording in the published format of TVSD, in the folders that the template names."""
    cases.tvsd(folder / "monkeyN")
    shutil.move(folder / "monkeyN" / "images", folder / "THINGS")


SETUPS = {"docs/tutorials/tvsd.md": things, "docs/howto/own-data.md": write_recording}
ELSEWHERE = {"README.md", "docs/howto/notebook.md"}
"""Run as the experiment that the other pages use, and as a notebook."""
RUN = sorted({b.page for b in ALL if b.language in ("python", "console")} - ELSEWHERE)


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(
    page: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = request.getfixturevalue("experiment") if page in IN_EXPERIMENT else tmp_path
    SETUPS.get(page, lambda folder: None)(folder)
    monkeypatch.setattr("tuner.recordings.FORMATS", dict(FORMATS))
    names: dict[str, Any] = {"__name__": "page"}
    with within(folder):
        for block in blocks(ROOT / page):
            if block.language == "python":
                exec(compile(block.text, block.where, "exec"), names)
            elif block.language == "console":
                run_console(block, main)
            elif block.language == "toml" and "[data]" in block.text:
                (folder / "tuner.toml").write_text(shortened(block.text))


def test_the_readme_runs(experiment: Path) -> None:
    """Its commands ran when the experiment was made; here its Python, on the results."""
    (second,) = [b for b in blocks(ROOT / "README.md") if b.language == "python"]
    with within(experiment):
        names: dict[str, Any] = {}
        exec(compile(second.text, second.where, "exec"), names)
        assert names["responses"].shape == (8, 6)
        assert set(names["trials"]["state"]) <= {"complete", "pruned"}
        best = names["best"]
        grid = (best["readout"] == "smooth") * (68 - 8) + 8
        assert list(best["complete"] + best["pruned"]) == list(grid)
        assert len(best) == 2 * 2 * 3
    for file in ("heatmap.csv", "units.csv", "heatmap.png", "heatmap.svg", "report.html"):
        assert (experiment / "results" / file).is_file()
    images = experiment / "results" / "efficientnet_lite0" / "_blocks.2" / "A" / "full"
    assert (images / "0000_unit00.png").is_file()


def test_the_script_writes_what_the_readme_shows(tmp_path: Path) -> None:
    write_recording(tmp_path)
    text = next(b for b in blocks(ROOT / "README.md") if b.language == "text").text
    with h5py.File(tmp_path / "recording.h5") as file:
        assert [name for name in re.findall(r"^\S+", text, re.MULTILINE) if name not in file] == []
    recording = load_recording(tmp_path / "recording.h5")
    assert (recording.n_train, recording.n_test, recording.n_units) == (315, 39, 12)
    assert not set(recording.train_groups) & set(recording.test_groups)
    shell = "".join(b.text for b in blocks(ROOT / "README.md") if b.language == "sh")
    assert (
        (ROOT / "mine" / re.findall(r"^python (\S+)", shell, re.MULTILINE)[0]).resolve().is_file()
    )


@pytest.mark.parametrize("block", of("toml"))
def test_config_files_are_valid(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in re.findall(r"\$\{(\w+)\}", block.text):
        monkeypatch.setenv(name, "secret")
    document = tomllib.loads(block.text)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vgg16_ecoset.pth").touch()
    document.setdefault("backbone", [{"name": "efficientnet_lite0"}])
    parse_experiment(document, tmp_path / "tuner.toml")


@pytest.mark.parametrize("block", of("json"))
def test_json_is_valid(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of("sh"))
def test_commands_that_are_not_run_exist(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets
        elif words[:1] == ["tuner"] and words[1:]:
            parse(words[1:])


def parse(words: list[str]) -> None:
    """Parse a command line as the program would, and stop before running it."""
    if words[0].startswith("-"):
        return
    command = load(words[0])
    name, rest = words[0], words[1:]
    below = getattr(command, "commands", None)
    if below is not None:
        command, name, rest = below[rest[0]], f"{name} {rest[0]}", rest[1:]
    command.make_context(name, rest)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"tuner {name}" not in text] == []


def test_blocks_have_a_language_that_something_is_done_with() -> None:
    assert {block.language for block in ALL} <= LANGUAGES
    for page in pages():
        assert not re.search(
            r"^```\n\S", page.read_text(encoding="utf-8").replace("```\n\n", "")
        ), page


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
