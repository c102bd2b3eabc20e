"""The notebook of the documentation runs, shows figures, and has the blocks of its page."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT, blocks

NOTEBOOK = ROOT / "docs" / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("default")  # of the kernel's client
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    page = [b.text.rstrip("\n") for b in blocks(ROOT / "docs" / "howto" / "notebook.md")]
    assert [cell.source for cell in code] == page
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output.get("data", {}) for cell in code for output in cell.outputs]
    assert sum("image/png" in data for data in shown) == 2  # the heatmap, the sheet
    assert sum("text/html" in data for data in shown) == 2  # the tables
    assert "images are predicted to do better" in json.dumps(notebook)
    assert (tmp_path / "notebook" / "tuner.toml").is_file()
