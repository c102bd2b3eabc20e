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
from tuner.backbones import load_backbone


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/_ext/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_command_line_reference_has_every_command(generated: ModuleType) -> None:
    text = generated.cli()
    for name in COMMANDS:
        assert f"\n## tuner {name}" in text
    assert "--n-trials" in text
    assert max(map(len, text.splitlines())) <= 80


def test_config_reference_has_every_key(generated: ModuleType) -> None:
    text = generated.config()
    for row in reference_rows():
        assert f"| `{row.key}` |" in text
        assert row.description, row.key


def test_layers_of_ecoset_networks_are_theirs(generated: ModuleType) -> None:
    text = generated.ecoset()
    for name in generated.ECOSET:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        for layer in load_backbone(name, "random").layers:
            assert f"`{layer}`" in row


def test_references_of_docstrings_become_a_list(generated: ModuleType) -> None:
    lines = ["As shown [1]_.", "", ".. [1] Somebody (2019),", "       A journal.", "", "End."]
    generated._plain_references(None, "", "", None, None, lines)
    assert lines == ["As shown [1].", "", "- [1] Somebody (2019),", "  A journal.", "", "End."]
