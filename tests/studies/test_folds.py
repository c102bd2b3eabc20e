"""A search whose trials are fitted once without each fold, from the config file to what is exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tuner
from studies.config.experiment import load_experiment
from studies.database.stores import Stores
from studies.results.encoders import best_studies
from studies.workspace import Workspace
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tests.studies.small import IMAGES
from tuner import readouts
from tuner.closed_form import located
from tuner.fitting.plan import column_bytes, fixed_bytes

FOLDS = 3
CHANGES: dict[str, Any] = {
    "training": {"folds": FOLDS},
    "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
    "search": {"space": {"full": {}, "factorized": {}, "smooth": {}}},
}


def listed(run: Run, config: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        run("study", "list", "--format", "json", "-c", config).out
    )
    return rows


@pytest.fixture
def searched(make_experiment: MakeExperiment, run: Run) -> Path:
    config = make_experiment(CHANGES)
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "--n-trials", "8", "-c", config).code == 0
    return config


def test_from_the_search_to_encoders(
    searched: Path,
    run: Run,
    tmp_path: Path,
    open_experiment: Callable[[Path], Stores],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace, stores = Workspace(load_experiment(searched)), open_experiment(searched)
    targets = workspace.targets.validation
    assert len(targets) == IMAGES
    assert [len(split.validation) for split in workspace.cuts.splits] == [40, 40, 40]
    for best in best_studies(workspace, stores, workspace.grid):
        kept = next(best.whole()).parameters
        held_out = kept["held_out"].numpy()
        assert held_out.shape == (IMAGES, len(best.spec.units))
        each = np.square(held_out - targets[:, best.spec.units])
        assert each.mean() == pytest.approx(best.value, rel=1e-4)
        halves = [each[workspace.cuts.halves == half].mean(0) for half in (0, 1)]
        np.testing.assert_allclose(kept["unit_loss"].numpy(), np.stack(halves, 1), rtol=1e-3)
        units = best.parameters(None)
        assert units["held_out"].shape == held_out.shape
        if best.spec.key.readout == "factorized":
            assert kept["mask"].shape[:2] == (len(best.spec.units), FOLDS)
    assert run("export", "heatmap", "-o", tmp_path / "maps", "-c", searched).code == 0
    for options in ([], ["--per-unit"]):
        out = tmp_path / f"best{len(options)}"
        assert run("export", "best", *options, "-o", out, "-c", searched).code == 0
        for spec in workspace.grid:
            encoder = tuner.load_encoder(out / spec.name)
            image = torch.rand(2, 3, encoder.image_size, encoder.image_size)
            each = torch.stack([encoder.own_drive(image[[0]], [u])[0] for u in range(2)])
            torch.testing.assert_close(each, encoder.drive(image)[0, :2], rtol=1e-4, atol=1e-5)
    solved: list[int] = []
    fits_located = located.fits_located

    def counted(*arguments: Any, **options: Any) -> Any:
        solved.append(len(arguments[3]))
        return fits_located(*arguments, **options)

    monkeypatch.setattr(located, "fits_located", counted)
    resplit = run("export", "heatmap", "--resplit", "2", "-o", tmp_path / "again", "-c", searched)
    assert resplit.code == 0
    assert "on 2 other cuts: 6 fits of 6 studies, " in resplit.err
    assert "fitting on other cuts: 100 %" in resplit.err
    assert solved == [2]  # where both readouts of the layer start, on both cuts
    planned = run("study", "create", "--dry-run", "--format", "json", "-c", searched)
    columns = {row["readout"]: row["columns"] for row in json.loads(planned.out)}
    assert columns["full"] == FOLDS * 4 * 5


def test_the_best_of_every_unit_is_that_of_its_own_trial(
    searched: Path, open_experiment: Callable[[Path], Stores]
) -> None:
    workspace, stores = Workspace(load_experiment(searched)), open_experiment(searched)
    for best in best_studies(workspace, stores, workspace.grid):
        if best.spec.closed_form:
            continue
        units = best.parameters(None)
        for number in best.kept:
            trial = best.parameters(number)
            mine = units["trial"] == number
            assert torch.equal(units["held_out"][:, mine], trial["held_out"][:, mine])


def test_stopped_and_gone_on_with_it_is_the_same_search(
    searched: Path, make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment(CHANGES, "other")
    assert run("study", "create", "-c", config).code == 0
    for count in ("4", "8"):
        assert run("optimize", "--n-trials", count, "-c", config).code == 0
    assert listed(run, config) == listed(run, searched)


def test_all_folds_of_a_unit_take_turns_together(
    searched: Path, make_experiment: MakeExperiment, run: Run
) -> None:
    """Memory for one unit at a time: the same values, to rounding."""
    spec, device = Workspace(load_experiment(searched)).grid[0], torch.device("cpu")
    kernel = readouts.get("full").kernel(spec.shape, device)
    unit = FOLDS * 4 * column_bytes(kernel, 20, IMAGES // FOLDS)
    memory = fixed_bytes(spec.shape, 20, device) + 2 * IMAGES * spec.shape.size + 1.5 * unit
    tight = {**CHANGES, "training": {"folds": FOLDS, "memory": f"{memory / 1e6:.3f}MB"}}
    config = make_experiment(tight, "tight")
    assert run("study", "create", "--readout", "full", "-c", config).code == 0
    assert run("optimize", "--n-trials", "4", "--readout", "full", "-c", config).code == 0
    mine, whole = (
        frame[(frame["readout"] == "full") & (frame["trial"] < 4)].sort_values(["study", "trial"])
        for frame in map(tuner.load_results, (config, searched))
    )
    assert len(mine) == 8
    assert mine["state"].tolist() == whole["state"].tolist()
    np.testing.assert_allclose(mine["value"], whole["value"], rtol=1e-4)


def test_few_groups_make_few_folds(make_experiment: MakeExperiment) -> None:
    changes = {**CHANGES, "training": {"folds": 50}}
    assert Workspace(load_experiment(make_experiment(changes))).cuts.n_folds == 50
    auto = make_experiment({**CHANGES, "training": {"folds": "auto"}}, "auto")
    assert Workspace(load_experiment(auto)).cuts.n_folds == 5
