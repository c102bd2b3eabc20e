from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.recordings import matlab_files as matlab
from tests.recordings.cases import AREAS, N_TEST, N_TRAIN, things_names, tvsd
from tests.recordings.conformance import check_equal
from tuner.errors import InputError
from tuner.recordings.tvsd import layout as tvsd_layout


@pytest.mark.parametrize("monkey", ["N", "F"])
def test_areas_and_arrays_of_every_channel(monkey: str) -> None:
    columns = tvsd_layout.columns(monkey)  # type: ignore[arg-type]
    assert columns["area"].tolist() == AREAS[monkey]
    assert columns["array"].tolist() == [c // 64 + 1 for c in range(1024)]
    assert columns["electrode"][[0, 63, 64]].tolist() == [1, 64, 1]
    assert len(set(columns["name"])) == 1024


def test_monkey_n_has_v4_before_it_and_monkey_f_it_before_v4(tmp_path: Path) -> None:
    n = tvsd(tmp_path / "N", "N").load()
    f = tvsd(tmp_path / "F", "F").load()
    assert list(n.regions("area")) == ["V1", "V4", "IT"]
    assert list(f.regions("area")) == ["V1", "IT", "V4"]
    assert [len(units) for units in n.regions("area").values()] == [448, 256, 256]
    assert [len(units) for units in f.regions("area").values()] == [512, 320, 192]
    assert "6" not in n.regions("array")
    assert len(f.regions("array")) == 16
    assert "dropped 64 channels of array 6" in n.notes[0]
    assert n.label == "TVSD monkey N"


@pytest.mark.parametrize("monkey", [None, "n", "M"])
def test_the_monkey_must_be_named(monkey: str | None, tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    with pytest.raises(InputError, match=r"valid: N, F"):
        case.load(monkey=monkey)


def edited(path: Path, name: str, change: Callable[[Any], Any] | None) -> None:
    with h5py.File(path, "a") as file:
        values = file[name][()]
        del file[name]
        if change is not None:
            file[name] = change(values)


TRANSPOSABLE = ("train_MUA", "test_MUA_reps", "test_MUA", "reliab", "SNR", "SNR_max", "oracle")


@pytest.mark.parametrize("name", TRANSPOSABLE)
def test_orientation_is_detected(name: str, tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    before = case.load()
    edited(case.path, name, np.transpose)
    check_equal(case.load(), before)


def test_as_many_images_as_channels(tmp_path: Path) -> None:
    """Where the shape does not tell, the axes are as the authors' files have them."""
    case = tvsd(tmp_path, "F")
    (tmp_path / "_logs" / "things_imgs.mat").unlink()
    train = [f"c{i}/a.png" for i in range(1024)]
    _, test = things_names(0, N_TEST)
    matlab.stimuli(tmp_path / "_logs" / "things_imgs.mat", train, test)
    source = next((tmp_path / "images").rglob("*.png"))
    for name in train:
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / "images" / name)
    values = np.random.default_rng(0).standard_normal((1024, 1024))
    edited(case.path, "train_MUA", lambda _: values)
    np.testing.assert_array_equal(case.load().train_responses, values.astype(np.float32))


WRONG: dict[str, tuple[Callable[[Any], Any] | None, str]] = {
    "train_MUA": (lambda v: v[:-1], "train_MUA .* neither as it is nor transposed"),
    "test_MUA_reps": (lambda v: v.transpose(1, 0, 2), "test_MUA_reps .* neither as it is nor"),
    "reliab": (lambda v: v[:, :1000], "reliab has shape .* neither"),
    "oracle": (lambda v: v.ravel(), "oracle must have 2 axes"),
    "SNR": (lambda v: v.astype("S4"), "SNR must hold real numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_fits_neither_way_is_refused(name: str, tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    change, message = WRONG[name]
    edited(case.path, name, change)
    with pytest.raises(InputError, match=message):
        case.load()


def test_another_number_of_images_than_the_stimuli(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    other = matlab.stimuli(tmp_path / "other.mat", *things_names(N_TRAIN + 3, N_TEST))
    with pytest.raises(InputError, match=r"33 x 1024.*belongs to these stimuli"):
        case.load(stimuli=other)


def test_what_the_file_lacks_is_noted(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    edited(case.path, "oracle", None)
    edited(case.path, "reliab", None)
    recording = case.load(min_reliability=0.3)
    assert "oracle" not in recording.units
    assert any("no oracle" in note for note in recording.notes)
    assert any("below 0.3, computed from the test repeats" in note for note in recording.notes)
    edited(case.path, "test_MUA_reps", None)
    recording = case.load(min_reliability=0.3)
    assert any("min_reliability was not applied" in note for note in recording.notes)
    assert recording.n_repeats == 1
    assert any("no ceilings" in note for note in recording.notes)
    edited(case.path, "test_MUA", None)
    with pytest.raises(InputError, match="neither test_MUA_reps nor test_MUA"):
        case.load()


def test_reliability_selects_units(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    kept = case.load(min_reliability=0.5)
    wanted = case.units["reliability"] >= 0.5
    assert kept.units["channel"].tolist() == case.units["channel"][wanted].tolist()
    np.testing.assert_array_equal(kept.train_responses, case.train[:, wanted])


def test_channels_without_any_response_are_dropped_and_counted(tmp_path: Path) -> None:
    case = tvsd(tmp_path, "F")

    def silence(values: Any) -> Any:
        values[:, [7, 900]] = np.nan
        return values

    edited(case.path, "train_MUA", silence)
    recording = case.load()
    assert recording.n_units == 1022
    assert not {7, 900} & set(recording.units["channel"])
    assert "dropped 2 channels without any response (first: 7)" in recording.notes


def test_a_mean_that_is_not_of_the_repeats_is_noted(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    assert not any("not the mean" in note for note in case.load().notes)

    def shift(values: Any) -> Any:
        return np.roll(values, 1, axis=1)

    edited(case.path, "test_MUA", shift)
    assert any("not the mean of test_MUA_reps" in note for note in case.load().notes)


def test_groups_are_concepts(tmp_path: Path) -> None:
    recording = tvsd(tmp_path).load()
    assert (np.bincount(recording.train_groups)[:10] == 3).all()
    assert not set(recording.test_groups) & set(recording.train_groups)


@pytest.mark.parametrize("place", ["beside", "_logs", "given"])
def test_where_the_stimuli_are_looked_for(place: str, tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    stimuli = tmp_path / "_logs" / "things_imgs.mat"
    options = {}
    if place == "beside":
        stimuli.rename(tmp_path / stimuli.name)
    if place == "given":
        options["stimuli"] = stimuli.rename(tmp_path / "elsewhere.mat")
    assert case.load(**options).n_train == N_TRAIN


def test_missing_stimuli_are_asked_for(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    (tmp_path / "_logs" / "things_imgs.mat").unlink()
    with pytest.raises(InputError, match=r"has no things_imgs\.mat.*data\.stimuli"):
        case.load()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/../../b.png"] * N_TRAIN, "leaves the images folder"),
        (["/a/b.png"] * N_TRAIN, "leaves the images folder"),
        (["C:/a/b.png"] * N_TRAIN, "leaves the images folder"),
        (["a/b.png"] * N_TRAIN, "lists train image a/b.png twice"),
        ([""] * N_TRAIN, "not an image path"),
        ([], "lists no train images"),
    ],
)
def test_wrong_stimuli(names: list[str], message: str, tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    stimuli = matlab.stimuli(tmp_path / "wrong.mat", names, ["x/y.png"])
    with pytest.raises(InputError, match=message):
        case.load(stimuli=stimuli)


def _replaced(path: Path, values: Any, **options: Any) -> None:
    with h5py.File(path, "a") as file:
        del file["train_imgs/things_path"]
        file.create_dataset("train_imgs/things_path", data=values, **options)


def test_names_that_are_no_texts(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    path = tmp_path / "_logs" / "things_imgs.mat"
    _replaced(path, np.arange(N_TRAIN))
    with pytest.raises(InputError, match="must hold texts"):
        case.load()
    with h5py.File(path, "a") as file:
        number = file.create_dataset("#refs#/number", data=np.arange(3.0))
        references = np.array([[number.ref] * N_TRAIN], dtype=h5py.ref_dtype)
    _replaced(path, references, dtype=h5py.ref_dtype)
    with pytest.raises(InputError, match="not a text"):
        case.load()
    _replaced(path, np.zeros((2, 15)))
    with pytest.raises(InputError, match="must be a list of texts"):
        case.load()
    _replaced(path, None, shape=(N_TRAIN, 1), dtype=h5py.ref_dtype)
    with pytest.raises(InputError, match=r"not a text|cannot be read"):
        case.load()


def test_raw_trials_are_pointed_to_the_converter(tmp_path: Path) -> None:
    case = tvsd(tmp_path)
    with h5py.File(case.path, "a") as file:
        file["ALLMUA"] = np.zeros(3)
    with pytest.raises(InputError, match="tuner data convert"):
        case.load()
