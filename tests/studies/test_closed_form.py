"""Studies in closed form: their grid points are their trials, and they are the line that searches are shown against."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState

import tuner
from studies.config.experiment import load_experiment
from studies.config.ranges import grid
from studies.database import trials
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from studies.database.summaries import ENCODER_LOSS
from studies.database.weights import kept_files
from studies.results.predictions import predictions
from studies.search import closed_form
from studies.workspace import Workspace
from tests.conftest import Run
from tests.soak.outcome import differences, look
from tests.studies.conftest import MakeExperiment
from tuner.closed_form.smooth import fit_smooth

GRID = {"width": [0.0, 1.5], "penalty": {"low": 0.01, "high": 10.0}}
POINTS = 2 * 7
SMOOTH = {"search": {"space": {"full": {}, "factorized": {}, "smooth": GRID}}}


@pytest.fixture
def small(make_experiment: MakeExperiment, run: Run) -> Path:
    """Two layers, two regions, three readouts; the closed forms are fitted, nothing is searched yet."""
    config = make_experiment(SMOOTH)
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "--n-trials", 3, "--readout", "smooth", "-c", config).code == 0
    return config


def listed(run: Run, config: Path, *words: object) -> dict[str, dict[str, Any]]:
    rows = run("study", "list", "--format", "json", "-c", config, *words).json
    return {row["study"]: row for row in rows}


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            "/".join(row[p] for p in ("backbone", "layer", "region", "readout")): row
            for row in csv.DictReader(file)
        }


def test_grid_points_are_trials_valued_as_all_trials_are(small: Path) -> None:
    """Every value is the loss on the validation images of the textbook's ridge under that setting."""
    workspace = Workspace(load_experiment(small))
    responses = workspace.scaling.apply(workspace.recording.train_responses)
    with open_stores(workspace.experiment) as stores:
        stored = stored_studies(stores.storage)
        for spec in workspace.grid:
            loaded = trials.load(stores.storage, [stored[spec.name].study_id])
            (mine,) = loaded.values()
            if not spec.closed_form:
                assert mine == []
                continue
            assert [t.params for t in mine] == grid(spec.space)
            assert {t.state for t in mine} == {TrialState.COMPLETE}
            features = workspace.features.of(spec.key.backbone, spec.key.layer).train
            found = fit_smooth(
                features,
                responses[:, spec.units],
                workspace.cuts.fitted,
                others=workspace.cuts.held_out,
                widths=(0.0, 1.5),
                penalties=[t.params["penalty"] for t in mine[:7]],
            )
            values = [t.value for t in mine]
            expected = found.other_loss.mean(axis=1) / workspace.mean_loss(spec.units)
            np.testing.assert_allclose(values, expected, rtol=1e-9)
            kept = kept_files(stores.storage, stored[spec.name].study_id)
            assert list(kept) == [None]
            tensors = kept[None].read(stores.artifacts)
            assert tensors["trial"].tolist() == found.chosen.tolist()
            y = predictions("smooth", tensors, features, workspace.cuts.held_out)
            np.testing.assert_allclose(y, found.others, atol=1e-4)
            halves = [
                np.mean(
                    (y - workspace.targets.validation[:, spec.units])[workspace.cuts.halves == h]
                    ** 2,
                    0,
                )
                for h in (0, 1)
            ]
            np.testing.assert_allclose(tensors["unit_loss"].T, halves, rtol=1e-4)


def test_its_target_is_its_grid_and_a_second_run_does_nothing(small: Path, run: Run) -> None:
    before = look(small, POINTS, only="smooth")
    assert before.problems == []
    for n in (1, 200):
        again = run("optimize", "--n-trials", n, "--readout", "smooth", "-c", small)
        assert again.code == 0
        assert "nothing to do" in again.err
    assert differences(before.outcome, look(small, POINTS, only="smooth").outcome) == []


def test_regions_and_layers_one_by_one_come_to_the_same(
    small: Path, make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment(SMOOTH, name="parts")
    assert run("study", "create", "-c", config).code == 0
    for region in ("IT", "V1"):
        words = ("--readout", "smooth", "--region", region)
        assert run("optimize", "--n-trials", 1, *words, "-c", config).code == 0
    together, apart = listed(run, small), listed(run, config)
    for name, row in together.items():
        if row["best"] is not None:
            assert apart[name]["best"]["params"] == row["best"]["params"]
            assert apart[name]["best"]["value"] == pytest.approx(row["best"]["value"], rel=1e-12)


def test_a_failure_between_asking_and_telling_leaves_trials_that_run_again(
    make_experiment: MakeExperiment, run: Run, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_experiment(SMOOTH, name="failing")
    assert run("study", "create", "-c", config).code == 0
    command = ("optimize", "--n-trials", 1, "--readout", "smooth", "-c", config)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(closed_form, "solve", full)
        assert run(*command).code == 3
    counts = [row["trials"] for row in listed(run, config).values() if "smooth" in row["study"]]
    assert [c["waiting"] for c in counts] == [POINTS, POINTS, 0, 0]
    assert run(*command).code == 0
    assert (
        differences(
            look(small, POINTS, only="smooth").outcome, look(config, POINTS, only="smooth").outcome
        )
        == []
    )


def test_too_little_memory_is_refused_before_anything_is_made(
    make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment({**SMOOTH, "training": {"memory": "100KB"}})
    ended = run("study", "create", "-q", "-c", config)
    ended.check_one_line_error(3, "training.memory", "90 images", "[search.space]")
    assert run("study", "create", "--readout", "full", "-c", config).code == 0


def test_searches_are_shown_against_the_line(small: Path, run: Run, tmp_path: Path) -> None:
    before = listed(run, small)
    assert {row["below_smooth"] for row in before.values()} == {None}
    assert run("optimize", "--n-trials", 1, "-c", small).code == 0
    assert run("export", "heatmap", "-o", tmp_path, "-c", small).code == 0
    rows, found = table(tmp_path / "heatmap.csv"), listed(run, small)
    alone = listed(run, small, "--readout", "full")
    for name, row in rows.items():
        line = float(rows[name.rpartition("/")[0] + "/smooth"]["validation_loss"])
        below = None if name.endswith("smooth") else line < float(row["validation_loss"])
        assert found[name]["below_smooth"] is below
        assert row["below_smooth"] == {None: "", True: "true", False: "false"}[below]
        if name in alone:
            assert alone[name]["below_smooth"] is below
    shown = run("study", "list", "-c", small)
    assert "loss above smooth" in shown.out  # one trial of twenty steps is
    described = run("study", "show", "net/_blocks.2/V1/full", "-c", small).out
    assert "loss above smooth" in described


def test_the_row_is_of_the_encoder_that_is_exported(small: Path, run: Run, tmp_path: Path) -> None:
    only = ("--readout", "smooth", "-c", small)
    assert run("export", "heatmap", "-o", tmp_path, *only).code == 0
    assert run("export", "best", "-o", tmp_path, *only).code == 0
    workspace = Workspace(load_experiment(small))
    rows = workspace.cuts.held_out
    images = torch.from_numpy(workspace.images.read(rows)).permute(0, 3, 1, 2).float() / 255
    with (tmp_path / "units.csv").open(encoding="utf-8", newline="") as file:
        units = list(csv.DictReader(file))
    for name, row in table(tmp_path / "heatmap.csv").items():
        encoder = tuner.load_encoder(tmp_path / name)
        assert encoder.meta["trial"] == "best of every unit"
        measured = workspace.recording.train_responses[np.ix_(rows, encoder.unit_indices)]
        with torch.no_grad():
            error = (encoder(images).numpy() - measured) / encoder.response_scale.numpy()
        missed = (error**2).mean(axis=0).mean() / workspace.mean_loss(encoder.unit_indices)
        assert float(row["validation_loss"]) == pytest.approx(missed, rel=1e-3)
        assert encoder.meta["validation_loss"] == float(row["validation_loss"])
        mine = [float(u["validation_loss"]) for u in units if u["study"] == name]
        flat = workspace.targets.validation[:, encoder.unit_indices] ** 2
        np.testing.assert_allclose(mine, (error**2).mean(axis=0) / flat.mean(axis=0), rtol=1e-3)
        assert np.average(mine, weights=flat.mean(axis=0)) == pytest.approx(
            float(row["validation_loss"]), rel=1e-5
        )
        with open_stores(workspace.experiment) as stores:
            study = stored_studies(stores.storage)[name]
            loaded = trials.load(stores.storage, [study.study_id])[study.study_id]
        assert min(t.value for t in loaded if t.value is not None) == pytest.approx(
            listed(run, small)[name]["best"]["value"]
        )


def test_it_has_one_encoder_and_images_are_made_with_it(
    small: Path, run: Run, tmp_path: Path
) -> None:
    only = ("--readout", "smooth", "--layer", "_blocks.2", "--region", "V1", "-c", small)
    refused = run("export", "mei", "-o", tmp_path, "--ensemble", 2, "--steps", 2, *only)
    refused.check_one_line_error(2, "--ensemble 2", "one encoder", "--readout")
    made = run("export", "mei", "-o", tmp_path, "--evaluate", "--units", 1, "--steps", 2, *only)
    assert made.code == 0, made.err
    folder = tmp_path / "net" / "_blocks.2" / "V1" / "smooth"
    manifest = folder / "manifest.json"
    before = (folder / "meis.npz").read_bytes()
    again = run("export", "mei", "-o", tmp_path / "again", "--from", manifest, "-c", small)
    assert again.code == 0, again.err
    assert (tmp_path / "again" / folder.relative_to(tmp_path) / "meis.npz").read_bytes() == before
    for per_unit in ((), ("--per-unit",)):
        out = tmp_path / f"best{len(per_unit)}"
        assert run("export", "best", "-o", out, *per_unit, *only).code == 0
    one, other = (
        tuner.load_encoder(tmp_path / f"best{i}" / folder.relative_to(tmp_path)) for i in (0, 1)
    )
    assert one.checksum() == other.checksum()


def test_lost_weights_are_fitted_again(small: Path, run: Run, tmp_path: Path) -> None:
    before = look(small, POINTS, only="smooth")
    name = "net/_blocks.2/V1/smooth"
    with open_stores(load_experiment(small)) as stores:
        study = stored_studies(stores.storage)[name]
        file = kept_files(stores.storage, study.study_id)[None]
        stores.artifacts.path(file.artifact_id).write_bytes(b"rust")
    ended = run("export", "heatmap", "-o", tmp_path, "--readout", "smooth", "-c", small)
    assert ended.code == 0, ended.err
    rows = table(tmp_path / "heatmap.csv")
    assert rows[name]["validation_loss"] == ""
    assert rows[name]["note"]
    assert all(rows[other]["validation_loss"] for other in rows if other != name)
    assert "fits it again" in run("doctor", "-c", small).out
    assert run("doctor", "--fix", "-c", small).code == 0
    assert listed(run, small)[name]["trials"]["waiting"] == POINTS
    assert run("optimize", "--n-trials", 1, "--readout", "smooth", "-c", small).code == 0
    assert differences(before.outcome, look(small, POINTS, only="smooth").outcome) == []
    assert run("doctor", "-c", small).err.strip().endswith("all is well")


def test_figures_report_and_other_cuts_know_it(small: Path, run: Run, tmp_path: Path) -> None:
    only = ("--layer", "_blocks.2", "--readout", "smooth", "-c", small)
    drawn = run("export", "figures", "-o", tmp_path, *only)
    assert drawn.code == 0, drawn.err
    assert "fitted in closed form, without steps" in drawn.err
    folder = tmp_path / "net" / "_blocks.2" / "V1" / "smooth"
    assert {p.stem for p in folder.iterdir()} == {"importance", "slices", "weights"}
    assert run("export", "report", "-o", tmp_path, *only).code == 0
    assert run("export", "heatmap", "--resplit", 2, "-o", tmp_path, "-c", small).code == 0
    rows = table(tmp_path / "resplit.csv")
    mine = [row for name, row in rows.items() if name.endswith("smooth")]
    assert len(mine) == 4
    assert all(0 < float(row["validation_loss"]) < 2 for row in mine)


def test_counts_are_fitted_by_their_loss(make_experiment: MakeExperiment, run: Run) -> None:
    config = make_experiment(SMOOTH | {"training": {"loss": "poisson"}}, name="counts")
    path = _counts(config)
    text = config.read_text().replace(str(load_experiment(config).data.path), str(path))
    config.write_text(text)
    assert run("study", "create", "-c", config).code == 0
    ended = run("optimize", "--n-trials", 1, "--readout", "smooth", "-c", config)
    assert ended.code == 0, ended.err
    workspace = Workspace(load_experiment(config))
    spec = next(s for s in workspace.grid if s.closed_form)
    with open_stores(workspace.experiment) as stores:
        study = stored_studies(stores.storage)[spec.name]
        tensors = kept_files(stores.storage, study.study_id)[None].read(stores.artifacts)
    features = workspace.features.of(spec.key.backbone, spec.key.layer).train
    y = predictions("smooth", tensors, features, workspace.cuts.held_out)
    rate = np.where(y > 0, y + 1, np.exp(np.minimum(y, 0)))
    target = workspace.targets.validation[:, spec.units]
    loss = float(np.mean(rate - target * np.log(rate + 1e-9)))
    found = run(
        "export", "heatmap", "-o", config.parent / "out", "--readout", "smooth", "-c", config
    )
    assert found.code == 0, found.err
    row = table(config.parent / "out" / "heatmap.csv")[spec.name]
    assert float(row["validation_loss"]) == pytest.approx(loss, rel=1e-4)


def _counts(config: Path) -> Path:
    """The small recording with counts for responses."""
    import shutil

    import h5py

    source = load_experiment(config).data.path
    path = Path(shutil.copy(source, config.parent / "counts.h5"))
    with h5py.File(path, "r+") as file:
        for which in ("train", "test"):
            data = file[f"{which}/responses"]
            data[...] = np.round(np.exp(data[...] - data[...].mean()) * 3)
    return path


def test_a_budget_is_of_searched_trials(small: Path, run: Run) -> None:
    assert run("optimize", "--n-trials", 8, "--budget", 8, "-c", small).code == 0
    searched = [r["trials"] for n, r in listed(run, small).items() if not n.endswith("smooth")]
    assert 8 <= sum(c["complete"] + c["pruned"] for c in searched) < 8 * len(searched)


def test_the_dashboard_says_how_many_units_have_a_setting(small: Path) -> None:
    import optuna

    storage = f"sqlite:///{small.parent / 'tuner.db'}"
    study = optuna.load_study(study_name="net/_blocks.2/V1/smooth", storage=storage)
    assert sum(trial.user_attrs.get(closed_form.UNITS, 0) for trial in study.trials) == 3
    assert study.best_trial.user_attrs[ENCODER_LOSS] > 0
    assert set(study.best_params) == {"width", "penalty"}
