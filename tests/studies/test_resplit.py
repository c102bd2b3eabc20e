"""How sure the choice of a layer is: what other cuts are compared on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cli.main import main
from studies.config.experiment import load_experiment
from studies.database import optuna_tables as tables
from studies.database.stores import open_stores
from studies.results.on_cuts import on_layer
from studies.results.resplit import _Contest, _rows, resplit
from studies.results.scores import evaluate_all
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.small import IMAGES, write_recording
from tuner.recordings import cut, fittable
from tuner.scores.layers import Judged


def test_an_interval_is_no_narrower_for_the_same_images_again(
    make_experiment: MakeExperiment,
) -> None:
    specs = Workspace(load_experiment(make_experiment())).grid
    two = [s for s in specs if s.key.region == "V1" and s.key.readout == "full"]
    rng = np.random.default_rng(0)
    images = np.arange(40)
    losses = {s.key.layer: rng.gamma(2.0, 1.0, (40, 3)) for s in two}

    def rows(cuts: int) -> list[dict[str, object]]:
        contest = _Contest(two, {k: [Judged(images, v)] * cuts for k, v in losses.items()})
        contest.value = {s.key.layer: float(i) for i, s in enumerate(two)}
        return _rows(contest, None)

    once, again = rows(1), rows(6)
    for name in ("difference", "difference_low", "difference_high", "best_in_draws"):
        assert [r[name] for r in once] == [pytest.approx(r[name]) for r in again]


def test_a_unit_that_another_cut_leaves_too_few_responses_takes_no_part_in_it(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not make the fit of its whole region one that diverged."""
    recording = write_recording(tmp_path / "sparse.h5")
    other = cut(IMAGES, None, 0.25, seed=1)
    with h5py.File(recording, "a") as file:
        file["train/responses"][other.validation, 0] = np.nan
        responses = file["train/responses"][()]
    assert fittable(responses, other).tolist() == [False, True, True, True, True]
    assert fittable(responses, cut(IMAGES, None, 0.25, seed=0)).all()
    config = make_experiment({"data": {"path": str(recording)}})
    for words in (["study", "create"], ["optimize", "--n-trials", "2"]):
        assert main(["-q", "-c", str(config), *words, "--region", "V1", "--readout", "full"]) == 0
    workspace = Workspace(load_experiment(config))
    stores = open_stores(workspace.experiment)
    specs = [s for s in workspace.grid if s.key.region == "V1" and s.key.readout == "full"]
    folder = workspace.experiment.storage.cache / "other_cuts"  # other tests have the same
    before = set(folder.glob("*"))
    found = resplit(workspace, stores, specs, 1)
    assert [row["cuts"] for row in found] == [1, 1]
    assert all(0 < row["validation_loss"] < 10 for row in found)

    fitted: list[int] = []

    def counting(*given: Any) -> Any:
        fitted.append(1)
        return on_layer(*given)

    monkeypatch.setattr("studies.results.resplit.on_layer", counting)
    assert resplit(workspace, stores, specs, 1) == found  # read, to the last digit
    assert fitted == []
    (kept,) = set(folder.glob("*")) - before
    kept.write_text(kept.read_text(encoding="utf-8").replace("0.", "1.", 1), encoding="utf-8")
    assert resplit(workspace, stores, specs, 1) == found  # damaged, and made again
    assert fitted == [1, 1]
    worse = next(row["layer"] for row in found if row["chosen"])
    failed = {spec.name for spec in specs if spec.key.layer == worse}
    others = resplit(workspace, stores, specs, 1, failed)
    assert [row["chosen"] for row in others] == [not row["chosen"] for row in found]
    stores.storage.close()


def test_the_choice_is_that_of_the_heatmap(make_experiment: MakeExperiment) -> None:
    """Of a closed form that of its encoder, whose units have settings of their own, not of its best grid point."""
    config = make_experiment({"search": {"space": {"smooth": {"width": [0.0, 0.7]}}}})
    for words in (["study", "create"], ["optimize", "--n-trials", "1"]):
        assert main(["-q", "-c", str(config), *words, "--region", "V1", "--readout", "smooth"]) == 0
    workspace = Workspace(load_experiment(config))
    specs = [s for s in workspace.grid if s.key.region == "V1" and s.key.readout == "smooth"]
    stores = open_stores(workspace.experiment)
    rows = [(one.row, one.summary.best) for one in evaluate_all(workspace, stores, specs)]
    (low, _), (high, best) = sorted(rows, key=lambda one: one[0]["validation_loss"])
    assert best is not None
    with (
        stores.storage.engine.begin() as connection
    ):  # of single settings the other layer has the best
        values = tables.values
        mine = values.c.trial_id == best.trial_id
        connection.execute(values.update().where(mine).values(value=-1.0))
    found = {row["layer"]: row["chosen"] for row in resplit(workspace, stores, specs, 1)}
    stores.storage.close()
    assert found == {low["layer"]: True, high["layer"]: False}
