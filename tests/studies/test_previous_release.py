"""An experiment that the release before made goes on as it was made.

``previous_release/`` is what that release left behind after eight trials a study: recording, settings, database and kept
weights.
``exported8`` and ``exported16`` are its own tables, of those eight trials and of sixteen, to which it brought a copy.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Run

HERE = Path(__file__).parent / "previous_release"

WRITTEN_BY = {"cpu": "AVX512", "torch": "2.14.1"}
"""Where the tables were written; elsewhere the last digits are others, and a search that follows them is another."""

SAME_MACHINE = (
    torch.backends.cpu.get_cpu_capability() == WRITTEN_BY["cpu"]
    and torch.__version__.split("+")[0] == WRITTEN_BY["torch"]
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("previous") / "experiment"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("exported*"))
    return folder / "tuner.toml"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(found: Path, expected: Path) -> None:
    """Every column of the release before is there with what it had; others may have come.

    But for receptive fields, which that release put in the wrong place.
    """
    mine, theirs = rows(found), rows(expected)
    assert len(mine) == len(theirs)
    for row, before in zip(mine, theirs, strict=True):
        for column, value in before.items():
            if column.startswith("rf_"):
                assert column in row
                continue
            if SAME_MACHINE or not value.replace(".", "").lstrip("-").isdigit():
                assert row[column] == value, column
            else:
                np.testing.assert_allclose(float(row[column]), float(value), rtol=1e-3, atol=1e-3)


def test_it_is_listed_resumed_and_exported(config: Path, run: Run, tmp_path: Path) -> None:
    listed = json.loads(run("study", "list", "--format", "json", "-c", config).out)
    assert {sum(row["trials"].values()) for row in listed} == {8}
    assert run("export", "heatmap", "-o", tmp_path / "8", "-c", config).code == 0
    for name in ("heatmap.csv", "units.csv"):
        same(tmp_path / "8" / name, HERE / "exported8" / name)

    assert run("optimize", "--n-trials", "16", "-c", config).code == 0
    listed = json.loads(run("study", "list", "--format", "json", "-c", config).out)
    assert {row["trials"]["complete"] + row["trials"]["pruned"] for row in listed} == {16}
    assert run("doctor", "-c", config).err.strip().endswith("all is well")
    if SAME_MACHINE:
        before = json.loads((HERE / "exported16" / "list.json").read_text())
        assert [{key: row[key] for key in before[0]} for row in listed] == before
        assert run("export", "heatmap", "-o", tmp_path / "16", "-c", config).code == 0
        for name in ("heatmap.csv", "units.csv"):
            same(tmp_path / "16" / name, HERE / "exported16" / name)
