from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.recordings.cases import assembly
from tests.recordings.pictures import write_pictures
from tuner.errors import InputError
from tuner.recordings import load_recording

IDS = ["a", "b", "c", "d"]


def write(
    path: Path,
    values: Any,
    dims: tuple[str, ...] = ("presentation", "neuroid"),
    neuroids: Any = ("n0", "n1", "n2"),
    **more: Any,
) -> Path:
    """Write an assembly; `more` maps a name to (dimension, values)."""
    values = np.asarray(values)
    with h5py.File(path, "w") as file:
        for axis, dim in enumerate(dims):
            scale = file.create_dataset(dim, data=np.zeros(values.shape[axis]))
            scale.make_scale("This is a netCDF dimension but not a netCDF variable.")
        columns = {
            "region": ("neuroid", ["IT"] * len(neuroids)),
            "neuroid_id": ("neuroid", list(neuroids)),
        } | more
        for name, (dim, entries) in columns.items():
            file[name] = entries
            file[name].dims[0].attach_scale(file[dim])
        file["neural"] = values
        for axis, dim in enumerate(dims):
            file["neural"].dims[axis].attach_scale(file[dim])
    return path


def named(ids: list[str]) -> dict[str, Any]:
    return {
        "stimulus_id": ("presentation", ids),
        "image_file_name": ("presentation", [f"{i}.png" for i in ids]),
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "images", [f"{i}.png" for i in IDS])
    return tmp_path / "images"


def test_two_assemblies(tmp_path: Path, images: Path) -> None:
    """Training images are averaged over repeats; test neuroids are matched by their names."""
    rng = np.random.default_rng(0)
    train = rng.standard_normal((4, 3))
    test = rng.standard_normal((4, 3))
    first = write(tmp_path / "train.nc", train, **named(["a", "b", "a", "c"]))
    second = write(
        tmp_path / "test.nc", test, neuroids=("n2", "n0", "n1"), **named(["d", "c", "d", "d"])
    )
    found = load_recording(first, "assembly", images=images, test=second)
    np.testing.assert_allclose(
        found.train_responses, [(train[0] + train[2]) / 2, train[1], train[3]], rtol=1e-6
    )
    np.testing.assert_array_equal(
        found.test_responses[:, 0], test[[0, 2, 3]][:, [1, 2, 0]].astype(np.float32)
    )
    np.testing.assert_array_equal(found.test_responses[0, 1], test[1, [1, 2, 0]].astype(np.float32))
    assert np.isnan(found.test_responses[1:, 1]).all()
    assert list(found.test_images.names) == ["d.png", "c.png"]
    assert found.units["area"].tolist() == ["IT"] * 3


def test_two_assemblies_of_other_neuroids(tmp_path: Path, images: Path) -> None:
    first = write(tmp_path / "train.nc", np.eye(3), **named(["a", "b", "c"]))
    for neuroids, message in (
        (("n0", "n1", "n9"), "not those of train.nc .it lacks n2"),
        (("n0", "n1", "n1"), "occurs twice"),
    ):
        second = write(tmp_path / "test.nc", np.eye(3), neuroids=neuroids, **named(["d"] * 3))
        with pytest.raises(InputError, match=message):
            load_recording(first, "assembly", images=images, test=second)


def test_time_bins_are_averaged_over_the_window(tmp_path: Path, images: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 3))
    bins = {
        "time_bin_start": ("time_bin", [70, 90, 110]),
        "time_bin_end": ("time_bin", [90, 110, 130]),
    }
    dims = ("neuroid", "presentation", "time_bin")
    path = write(tmp_path / "x.nc", values, dims, **named(IDS), **bins)
    with pytest.raises(InputError, match="3 time bins; say with window_ms"):
        load_recording(path, "assembly", images=images)
    found = load_recording(path, "assembly", images=images, window_ms=(85, 130))
    np.testing.assert_allclose(found.train_responses, values[:, :, 1:].mean(axis=2).T, rtol=1e-6)
    assert found.test_responses is None
    assert "no test set" in found.notes[0]
    with pytest.raises(InputError, match="no time bin lies within 0 to 60"):
        load_recording(path, "assembly", images=images, window_ms=(0, 60))


def test_texts_as_rows_of_characters(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path / "x.nc", np.eye(4, 3), **named(IDS))
    with h5py.File(path, "a") as file:
        del file["region"]
        rows = [list(area.ljust(4, "\0")) for area in ("V4", "IT", "aIT")]
        file["region"] = np.array(rows, dtype="S1")
        file["region"].dims[0].attach_scale(file["neuroid"])
    found = load_recording(path, "assembly", images=images)
    assert found.units["area"].tolist() == ["V4", "IT", "aIT"]


def without(*names: str) -> Any:
    def change(file: Any) -> None:
        for name in names:
            del file[name]

    return change


def longer(file: Any) -> None:
    del file["region"]
    file["region"] = ["IT"] * 5
    file["region"].dims[0].attach_scale(file["neuroid"])


def second_variable(file: Any) -> None:
    file["other"] = file["neural"][()]
    for axis, dim in enumerate(("presentation", "neuroid")):
        file["other"].dims[axis].attach_scale(file[dim])


WRONG: dict[str, tuple[Any, str]] = {
    "no responses": (without("neural"), "has 0 variables of presentation x neuroid"),
    "two variables": (second_variable, "has 2 variables of presentation x neuroid"),
    "no stimuli": (without("stimulus_id"), "no stimulus_id or image_id"),
    "no files": (without("image_file_name"), "does not name its image files"),
    "no regions": (without("region"), "neuroids have no region"),
    "other lengths": (longer, "region has 5 entries but there are 3 neuroids"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_layouts_are_named(wrong: str, tmp_path: Path, images: Path) -> None:
    change, message = WRONG[wrong]
    path = write(tmp_path / "x.nc", np.eye(4, 3), **named(IDS))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=message):
        load_recording(path, "assembly", images=images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stimulus_id,filename\na,a.png\n", "lacks 35 stimuli of assy_test.nc"),
        ("a,b\n1,2\n", "needs a column stimulus_id"),
        ("", "needs a column stimulus_id"),
        (None, "cannot be read"),
        ("stimulus_id,filename\n" + "".join(f"im{i:03d},../a.png\n" for i in range(36)), "leaves"),
        ("stimulus_id,filename\n" + "".join(f"im{i:03d}\n" for i in range(36)), "not an image"),
    ],
)
def test_a_wrong_stimulus_set(content: str | None, message: str, tmp_path: Path) -> None:
    case = assembly(tmp_path)
    table = tmp_path / "other.csv"
    if content is not None:
        table.write_text(content.replace("a,a.png", "im000,a.png"))
    with pytest.raises(InputError, match=message):
        case.load(stimuli=table)


@pytest.mark.parametrize("where", ["presentations", "stimulus set"])
def test_images_of_one_object_are_a_group(tmp_path: Path, images: Path, where: str) -> None:
    objects = {"a": "car", "b": "face", "c": "car", "d": "face"}
    first, second = ["a", "b", "a", "c"], ["d", "d"]
    options: dict[str, Any] = {}

    def shown(ids: list[str]) -> dict[str, Any]:
        if where == "presentations":
            return named(ids) | {"object_name": ("presentation", [objects[i] for i in ids])}
        return {"stimulus_id": ("presentation", ids)}

    if where == "stimulus set":
        options["stimuli"] = tmp_path / "stimuli.csv"
        rows = [f"{i},{i}.png,{objects[i]}" for i in IDS]
        options["stimuli"].write_text("\n".join(["stimulus_id,filename,object_name", *rows]))
    train = write(tmp_path / "train.nc", np.eye(4)[:, :3] + 1, **shown(first))
    test = write(tmp_path / "test.nc", np.eye(3)[:2] + 1, **shown(second))
    found = load_recording(train, "assembly", images=images, test=test, **options)
    assert found.train_groups is not None
    assert found.test_groups is not None
    assert found.train_groups.tolist() == [0, 1, 0]
    assert found.test_groups.tolist() == [1]
