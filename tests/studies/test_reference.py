"""Ridge readouts beside the studies, on trained and on random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from studies.config.experiment import load_experiment
from studies.export.heatmap import draw_heatmap, export_heatmap
from studies.grid import Spec
from studies.results.on_test_images import on_test_images
from studies.results.paired import compared
from studies.results.references import (
    FWRF,
    LOCATED,
    RANDOM,
    RIDGE,
    named,
    of_tables,
    references,
)
from studies.results.scores import Evaluated
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.small import DOCUMENT, write_recording
from tuner import readouts
from tuner.closed_form.fwrf import fit_fwrf
from tuner.closed_form.located import fit_located
from tuner.errors import InputError
from tuner.scores import score_units
from tuner.scores.few import mean_interval

NETWORK = DOCUMENT["backbone"][0]


def rows_of(workspace: Workspace, specs: Sequence[Spec], readout: str) -> list[dict[str, Any]]:
    return [one.row for one in references(workspace, specs, readout)]


def opened(config: Path) -> Workspace:
    return Workspace(load_experiment(config))


def test_random_weights_are_those_of_a_backbone_of_random_weights(
    make_experiment: MakeExperiment,
) -> None:
    trained = opened(make_experiment(name="trained"))
    random = opened(make_experiment({"backbone": [NETWORK | {"weights": "random"}]}, name="random"))
    found = rows_of(trained, trained.grid, RANDOM)
    expected = rows_of(random, random.grid, RIDGE)
    assert {row["readout"] for row in found} == {RANDOM}
    assert [row | {"readout": RIDGE} for row in found] == expected
    learned = rows_of(trained, trained.grid, RIDGE)
    keys = [(row["layer"], row["region"]) for row in found]
    assert keys == [(row["layer"], row["region"]) for row in learned]
    assert all(
        a["validation_loss"] != b["validation_loss"] for a, b in zip(found, learned, strict=True)
    )


def test_one_draw_of_random_weights_is_drawn_once(make_experiment: MakeExperiment) -> None:
    control = NETWORK | {"alias": "control", "weights": "random", "layers": NETWORK["layers"][:1]}
    workspace = opened(make_experiment({"backbone": [NETWORK, control]}))
    specs = [spec for spec in workspace.grid if spec.key.region == "IT"]

    def found(*names: str) -> list[tuple[str, str, str]]:
        each = named(workspace, specs, names)
        notes = {one.key.backbone: one.row.get("note") for one in each if one.row.get("note")}
        assert notes == (
            {"control": "also net with random weights: the same draw"} if len(names) > 1 else {}
        )
        return [(one.key.backbone, one.key.layer, one.key.readout) for one in each]

    first, *others = NETWORK["layers"]
    deeper = [("net", layer, RANDOM) for layer in others]
    assert found("random") == [("net", first, RANDOM), *deeper]
    assert [one for one in found("ridge", "random") if one[2] == RANDOM] == deeper
    assert ("control", first, RIDGE) in found("ridge", "random")
    several = opened(make_experiment({"backbone": [control | {"seeds": 2}]}, name="draws"))
    assert named(several, several.grid, ("random",))
    assert not [
        r for r in named(several, several.grid, ("ridge", "random")) if r.key.readout == RANDOM
    ]


def test_only_what_is_selected_is_fitted(make_experiment: MakeExperiment) -> None:
    workspace = opened(make_experiment())
    chosen = [s for s in workspace.grid if (s.key.layer, s.key.region) == ("_blocks.4", "IT")]
    for rows in (rows_of(workspace, chosen, RIDGE), rows_of(workspace, chosen, RANDOM)):
        assert [(row["layer"], row["layer_index"], row["region"]) for row in rows] == [
            ("_blocks.4", chosen[0].layer_index, "IT")
        ]


def test_under_gaussian_masks_validation_and_test_images_are_predicted_by_one_fit(
    make_experiment: MakeExperiment,
) -> None:
    workspace = opened(make_experiment())
    chosen = [s for s in workspace.grid if (s.key.layer, s.key.region) == ("_blocks.2", "V1")]
    (row,) = rows_of(workspace, chosen, FWRF)
    assert row["readout"] == FWRF
    features, scaling = workspace.features.of("net", "_blocks.2"), workspace.scaling
    targets = scaling.apply(workspace.recording.train_responses)[:, chosen[0].units]
    fit = fit_fwrf(features.train, targets, workspace.cuts.fitted, others=workspace.cuts.held_out)
    missed = np.square(fit.others - targets[workspace.cuts.held_out]).mean()
    missed /= workspace.mean_loss(chosen[0].units)
    assert row["validation_loss"] == pytest.approx(missed, rel=1e-5)
    assert features.test is not None
    maps = torch.tensor(np.asarray(features.test)).float()
    predicted = readouts.get("factorized").predict(fit.parameters, maps).numpy()
    assert workspace.recording.test_responses is not None
    measured = workspace.recording.test_responses[:, :, chosen[0].units]
    expected = score_units(predicted, measured, intervals=None)["test_correlation"].mean()
    assert row["test_correlation"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("folds", [1, 3])
def test_where_searches_start_is_judged_as_they_are(
    make_experiment: MakeExperiment, folds: int
) -> None:
    workspace = opened(make_experiment({"training": {"folds": folds}}))
    chosen = [s for s in workspace.grid if (s.key.layer, s.key.region) == ("_blocks.2", "V1")]
    (row,) = rows_of(workspace, chosen, LOCATED)
    assert row["readout"] == LOCATED
    features, cuts, scaling = (
        workspace.features.of("net", "_blocks.2"),
        workspace.cuts,
        workspace.scaling,
    )
    targets = scaling.apply(workspace.recording.train_responses)[:, chosen[0].units]
    left_out = [split.validation for split in cuts.splits] if folds > 1 else []
    groups = workspace.recording.train_groups
    fit = fit_located(features.train, targets, cuts.fitted, folds=left_out, groups=groups)
    predicted = fit.held_out
    if folds == 1:
        maps = torch.tensor(np.asarray(features.train[cuts.held_out])).float()
        parameters = {"weight": fit.weight[0], "bias": fit.bias[0]}
        predicted = readouts.get("full").predict(parameters, maps).numpy()
    missed = np.square(predicted - targets[cuts.held_out]).mean()
    missed /= workspace.mean_loss(chosen[0].units)
    assert row["validation_loss"] == pytest.approx(missed, rel=1e-4)
    assert features.test is not None
    maps = torch.tensor(np.asarray(features.test)).float()
    parameters = {"weight": fit.weight.mean(0), "bias": fit.bias.mean(0)}
    tested = readouts.get("full").predict(parameters, maps).numpy()
    assert workspace.recording.test_responses is not None
    measured = workspace.recording.test_responses[:, :, chosen[0].units]
    expected = score_units(tested, measured, intervals=None)["test_correlation"].mean()
    assert row["test_correlation"] == pytest.approx(expected, abs=1e-4)


def test_references_have_intervals_and_units_as_studies_have(
    make_experiment: MakeExperiment,
) -> None:
    workspace = opened(make_experiment())
    chosen = [s for s in workspace.grid if (s.key.layer, s.key.region) == ("_blocks.2", "V1")][:1]
    (one,) = references(workspace, chosen, RIDGE)
    assert one.key == replace(chosen[0].key, readout=RIDGE)
    assert one.row["test_correlation_low"] < one.row["test_correlation"]
    assert one.row["test_correlation"] < one.row["test_correlation_high"]
    assert [unit["unit"] for unit in one.units] == chosen[0].units.tolist()
    assert {unit["study"] for unit in one.units} == {"net/_blocks.2/V1/ridge"}
    for unit in one.units:
        assert unit["test_correlation_low"] < unit["test_correlation"]
    for score in ("validation_loss", "validation_correlation", "test_correlation"):
        mean = np.mean([unit[score] for unit in one.units])
        assert one.row[score] == pytest.approx(
            mean, rel=0.1 if score == "validation_loss" else 1e-6
        )
    assert one.parts is not None
    low, high = mean_interval(one.parts)
    assert one.row["test_correlation_low"] == pytest.approx(low, abs=0.05)
    assert one.row["test_correlation_high"] == pytest.approx(high, abs=0.05)


def test_another_seed_is_another_network(make_experiment: MakeExperiment) -> None:
    first, second = (
        opened(make_experiment({"search": {"seed": seed}}, name=f"seed{seed}")) for seed in (0, 1)
    )
    assert rows_of(first, first.grid, RIDGE) == rows_of(second, second.grid, RIDGE)
    assert rows_of(first, first.grid, RANDOM) != rows_of(second, second.grid, RANDOM)


def test_a_unit_predicted_by_a_constant_is_not_left_out(make_experiment: MakeExperiment) -> None:
    """Of a network whose features are all alike nothing can be read: 0, and not undefined."""
    workspace = opened(make_experiment())
    features = workspace.features.of("net", "_blocks.2")
    assert features.test is not None
    flat = replace(features, train=np.ones_like(features.train), test=np.ones_like(features.test))
    workspace.features._at_hand["net", "_blocks.2"] = flat
    chosen = [s for s in workspace.grid if s.key.layer == "_blocks.2"]
    for row in rows_of(workspace, chosen, RIDGE):
        assert row["validation_correlation"] == 0


def test_losses_of_two_kinds_are_not_drawn_on_one_scale(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    recording = write_recording(tmp_path / "counts.h5")
    with h5py.File(recording, "a") as file:
        for part in ("train", "test"):
            file[f"{part}/responses"][...] = np.abs(file[f"{part}/responses"][()])
    config = make_experiment({"data": {"path": str(recording)}, "training": {"loss": "poisson"}})
    workspace = opened(config)
    stores: Any = None  # refused before anything is looked up
    with pytest.raises(InputError, match="squared error, the studies' poisson"):
        export_heatmap(
            workspace, stores, [], tmp_path, metric="validation_loss", references=["ridge"]
        )
    with pytest.raises(InputError, match="squared error, the studies' poisson"):
        draw_heatmap(workspace, stores, [], metric="validation_loss", references=["ridge"])
    row = {"validation_loss": 0.4, "validation_correlation": 0.7}
    assert of_tables(workspace, [row]) == [row | {"validation_loss": None}]
    assert of_tables(opened(make_experiment(name="mse")), [row]) == [row]


def test_searches_are_compared_with_closed_forms_in_pairs(make_experiment: MakeExperiment) -> None:
    """The difference's interval is of the same samples: surer than either score where both err on the same images."""
    config = make_experiment({"search": {"space": {"full": {}, "smooth": {"width": [0.0, 0.7]}}}})
    workspace = opened(config)
    full, smooth = (
        next(s for s in workspace.grid if s.key.region == "V1" and s.key.readout == readout)
        for readout in ("full", "smooth")
    )
    assert workspace.recording.test_responses is not None
    measured = np.nanmean(workspace.recording.test_responses, axis=0)[:, full.units]
    draw = np.random.default_rng(0).normal(size=(2, *measured.shape)) * measured.std(0)
    near = measured + draw[0]
    predictions = ((full, near), (smooth, near + 0.3 * draw[1]))

    def evaluated(spec: Spec, predicted: NDArray[Any]) -> Evaluated:
        worth = on_test_images(workspace, spec.units, predicted)
        nothing: Any = None
        return Evaluated(spec, nothing, worth.columns(workspace), [], nothing, parts=worth.parts)

    found = [evaluated(spec, predicted) for spec, predicted in predictions]
    key = full.key.backbone, full.key.layer, full.key.region

    def against(one: Evaluated, other: Evaluated) -> dict[str, Any]:
        (made,) = compared(workspace, [one], {key: (other.row, other.parts)}, [])
        return made.row

    assert against(found[1], found[1])["against_smooth"] is None, "is no search itself"
    searched = against(*found)
    assert searched["against_start"] is None
    difference = searched["test_correlation"] - found[1].row["test_correlation"]
    low, high = searched["against_smooth_low"], searched["against_smooth_high"]
    assert searched["against_smooth_difference"] == pytest.approx(difference)
    assert low < difference < high
    assert high - low < 0.8 * (searched["test_correlation_high"] - searched["test_correlation_low"])
    assert searched["against_smooth"] == ("ahead" if low > 0 else "not told apart")
    same = against(found[0], found[0])
    assert same["against_smooth"] == "not told apart"
    assert same["against_smooth_difference"] == same["against_smooth_low"] == 0
