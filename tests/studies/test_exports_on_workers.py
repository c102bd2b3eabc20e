"""Exports whose studies are scored, and whose encoders are made, by workers: the bytes that one process writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from studies.cluster import spread
from studies.cluster.exports import encoders_on, scores_on
from studies.config.experiment import load_experiment
from studies.database.stores import Stores, open_stores
from studies.export.encoders import export_best
from studies.export.heatmap import export_heatmap
from studies.workspace import Workspace
from tests.studies.workers import Given, StandIn
from tuner.errors import EnvironmentFailure


@pytest.fixture
def opened(
    searched_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Workspace, Stores]]:
    monkeypatch.setattr(spread, "LOOK_SECONDS", 0.001)
    experiment = load_experiment(searched_alone)
    with open_stores(experiment) as stores:
        yield Workspace(experiment), stores


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; pictures say when they were made, and come from the tables."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".csv", ".json", ".safetensors")
    }


class Lossy:
    """Loses the worker of every third task, the first time that it is done."""

    def __init__(self) -> None:
        self.lost: list[bytes] = []
        self.count = 0

    def __call__(self, given: Given) -> bool:
        self.count += 1
        if self.count % 3 or given.task in self.lost:
            return False
        self.lost.append(given.task)
        return True


def test_the_heatmap_has_the_same_bytes(opened: tuple[Workspace, Stores], tmp_path: Path) -> None:
    workspace, stores = opened
    export_heatmap(workspace, stores, workspace.grid, tmp_path / "one")
    lossy, told = Lossy(), []
    engine = StandIn(count=2, lose=lossy)
    scorer = partial(scores_on, engine, told.append)
    export_heatmap(workspace, stores, workspace.grid, tmp_path / "many", scorer=scorer)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert {given.kind for given in engine.log} == {"score"}
    assert len(lossy.lost) > 1
    assert len(told) == len(lossy.lost)
    # What was lost is done again, and nothing else is; some were taken back that had not been begun.
    done = {given.task for given in engine.log}
    assert len(done) == len(workspace.grid)


@pytest.mark.parametrize("per_unit", [False, True])
def test_encoders_have_the_same_bytes(
    opened: tuple[Workspace, Stores], tmp_path: Path, per_unit: bool
) -> None:
    workspace, stores = opened
    paths = export_best(workspace, stores, workspace.grid, tmp_path / "one", per_unit=per_unit)
    lossy = Lossy()
    encoding = partial(encoders_on, StandIn(count=2, lose=lossy), lambda line: None)
    many = export_best(
        workspace, stores, workspace.grid, tmp_path / "many", per_unit=per_unit, encoding=encoding
    )
    assert [p.relative_to(tmp_path / "many") for p in many] == [
        p.relative_to(tmp_path / "one") for p in paths
    ]
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert lossy.lost


def test_a_task_that_kills_its_workers_ends_the_export(
    opened: tuple[Workspace, Stores], tmp_path: Path
) -> None:
    workspace, stores = opened
    told: list[str] = []
    scorer = partial(scores_on, StandIn(lose=lambda given: True), told.append)
    with pytest.raises(EnvironmentFailure, match="last words of w. *.*as two before it"):
        export_heatmap(workspace, stores, workspace.grid, tmp_path, scorer=scorer)
    assert told
    assert not list(tmp_path.iterdir())
