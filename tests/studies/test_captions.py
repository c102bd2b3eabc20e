"""Captions follow the data: every export of five recordings says what its numbers are over, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import optuna
import pytest
from optuna_dashboard import get_note

import tuner
from studies.config.experiment import load_experiment
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from tests.conftest import Run
from tests.studies.small import IMAGES, REPEATS, TEST, write_experiment, write_recording
from tuner.figures import style
from tuner.figures.captions import NOTHING

FOLDED = f"{IMAGES} training images in 5 folds, each by a fit that did not see it"
OPTIMISTIC = "validation, selected on, optimistic"

KINDS: dict[str, dict[str, Any]] = {
    "no test set": {"units": "mean over all 3 units", "images": "no test set"},
    "one repeat": {
        "units": "mean over 3 units, none with a ceiling",
        "images": f"{TEST} test images, one response (or mean of several) each",
    },
    "ceilings": {
        "units": "mean over 2 of 3 units: those with a ceiling and an explainable variance of at least .15",
        "images": f"{TEST} test images, {REPEATS} repeats each",
    },
    "simulated": {
        "units": "mean over 2 of 3 units: those with a ceiling and an explainable variance of at least .15",
        "images": f"{TEST} test images, up to {REPEATS} repeats",
    },
    "random": {
        "units": "mean over 2 of 3 units: those with a ceiling and an explainable variance of at least .15",
        "images": f"{TEST} test images, {REPEATS} repeats each",
    },
}


OF_ONE = ("--layer", "_blocks.2", "--readout", "full")
"""The study that images are made of."""

REPEATED = dict.fromkeys(KINDS, True) | {"no test set": False, "one repeat": False}


def change(path: Path, kind: str) -> None:
    """Make a recording one of the kinds; a unit's test responses are noise where there are several."""
    with h5py.File(path, "a") as file:
        responses = file["test/responses"][:]
        if kind == "no test set":
            del file["test"]
        elif kind == "one repeat":
            del file["test/responses"]
            file["test/responses"] = responses[:1]
        else:
            responses[:, :, 2] = responses[[0, 1, 0, 1], :, 2]
            responses[[1, 3], :, 2] *= -1
            if kind == "simulated":
                responses[0, 0, 0] = float("nan")
                file.attrs["simulated"] = True
            file["test/responses"][...] = responses


def invent(stimuli: Path, path: Path) -> None:
    """Write responses to a folder's images, twice each: what was predicted, a little less the second time."""
    with (stimuli / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predicted = [name for name in rows[0] if "#" in name]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "repeat", *(name.rsplit("#", 1)[1] for name in predicted)])
        for row in rows:
            for repeat in (0, 1):
                values = [float(row[name]) - 0.01 * repeat for name in predicted]
                writer.writerow([row["image"], repeat, *values])


@pytest.mark.parametrize("kind", KINDS)
def test_every_export_says_what_its_numbers_are_over(
    kind: str, shared: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(write_recording(tmp_path / "recording.h5", units={"V1": 3}), kind)
    network = {"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2", "_blocks.4"]}
    weights = "random" if kind == "random" else "imagenet"
    config = write_experiment(
        tmp_path / "experiment",
        shared,
        {
            "data": {"path": str(tmp_path / "recording.h5")},
            "backbone": [network | {"weights": weights}],
            "training": {"steps": 4, "folds": "auto", "start": "readout"},
            "search": {"space": {"full": {}, "smooth": {"width": [0.0, 0.7]}}},
        },
    )
    heads: list[tuple[str, str]] = []
    head = style.head

    def recorded(figure: Any, title: str, sub: str, *rest: Any) -> float:
        heads.append((title, sub))
        return head(figure, title, sub, *rest)

    monkeypatch.setattr(style, "head", recorded)
    monkeypatch.setattr(style, "render", lambda figure, kind, **_: b"")  # drawn is not rendered
    out = tmp_path / "out"
    for words in (
        ("study", "create"),
        ("optimize", "--n-trials", 4),
        ("export", "heatmap", "-o", out),
        ("export", "figures", "-o", out),
        ("export", "report", "-o", out),
        ("export", "mei", "-o", out, "--units", "1", "--steps", 1, *OF_ONE),
        ("stimuli", "export", "-o", tmp_path / "stimuli", "--steps", 1, "--blocks", 2, *OF_ONE),
        *([("data", "inspect", "-o", tmp_path / "units")] if REPEATED[kind] else []),
    ):
        ended = run(*words, "-c", config, "-q")
        assert ended.code == 0, ended.err
    invent(tmp_path / "stimuli", tmp_path / "recorded.csv")
    before = len(heads)
    ended = run("stimuli", "score", tmp_path / "stimuli", tmp_path / "recorded.csv", "-o", out)
    assert ended.code == 0, ended.err
    assert ("simulated recording" in ended.err) == (kind == "simulated")
    of_session = heads[before:]
    del heads[before:]

    tested = kind != "no test set"
    readouts = "full, factorized: best of 4 trials; smooth: closed form"
    units, images = KINDS[kind]["units"], KINDS[kind]["images"]
    validation = f"{OPTIMISTIC} \N{MIDDLE DOT} {FOLDED}"
    on = images if tested else f"{validation} \N{MIDDLE DOT} no test set"
    scores = " \N{MIDDLE DOT} ".join((units, on, f"{weights} weights", readouts))
    captions = dict(heads)
    assert scores in captions["Test correlation" if tested else "Validation correlation"]
    assert scores in next(sub for title, sub in heads if title.startswith("Best layer of each"))
    by_unit = next(sub for title, sub in heads if title.startswith("Region V1"))
    assert f"{on} \N{MIDDLE DOT} {weights} weights" in by_unit
    of_study = [sub for title, sub in heads if title.startswith("net/")]
    name = "net/_blocks.2/V1/full"
    assert sum(f"loss: mean over units, {FOLDED}" in sub for sub in of_study) >= 2  # curves, slices
    assert all(f"{weights} weights" in sub for sub in of_study)
    for _, sub in heads:
        assert ("simulated recording" in sub) == (kind == "simulated")
        assert ("ceiling" in sub) <= tested

    if REPEATED[kind]:
        assert f"{TEST} test images, {REPEATS} repeats" in heads[-1][1]

    # images, and what came back of them
    encoder = f"full: best of 4 trials \N{MIDDLE DOT} {weights} weights"
    with (out / "heatmap.csv").open(newline="") as file:
        (mine,) = (r for r in csv.DictReader(file) if (r["layer"], r["readout"]) == OF_ONE[1::2])
    if mine["fit_failed"] == "true":
        encoder += f" \N{MIDDLE DOT} {NOTHING}"
    (sheet,) = (sub for title, sub in heads if title == f"Most exciting images: {name}")
    made = json.loads((out / name / "manifest.json").read_text())
    assert made["about"] == encoder
    assert encoder in sheet
    assert made["verdict"] in sheet
    assert f"best of {IMAGES} training images" in sheet
    assert [len(unit["images"]) for unit in made["units"]] == [1]
    (shown,) = json.loads((tmp_path / "stimuli" / "stimuli.json").read_text())["encoders"]
    assert shown["about"] == encoder
    note = " ".join((tmp_path / "stimuli" / "README.txt").read_text().split())
    assert f"{name}: {encoder}" in note
    assert ("SIMULATED" in note) == (kind == "simulated")
    assert len(of_session) == 3  # predicted and measured, own and natural, who responds
    for _, sub in of_session:
        assert encoder in sub
        assert ("simulated recording" in sub) == (kind == "simulated")
    assert "2 repeats" in of_session[0][1]
    assert "of 3 units" in of_session[1][1]

    written = json.loads((out / "heatmap.json").read_text())["scores"]
    assert (
        ("test_correlation" in written)
        == ("test_correlation_normalized" in written or kind == "one repeat")
        == tested
    )
    assert written["test_correlation" if tested else "validation_correlation"] == scores
    assert written["validation_loss"].startswith(
        f"mean over all 3 units \N{MIDDLE DOT} {validation}"
    )

    # the scores of a study as listings and the dashboard have them since the search ended
    listed = json.loads(run("study", "list", "--format", "json", "-c", config).out)
    with (out / "heatmap.csv").open(newline="") as file:
        table = {(row["layer"], row["readout"]): row for row in csv.DictReader(file)}
    for item in listed:
        row = table[item["layer"], item["readout"]]
        assert item["loss"] == pytest.approx(float(row["validation_loss"]))
        found = item["test_correlation"]
        assert found == (
            pytest.approx(float(row["test_correlation"]), abs=1e-4) if tested else None
        )
    with open_stores(load_experiment(config)) as stores:
        for name in stored_studies(stores.storage):
            there = optuna.load_study(study_name=name, storage=stores.storage.optuna)
            _, layer, _, readout = name.split("/")
            row = table[layer, readout]
            assert there.user_attrs["fit_failed"] == (row["fit_failed"] == "true")
            note = get_note(there)
            assert ("**Test correlation" in note) == tested
            assert ("not surely better" in note) == there.user_attrs["fit_failed"]

    page = (out / "report.html").read_text()
    overview = json.loads(page.split('id="overview">')[1].split("</script>")[0])
    assert {m["name"]: m["over"] for m in overview["metrics"]} == written
    assert overview["untrained"] == (["net"] if kind == "random" else [])
    verdicts = [row["against_smooth"] for row in table.values()]
    assert sum(map(bool, verdicts)) == (
        4 if tested else 0
    )  # of two layers and two searched readouts
    for best in tuner.open(config, quiet=True).best_layers().to_dict("records"):
        row = table.get((best["layer"], best["readout"]), {"against_smooth": ""})
        assert (best["against_smooth"] or "") == row["against_smooth"]
    for text in (
        (
            captions["Test correlation"],
            next(m["against"] for m in overview["metrics"] if m["name"] == "test_correlation"),
        )
        if tested
        else ()
    ):
        assert text.count("searches by test correlation (paired, 95 %): against smooth") == 1
        for word in ("ahead", "behind", "not told apart"):
            counted = verdicts.count(word)
            assert (f"{counted} {word}" in text) == bool(counted)
    studies = [row for row in overview["rows"] if not row.get("reference")]
    assert all(units in row["over"][-1] for row in studies)
