"""The choice of a layer is judged on images that had no part in it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from studies.results.nested import COLUMNS, nested
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment


def test_choosing_among_equals_flatters_and_nesting_does_not() -> None:
    chosen, outside = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        losses = 1 + 0.5 * rng.normal(size=(12, 50))  # a dozen layers of equal worth
        chosen.append(losses.mean(1).min())
        outside.append(nested(losses, np.arange(50) % 5)[0])
    assert np.mean(chosen) < 0.9
    assert abs(np.mean(outside) - 1) < 0.02


def test_a_layer_that_is_better_is_chosen_in_every_fold() -> None:
    rng = np.random.default_rng(0)
    losses = np.stack([rng.normal(mean, 0.1, 40) for mean in (1.0, 0.5, 0.9)])
    losses[1, 3] = np.nan
    loss, picked = nested(losses, np.arange(40) % 4)
    assert picked == [1, 1, 1, 1]
    assert loss == np.nanmean(losses[1])


def test_the_heatmap_says_what_the_choice_is_worth(
    make_experiment: MakeExperiment, run: Run, tmp_path: Path
) -> None:
    config = make_experiment()
    only = ("--readout", "full", "-c", config)
    assert run("study", "create", *only).code == 0
    assert run("optimize", "--n-trials", "2", *only).code == 0
    assert run("export", "heatmap", "-o", tmp_path, *only).code == 0
    with (tmp_path / "heatmap.csv").open(encoding="utf-8", newline="") as file:
        studies = list(csv.DictReader(file))
    values = {(r["region"], r["layer"]): float(r["validation_loss"]) for r in studies}
    sure = {(r["region"], r["layer"]) for r in studies if r["fit_failed"] == "false"}
    with (tmp_path / "nested.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row) for row in rows] == [COLUMNS] * 2
    for row in rows:
        mine = {layer: loss for (region, layer), loss in values.items() if region == row["region"]}
        told = {layer: loss for layer, loss in mine.items() if (row["region"], layer) in sure}
        assert row["chosen"] == min(told, key=lambda layer: told[layer], default="none")
        assert float(row["validation_loss"]) == min((told or mine).values())
        assert min(mine.values()) * 0.99 <= float(row["nested_loss"]) <= max(mine.values()) * 1.1
        assert row["n_layers"] == "2"
    alone = tmp_path / "alone"
    assert run("export", "heatmap", "-o", alone, "--layer", "_blocks.2", *only).code == 0
    assert not (alone / "nested.csv").exists()
    assert not (alone / "unit_layers.csv").exists()
