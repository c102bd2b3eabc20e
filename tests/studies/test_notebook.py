"""``tuner.open``: the search from a notebook, with arrays that are in memory."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import tuner
from studies.notebook.document import toml
from studies.notebook.opened import OpenExperiment
from tests.conftest import Run
from tuner.errors import InputError

N, TEST, SIZE = 60, 8, 32
SEARCH = {"parallel_trials": 2, "space": {"factorized": {}}}
TRAINING = {"steps": 4, "report_every": 2, "folds": 1, "device": "cpu"}


def arrays() -> dict:
    """Two units that follow the colour of an image's upper half, and one of noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N + TEST, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    clean = images[:, : SIZE // 2].mean((1, 2)) / 20
    clean[:, 2] = rng.standard_normal(len(images))
    return {
        "images": images[:N],
        "responses": clean[:N] + 0.1 * rng.standard_normal((N, 3)),
        "test_images": images[N:],
        "repeats": clean[N:] + 0.1 * rng.standard_normal((2, TEST, 3)),
        "units": {"area": ["V1", "V1", "IT"], "name": ["a", "b", "c"]},
    }


BACKBONE = {"name": "efficientnet_lite0", "layers": ["_blocks.0", "_blocks.2"]}


def opened(folder: Path, shared: Path, **changes: object) -> OpenExperiment:
    given = {
        "data": {"image_size": SIZE, "validation_fraction": 0.3},
        "backbone": BACKBONE,
        "training": TRAINING,
        "search": SEARCH,
        "storage": {"cache": str(shared / "notebook")},
        "quiet": True,
    }
    return tuner.open(folder / "tuner.toml", **(arrays() | given | changes))


def test_from_arrays_to_images(tmp_path: Path, shared: Path, run: Run) -> None:
    experiment = opened(tmp_path / "mine", shared)
    assert experiment.create().new == 4
    assert experiment.optimize(2, region="V1").trials == 4
    done = experiment.optimize(2)
    assert (done.trials, done.complete) == (4, True)
    assert isinstance(experiment.heatmap(), Figure)

    units = experiment.best_layers(per="unit")
    assert units["unit"].tolist() == [0, 1, 2]
    table = experiment.results(per="study")
    regions = experiment.best_layers(per="region")
    assert regions["region"].tolist() == ["IT", "V1"]
    for row in regions[regions["region"] == "V1"].itertuples():
        assert row.validation_loss == table[table["region"] == row.region]["validation_loss"].min()
    config = tmp_path / "mine" / "tuner.toml"
    exported = run("export", "heatmap", "-o", tmp_path / "out", "-c", config)
    assert exported.code == 0
    scores = np.genfromtxt(
        tmp_path / "out" / "units.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    for row in units[:2].itertuples():
        mine = scores[scores["unit"] == row.unit]
        assert row.layer == mine["layer"][np.argmin(mine["validation_loss"])]
        others = mine[mine["layer"] != row.layer]
        assert row.next_layer == others["layer"][np.argmin(others["validation_loss"])]
        assert row.next_validation_loss == pytest.approx(others["validation_loss"].min())
        gap = row.next_validation_loss - row.validation_loss
        assert row.next_difference == pytest.approx(gap, abs=1e-5)
        assert row.next_difference_low < gap < row.next_difference_high
        assert row.choice == ("sure" if row.next_difference_low > 0 else "undecided")
        near = "" if row.choice == "sure" else f"{row.next_backbone}/{row.next_layer}"
        assert row.rivals == near
    with (tmp_path / "out" / "unit_layers.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["layer"] for row in written] == units["layer"].tolist()
    assert [row["choice"] for row in written] == [*units["choice"].tolist()[:2], ""]
    assert [row["name"] for row in written] == ["a", "b", "c"]
    assert f"sure of {units['choice'].tolist().count('sure')} of 3" in exported.out + exported.err
    # of noise there is no best layer, however low a loss
    assert scores[scores["unit"] == 2]["fit_failed"].tolist() == [True, True]
    for table in (units, regions[::-1]):
        assert table["layer"].tolist()[-1] == "none"
        assert table["note"].tolist()[-1] == "no fit is surely better than predicting the mean"
        assert np.isnan(table["validation_loss"].tolist()[-1])
        assert table["region"].tolist()[-1] == "IT"
        assert "none" not in table["layer"].tolist()[:-1]
    with pytest.raises(InputError, match="region IT: no fit .* so there is no best layer"):
        experiment.encoder("IT")
    assert experiment.encoder("IT", layer="_blocks.0").n_units == 1

    encoder = experiment.encoder("V1", layer="_blocks.2")
    assert encoder.meta["study"] == "efficientnet_lite0/_blocks.2/V1/factorized"
    made = experiment.images("V1", units=[1], steps=1)
    assert made.result.units.tolist() == [1]
    assert made.study.split("/")[2] == "V1"
    assert "1 image" in made.verdict or "of 1 images" in made.verdict
    again = tuner.open(tmp_path / "mine" / "tuner.toml", quiet=True)
    assert again.optimize(2).trials == 0
    assert again.recording.unit_name(1) == experiment.recording.unit_name(1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"images": np.zeros((N, SIZE, SIZE, 3))}, "images: is of float64, and must be uint8"),
        ({"images": np.zeros((N, SIZE), np.uint8)}, "images: has shape"),
        ({"responses": np.zeros((N - 1, 3))}, "responses: 59 rows for 60 images"),
        ({"responses": None}, "images and responses: a recording from arrays needs both"),
        ({"repeats": None}, "give both or neither"),
        (
            {"test_groups": np.zeros(TEST)},
            "test_groups: are of test images, in the terms of groups",
        ),
        ({"repeats": np.zeros((TEST, 3))}, "repeats: has shape"),
        ({"units": {"name": ["a"]}}, 'units["name"]: has shape (1,)'),
        ({"data": {"path": "other.h5"}}, 'name no "path"'),
        ({"training": {"stepz": 4}}, "stepz"),
        ({"training": 4}, "training: must be a dictionary"),
    ],
)
def test_what_is_wrong_is_said_by_name(
    tmp_path: Path, shared: Path, wrong: dict, said: str
) -> None:
    with pytest.raises(InputError) as error:
        opened(tmp_path, shared, **wrong)
    assert said in str(error.value)
    assert not (tmp_path / "tuner.toml").exists()


def test_another_experiment_is_not_overwritten(tmp_path: Path, shared: Path) -> None:
    opened(tmp_path, shared)
    before = (tmp_path / "tuner.toml").read_text()
    opened(tmp_path, shared)
    with pytest.raises(InputError, match=r"says something else .*training\.steps"):
        opened(tmp_path, shared, training=TRAINING | {"steps": 6})
    assert (tmp_path / "tuner.toml").read_text() == before
    with pytest.raises(InputError, match="no studies yet"):
        tuner.open(tmp_path / "tuner.toml", quiet=True).heatmap()


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.notebook.progress import Watched

    experiment = opened(tmp_path, shared)
    experiment.create(layer="_blocks.0", region="IT")

    def stop(self: Watched, finished: int) -> None:
        if finished == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watched, "told", stop)
    with pytest.raises(KeyboardInterrupt):
        experiment.optimize(4, layer="_blocks.0", region="IT")
    monkeypatch.undo()
    assert experiment.optimize(4, layer="_blocks.0", region="IT").trials == 2


def test_documents_are_written_as_they_were_meant() -> None:
    import tomllib

    document = {
        "data": {"path": 'a "b"\n.h5', "min_reliability": 0.5},
        "backbone": [{"name": "x"}, {"name": "y", "layers": ["a.0", "b"]}],
        "search": {"space": {"full": {"sparsity": {"low": 1e-7, "high": 1, "log": True}}}},
    }
    assert tomllib.loads(toml(document)) == document


def test_groups_of_test_images_and_what_is_measured_are_written(
    tmp_path: Path, shared: Path
) -> None:
    groups = {"groups": np.arange(N) // 2, "test_groups": np.arange(TEST) // 4}
    experiment = opened(tmp_path, shared, **groups, measured_in="spikes per 100 ms")
    recording = experiment.recording
    assert recording.test_groups is not None
    assert len(np.unique(recording.test_groups)) == 2
    assert recording.measured_in == "spikes per 100 ms"
