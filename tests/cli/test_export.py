"""The exports after a small search: tables to the letter, encoders that answer as the search did, the page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tuner
from cli.main import main
from studies.config.experiment import load_experiment
from studies.workspace import Workspace
from tests import generators
from tuner.encoder import StackedEncoder
from tuner.figures.tables import HEATMAP_COLUMNS, UNIT_KEYS, UNIT_SCORES
from tuner.scores import score_units
from tuner.synthesis import priors

CONFIG = """
[data]
format = "simulated"
image_size = 64
n_train = 300
n_test = 40
n_repeats = 6
units_per_region = 4
pixels_per_degree = 8.0
[[backbone]]
name = "efficientnet_lite0"
alias = "lite/0"
layers = ["_blocks.2", "_blocks.4"]
[training]
steps = 40
report_every = 8
device = "cpu"
[search]
parallel_trials = 6
keep = 2
rungs = "reports"
"""
STUDIES = 2 * 3 * 3
GRID = 4 * 17
"""Settings of a closed form."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    config = folder / "tuner.toml"
    config.write_text(CONFIG)
    assert main(["-q", "-c", str(config), "study", "create"]) == 0
    assert main(["-q", "-c", str(config), "optimize", "--n-trials", "8"]) == 0
    return config


def test_all_studies_of_a_region_together_are_scored_and_saved_as_one_encoder(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-q", "-c", str(searched), "export"]
    out = tmp_path / "out"
    assert main([*command, "heatmap", "-o", str(out), "--stacked"]) == 0
    table = rows(out / "heatmap.csv")
    together = [row for row in table if row["readout"] == "stacked"]
    assert [row["layer"] for row in together] == ["stacked"] * 3
    assert len(table) == STUDIES + 3
    for row in together:
        mine = [r for r in table if r["region"] == row["region"] and r["readout"] != "stacked"]
        assert float(row["validation_loss"]) < 1.05 * min(float(r["validation_loss"]) for r in mine)
        assert row["note"] == "6 studies together"
    assert main([*command, "best", "-o", str(out), "--stacked", "--with-backbone"]) == 0
    workspace = Workspace(load_experiment(searched))
    assert workspace.test_images is not None
    images = workspace.test_images.read(np.arange(40))
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    measured = workspace.recording.test_responses
    assert measured is not None
    for row in together:
        encoder = tuner.load_encoder(out / "lite%2F0/stacked" / row["region"] / "stacked")
        assert isinstance(encoder, StackedEncoder)
        assert encoder.meta["study"] == f"lite%2F0/stacked/{row['region']}/stacked"
        with torch.no_grad():
            answer = encoder(batch).numpy()
        scores = score_units(answer, measured[:, :, encoder.unit_indices], intervals=None)
        of_units = [
            float(unit["test_correlation"])
            for unit in rows(out / "units.csv")
            if unit["study"] == encoder.meta["study"]
        ]
        np.testing.assert_allclose(of_units, scores["test_correlation"], atol=2e-3)
    assert main([*command, "best", "-o", str(out), "--stacked", "--per-unit"]) == 2
    one = ["--layer", "_blocks.2", "--readout", "full"]
    capsys.readouterr()
    assert main([*command, "best", "-o", str(out), "--stacked", *one]) == 2
    assert "no region has two studies" in capsys.readouterr().err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def exported(searched: Path) -> Path:
    out = searched.parent / "out"
    command = ["-q", "-c", str(searched), "export"]
    assert main([*command, "heatmap", "-o", str(out), "--ridge", "--random", "--resplit", "2"]) == 0
    assert main([*command, "best", "-o", str(out)]) == 0
    return out


def test_heatmap_table_to_the_letter(exported: Path) -> None:
    found = rows(exported / "heatmap.csv")
    assert tuple(found[0]) == HEATMAP_COLUMNS
    assert len(found) == STUDIES
    assert {row["backbone"] for row in found} == {"lite/0"}
    for row in found:
        assert int(row["n_units"]) == 4
        assert int(row["n_trials"]) == (GRID if row["readout"] == "smooth" else 8)
        line = {"smooth": "", "full": "true|false", "factorized": "true|false"}[row["readout"]]
        assert re.fullmatch(line, row["below_smooth"])
        assert 0 < float(row["validation_loss"]) < 2
        assert row["fit_failed"] in ("true", "false")
        if not float(row["validation_loss"]) < 1:  # below it too where that may be chance
            assert row["fit_failed"] == "true"
        assert -1 <= float(row["test_correlation"]) <= float(row["noise_ceiling"]) + 0.1
    assert (exported / "heatmap.png").stat().st_size > 5000
    assert "<svg" in (exported / "heatmap.svg").read_text(encoding="utf-8")


def test_a_main_file_is_written_where_it_is_named(searched: Path, exported: Path) -> None:
    def export(*arguments: str) -> int:
        chosen = ["--region", "V4", "--readout", "factorized"]
        return main(["-q", "-c", str(searched), "export", *arguments, *chosen])

    folder = searched.parent / "named"
    assert export("heatmap", "-o", str(folder / "table.csv")) == 0
    mine = [r for r in rows(exported / "heatmap.csv") if r["region"] == "V4"]
    assert rows(folder / "table.csv") == [r for r in mine if r["readout"] == "factorized"]
    assert export("heatmap", "-o", str(folder / "map.svg")) == 0
    assert "<svg" in (folder / "map.svg").read_text(encoding="utf-8")
    assert export("report", "-o", str(folder / "page.html"), "--stacked", "--resplit", "1") == 0
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert '"readout":"stacked"' in page
    assert re.search(
        r'"sure":\["lite/0/V4/factorized: [^"]+( on 1 other cut|predicting the mean)"', page
    )
    best = ["figures", "--only", "best_layer_by_region"]
    assert export(*best, "-o", str(folder / "best.png")) == 0
    assert (folder / "best.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("best.png", "map.svg", "page.html", "table.csv")
    ]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["report", "-o", "page.png"], "not written as .png; name a file NAME.html, or a folder"),
        (["heatmap", "-o", "map.html"], "NAME.png or NAME.svg or NAME.csv, or a folder"),
        (["heatmap", "-o", "map.csv", "--ridge"], "one file does not hold"),
        (["heatmap", "-o", "map.png", "--resplit", "2"], "one file does not hold"),
        (["figures", "-o", "some.svg"], "there are several figures"),
        (["best", "-o", "best.safetensors"], "not written as .safetensors; name a folder"),
        (["mei", "-o", "images.png"], "not written as .png; name a folder"),
        (["report", "-o", "taken.html"], "is a folder"),
    ],
)
def test_a_file_that_is_not_written_is_refused(
    searched: Path,
    command: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (searched.parent / "taken.html").mkdir(exist_ok=True)
    monkeypatch.chdir(searched.parent)
    assert main(["-q", "export", *command]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: -o {command[2]}: ")
    assert line in error
    assert error.count("\n") == 1
    assert not Path(command[2]).is_file()


def test_units_table_has_columns_scores_intervals_and_fields(exported: Path) -> None:
    found = rows(exported / "units.csv")
    assert len(found) == STUDIES * 4
    first = found[0]
    assert tuple(first)[: len(UNIT_KEYS)] == UNIT_KEYS
    assert {"area", *UNIT_SCORES} <= set(first)
    assert float(first["test_correlation_low"]) <= float(first["test_correlation_high"])


def test_mean_over_units_is_what_the_heatmap_says(exported: Path) -> None:
    units = rows(exported / "units.csv")
    for row in rows(exported / "heatmap.csv"):
        mine = [
            u
            for u in units
            if (u["layer"], u["region"], u["readout"])
            == (row["layer"], row["region"], row["readout"])
        ]
        loss = np.mean([float(u["validation_loss"]) for u in mine])
        assert loss == pytest.approx(float(row["validation_loss"]), rel=1e-4)
        assert sum(u["has_ceiling"] == "true" for u in mine) == int(row["n_units_with_ceiling"])


def test_encoder_answers_in_recorded_units_as_the_search_did(
    searched: Path, exported: Path
) -> None:
    recording = tuner.load_recording(
        None,
        "simulated",
        image_size=64,
        n_train=300,
        n_test=40,
        n_repeats=6,
        units_per_region=4,
        seed=0,
        cache=searched.parent / "cache",
    )
    assert recording.test_images is not None
    assert recording.test_responses is not None
    pixels = np.stack([recording.test_images.read(i) for i in range(40)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    folder = exported / "lite%2F0" / "_blocks.4" / "V4" / "factorized"
    encoder = tuner.load_encoder(folder)
    with torch.no_grad():
        predicted = encoder(images).numpy()
    measured = np.nanmean(recording.test_responses, axis=0)
    units = [
        u for u in rows(exported / "units.csv") if u["study"] == "lite%2F0/_blocks.4/V4/factorized"
    ]
    for k, unit in enumerate(units):
        r = np.corrcoef(predicted[:, k], measured[:, int(unit["unit"])])[0, 1]
        assert r == pytest.approx(float(unit["test_correlation"]), abs=2e-3)


def test_references_stand_beside_every_layer_and_region(exported: Path) -> None:
    found = rows(exported / "references.csv")
    assert tuple(found[0]) == HEATMAP_COLUMNS
    studied = {(r["layer"], r["region"]) for r in rows(exported / "heatmap.csv")}
    for readout in ("ridge", "ridge (random weights)"):
        mine = [r for r in found if r["readout"] == readout]
        assert len(mine) == len(studied)
        assert {(r["layer"], r["region"]) for r in mine} == studied
        assert readout in (exported / "heatmap.svg").read_text(encoding="utf-8")
    loss = {(r["layer"], r["region"], r["readout"]): float(r["validation_loss"]) for r in found}
    # V4 and IT of the simulated recording are made of what the network has learned.
    for layer in ("_blocks.2", "_blocks.4"):
        learned, random = (loss[layer, "V4", r] for r in ("ridge", "ridge (random weights)"))
        assert learned < random - 0.02


def test_resplit_compares_every_layer_with_the_chosen_one(exported: Path) -> None:
    found = rows(exported / "resplit.csv")
    assert len(found) == STUDIES
    chosen = [row for row in found if row["chosen"] == "true"]
    told = {
        (row["region"], row["readout"])
        for row in rows(exported / "heatmap.csv")
        if row["fit_failed"] == "false"
    }
    assert sorted((row["region"], row["readout"]) for row in chosen) == sorted(told)
    assert 0 < len(told) < STUDIES // 2  # of some regions no fit is sure, and no layer the best
    assert all(float(row["difference"]) == 0 for row in chosen)
    for row in chosen:
        rivals = [
            r for r in found if (r["region"], r["readout"]) == (row["region"], row["readout"])
        ]
        assert sum(float(r["best_in_draws"]) for r in rivals) == pytest.approx(1)
    assert (exported / "best_layers.png").exists()


def test_per_unit_encoder_is_mixed_by_one_half_of_validation(searched: Path) -> None:
    out = searched.parent / "per_unit"
    command = ["-q", "-c", str(searched), "export", "best", "-o", str(out), "--per-unit"]
    assert main([*command, "--region", "V1", "--layer", "_blocks.2", "--with-backbone"]) == 0
    encoder = tuner.load_encoder(out / "lite%2F0" / "_blocks.2" / "V1" / "full")
    assert encoder.meta["trial"] == "best of every unit"
    assert 0 < encoder.meta["validation_loss"] < 2  # on the half that did not choose
    with torch.no_grad():
        assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def test_report_is_one_page_with_every_study(searched: Path, exported: Path) -> None:
    assert main(["-q", "-c", str(searched), "export", "report", "-o", str(exported)]) == 0
    page = (exported / "report.html").read_text(encoding="utf-8")
    assert page.count("<html") == 1
    assert "simulated" in page
    for layer in ("_blocks.2", "_blocks.4"):
        assert layer in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_images_for_chosen_units(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = searched.parent / "mei"
    command = ["-q", "-c", str(searched), "export", "mei", "-o", str(out), "--layer", "_blocks.2"]
    only = ["--region", "V1", "--readout", "factorized", "--units", "1-2", "--steps", "3"]
    assert main([*command, *only]) == 0
    folder = out / "lite%2F0" / "_blocks.2" / "V1" / "factorized"
    assert len(list(folder.glob("000[12]_*.png"))) == 2
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [unit["unit"] for unit in manifest["units"]] == [1, 2]
    before = (folder / "meis.npz").read_bytes()
    again = out / "again"
    source = str(folder / "manifest.json")
    assert (
        main(["-q", "-c", str(searched), "export", "mei", "-o", str(again), "--from", source]) == 0
    )
    same = again / "lite%2F0" / "_blocks.2" / "V1" / "factorized" / "meis.npz"
    assert same.read_bytes() == before
    capsys.readouterr()
    for passed_over in (["--seed", "0"], ["--units", "1"], ["--layer", "_blocks.2"]):
        words = ["-q", "-c", str(searched), "export", "mei", "-o", str(out / "no"), *passed_over]
        assert main([*words, "--from", source]) == 2
        assert f"{passed_over[0]}: not with --from" in capsys.readouterr().err
    for key, value, message in (
        ("checksum", "0" * 40, "made with the encoders 000000000000"),
        ("trial", 999, "made with trial 999 of lite%2F0/_blocks.2/V1/factorized, whose weights"),
    ):
        other = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (other["encoders"][0]["meta"] if key == "trial" else other["encoders"][0])[key] = value
        changed = out / f"{key}.json"
        changed.write_text(json.dumps(other))
        words = ["-q", "-c", str(searched), "export", "mei", "-o", str(out / "no")]
        assert main([*words, "--from", str(changed)]) == 2
        assert message in capsys.readouterr().err
    assert main([*command, "--units", "99"]) == 2
    assert "--units 99" in capsys.readouterr().err


def test_images_out_of_a_generator_of_ones_own(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = generators.script(generators.Small(), searched.parent / "generator.pt")
    out = searched.parent / "generated"
    command = ["-q", "-c", str(searched), "export", "mei", "-o", str(out), "--layer", "_blocks.2"]
    only = ["--region", "V1", "--readout", "factorized", "--units", "1", "--steps", "3"]
    own = ["--prior", "generator", "--prior-option", f"path={network}", "--norm", "2.5"]
    assert main([*command, *only, *own, "--prior-option", f"code={generators.CODE}"]) == 0
    folder = out / "lite%2F0" / "_blocks.2" / "V1" / "factorized"
    settings = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["settings"]
    assert settings["prior"] == "generator"
    assert (settings["norm"], settings["contrast"]) == (2.5, None)
    moved = Path(network).rename(searched.parent / "elsewhere.pt")
    priors._made.cache_clear()  # as in another process
    again = ["-q", "-c", str(searched), "export", "mei", "-o", str(out / "again")]
    again += ["--from", str(folder / "manifest.json")]
    capsys.readouterr()
    assert main(again) == 2
    assert "generator.pt" in capsys.readouterr().err
    assert main([*again, "--prior-option", f"path={moved}"]) == 0
    same = out / "again" / "lite%2F0" / "_blocks.2" / "V1" / "factorized" / "meis.npz"
    assert same.read_bytes() == (folder / "meis.npz").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--prior-option", "colour"], "KEY=VALUE"),
        (["--prior-option", "colour=-1"], "colour"),
        (["--prior-option", "hue=1"], "unknown option 'hue'"),
        (["--prior-option", "colour=1", "--prior-option", "colour=0"], "twice"),
        (["--prior", "generator"], "path"),
        (["--norm", "1", "--contrast", "0.1"], "norm"),
        (["--norm", "-1"], "norm"),
    ],
)
def test_impossible_ways_of_making_images(
    searched: Path, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(searched.parent / "never")
    assert main(["-q", "-c", str(searched), "export", "mei", "-o", out, *given]) == 2
    assert message in capsys.readouterr().err


def test_figures_of_studies_and_of_what_compares_them(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = searched.parent / "figures"
    command = ["-c", str(searched), "export", "figures", "-o", str(out), "--region", "V1"]
    assert main([*command, "--width", "single", "--theme", "dark"]) == 0
    said = capsys.readouterr().err
    for readout in ("full", "factorized"):
        folder = out / "lite%2F0" / "_blocks.2" / "V1" / readout
        stems = {path.stem for path in folder.iterdir()}
        assert stems == {"curves", "slices", "weights"}
        for stem in stems:
            assert "<svg" in (folder / f"{stem}.svg").read_text(encoding="utf-8")
            with Image.open(folder / f"{stem}.png") as picture:
                assert picture.width == pytest.approx(85 / 25.4 * 300, abs=1)
                assert picture.convert("L").getpixel((2, 2)) < 40
    assert "needs 10 complete trials" in said
    assert said.count("other cuts decide (tuner export heatmap --resplit 5)") == 1
    made = {path.name for path in out.glob("*.*")}
    assert made == {
        f"{stem}.{kind}"
        for stem in ("units_by_readout_V1", "units_by_layer_V1", "best_layer_by_region")
        for kind in ("png", "svg")
    }


def test_one_figure_of_one_study(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = searched.parent / "one"
    command = ["-c", str(searched), "export", "figures", "-o", str(out), "--layer", "_blocks.2"]
    one = [*command, "--region", "V1", "--readout", "full"]
    assert main([*one, "--only", "units_by_layer"]) == 0
    assert "units_by_layer_V1: needs two layers" in capsys.readouterr().err
    assert not out.exists()
    assert main([*one, "--only", "curves"]) == 0
    assert {path.stem for path in out.rglob("*.png")} == {"curves"}
    capsys.readouterr()
    assert main([*one, "--only", "units_by_layer_V1"]) == 2  # as the file is called
    assert "say --only units_by_layer --region V1" in capsys.readouterr().err
    for wrong in (["--only", "curve"], ["--metric", "r2"]):
        capsys.readouterr()
        assert main([*one, *wrong]) == 2
        assert f"unknown {'figure' if 'curve' in wrong else 'metric'}" in capsys.readouterr().err


def test_show_and_status(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-q", "-c", str(searched)]
    name = "lite%2F0/_blocks.2/V1/full"
    assert main([*command, "study", "show", name, "--format", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert len(shown["trials"]) == 8
    assert shown["importance"] == {}  # of so few trials none is computed
    assert main([*command, "study", "show", name]) == 0
    assert re.search(r"training time +\d+:\d\d", capsys.readouterr().out)
    assert main([*command, "study", "list"]) == 0
    listed = capsys.readouterr().out
    assert "pruned" in listed.splitlines()[0]
    assert "waiting" not in listed  # a column of nothing but 0
    assert name in listed  # on one line
    assert main([*command, "status", "--format", "json"]) == 0
    (seen,) = json.loads(capsys.readouterr().out)
    assert seen["finished"] == 8 * STUDIES * 2 // 3 + GRID * STUDIES // 3
    assert seen["running"] == {}
    assert main([*command, "doctor"]) == 0
    assert "mended" not in capsys.readouterr().out
    assert main([*command, "study", "show", "nothing"]) == 2
    assert "unknown study 'nothing'" in capsys.readouterr().err


def test_second_search_does_nothing_and_says_so(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-c", str(searched), "optimize", "--n-trials", "8"]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_images_are_judged_by_encoders_that_did_not_make_them(searched: Path) -> None:
    out = searched.parent / "judged"
    command = ["-q", "-c", str(searched), "export", "mei", "-o", str(out), "--layer", "_blocks.2"]
    only = ["--region", "V1", "--readout", "factorized", "--units", "0", "--steps", "3"]
    assert main([*command, *only, "--evaluate"]) == 0
    folder = out / "lite%2F0" / "_blocks.2" / "V1" / "factorized"
    found = rows(folder / "evaluation.csv")
    assert [row["made_with"] for row in found].count("true") == 1
    assert any("/full" in row["encoder"] and row["made_with"] == "false" for row in found)
    assert len(found) == 4  # two kept trials and the two other readouts
    assert all(row["natural_image"] and row["natural_inside_image"] for row in found)
    assert {row["judge"] for row in found} == {"maker", "same study", "same backbone"}
    judged = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert "no independent evidence" in judged["headline"]
    assert [judge["judge"] for judge in judged["judges"]] == [row["judge"] for row in found]
    other = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    makers = [row["encoder"] for row in found if row["made_with"] == "true"]
    assert makers == [
        f"{other['encoders'][0]['meta']['study']} #{other['encoders'][0]['meta']['trial']}"
    ]
    # By the second best trial, and so again from their manifest.
    with_both = [*command, *only, "--ensemble", "2"]
    assert main(with_both) == 0
    both = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    other["encoders"] = both["encoders"][1:]
    second = out / "second.json"
    second.write_text(json.dumps(other))
    again = ["-q", "-c", str(searched), "export", "mei", "-o", str(out / "again")]
    assert main([*again, "--from", str(second), "--evaluate"]) == 0
    found = rows(out / "again" / "lite%2F0" / "_blocks.2" / "V1" / "factorized" / "evaluation.csv")
    trial = both["encoders"][1]["meta"]["trial"]
    made = [row["encoder"] for row in found if row["made_with"] == "true"]
    assert made == [f"{both['encoders'][1]['meta']['study']} #{trial}"]
    assert made != makers


def test_the_loop_closes(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images go out, responses that follow the predictions come back, and the scores say so."""
    session, scores = searched.parent / "session", searched.parent / "scores"
    command = ["-c", str(searched), "stimuli", "export", "-o", str(session)]
    only = ["--layer", "_blocks.2", "--region", "V1", "--readout", "factorized"]
    assert (
        main([*command, *only, "--steps", "5", "--size", "100", "--pixels-per-degree", "20"]) == 0
    )
    assert re.search(r"factorized: 4 images in 1 batch of 8, 5 steps: ", capsys.readouterr().err)
    manifest = rows(session / "manifest.csv")
    units = [name for name in manifest[0] if "#" in name]
    rng = np.random.default_rng(0)
    recorded = searched.parent / "recorded.csv"
    with recorded.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "repeat", *(name.split("#")[1] for name in units)])
        for repeat in range(8):
            for row in manifest:
                noisy = [float(row[name]) + 0.3 * rng.standard_normal() for name in units]
                writer.writerow([row["image"], repeat, *noisy])
    assert main(["-q", "stimuli", "score", str(session), str(recorded), "-o", str(scores)]) == 0
    prediction = rows(scores / "prediction.csv")
    assert len(prediction) == 4
    assert len(list(scores.glob("*.png"))) >= 2
    image = next((session / "images").glob("*.png"))
    image.rename(image.with_name("other.png"))
    assert main(["-q", "stimuli", "score", str(session), str(recorded), "-o", str(scores)]) == 2
