"""The documentation builds without a warning, and its reference holds what there is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cli.main import COMMANDS
from studies.config.reference import reference_rows
from tests.docs.blocks import ROOT


def module(path: str) -> ModuleType:
    """A file of the documentation that no package holds."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    pytest.importorskip("sphinx_copybutton")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    ended = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), "docs", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    for page in ("index", "tutorials/demo", "reference/cli", "reference/config", "howto/cluster"):
        assert (tmp_path / "site" / f"{page}.html").is_file()
    text = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert "best_step" in text, "docstrings are not in the page"


def test_pages_hold_what_the_code_says() -> None:
    generate = module("docs/generate.py")
    pages = list(generate.pages())
    assert {page.name for page in pages} == {"cli.md", "config.md", "own-backbone.md"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text == generate.fill(text), f"{page.name} is not up to date: make reference"


def test_command_line_reference_has_every_command() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    shown = text[text.index("<!-- generated") :]
    for name in COMMANDS:
        assert f"\n## tuner {name}" in shown
    assert "--n-trials" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_config_reference_has_every_key() -> None:
    text = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    for row in reference_rows():
        assert f"| `{row.key}` |" in text
        assert row.description, row.key


def test_references_of_docstrings_become_a_list() -> None:
    lines = ["As shown [1]_.", "", ".. [1] Somebody (2019),", "       A journal.", "", "End."]
    module("docs/_ext/docstrings.py").plain_references(None, "", "", None, None, lines)
    assert lines == ["As shown [1].", "", "- [1] Somebody (2019),", "  A journal.", "", "End."]
