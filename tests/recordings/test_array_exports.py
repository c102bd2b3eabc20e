from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.recordings import matlab_files as matlab
from tests.recordings.cases import N_TEST, N_TRAIN, arrays, things_names
from tests.recordings.conformance import check_equal
from tuner.errors import InputError


def file_of(folder: Path, array: int) -> Path:
    return folder / f"THINGS_exportMUA_array{array}.mat"


def edited(folder: Path, array: int, name: str, change: Any) -> None:
    with h5py.File(file_of(folder, array), "a") as file:
        values = change(file[name][()])
        del file[name]
        file[name] = values


def test_empty_arrays_and_missing_files_are_noted(tmp_path: Path) -> None:
    case = arrays(tmp_path)
    file_of(tmp_path, 15).unlink()
    recording = case.load()
    assert "array 6 is empty" in recording.notes
    assert "array 15 has no file" in recording.notes
    assert any("no ceilings" in note for note in recording.notes)
    assert not {"6", "15"} & set(recording.regions("array"))


def test_any_of_the_files_names_the_folder(tmp_path: Path) -> None:
    case = arrays(tmp_path)
    check_equal(case.load(path=file_of(tmp_path, 3)), case.load())


def test_only_empty_arrays(tmp_path: Path) -> None:
    case = arrays(tmp_path)
    for array in range(1, 17):
        if array != 6:
            file_of(tmp_path, array).unlink()
    with pytest.raises(InputError, match="every array in it is empty"):
        case.load()
    file_of(tmp_path, 6).unlink()
    with pytest.raises(InputError, match=r"has no THINGS_exportMUA_array1\.mat"):
        case.load()


@pytest.mark.parametrize("array", [1, 13])
def test_either_orientation(array: int, tmp_path: Path) -> None:
    case = arrays(tmp_path)
    before = case.load()
    edited(tmp_path, array, "train_MUA", np.transpose)
    edited(tmp_path, array, "test_MUA", lambda v: v.T[None])
    check_equal(case.load(), before)


def test_the_other_monkey_has_other_areas(tmp_path: Path) -> None:
    found = arrays(tmp_path).load(monkey="F")
    area_of = dict(zip(found.units["array"].tolist(), found.units["area"].tolist(), strict=True))
    assert area_of[9] == area_of[13] == "IT"
    assert area_of[14] == area_of[16] == "V4"


def test_stimuli_give_groups(tmp_path: Path) -> None:
    case = arrays(tmp_path)
    stimuli = matlab.stimuli(tmp_path / "things_imgs.mat", *things_names(N_TRAIN, N_TEST))
    groups = case.load(stimuli=stimuli).train_groups
    assert groups.tolist() == [i // 3 for i in range(N_TRAIN)]
    other = matlab.stimuli(tmp_path / "other.mat", *things_names(N_TRAIN + 3, N_TEST))
    with pytest.raises(InputError, match="33 training and 6 test images, but the arrays have 30"):
        case.load(stimuli=other)


def test_images_may_lie_right_in_train_and_test(tmp_path: Path) -> None:
    case = arrays(tmp_path)
    root = tmp_path / "images"
    (root / "train" / "THINGS_train").rename(root / "moved")
    (root / "train").rmdir()
    (root / "moved").rename(root / "train")
    (root / "val" / "test").rename(root / "test")
    assert case.load().train_images.names[0] == "train/00001.bmp"
    (root / "test").rename(root / "tests")
    with pytest.raises(InputError, match="no image 00001 in val/test or test or val"):
        case.load()


WRONG: dict[str, tuple[int, str, Any, str]] = {
    "fewer images": (3, "train_MUA", lambda v: v[:-1], "29 training and 6 test images, but"),
    "other channels": (3, "good_chns", lambda v: np.arange(1.0, 12)[:, None], "does not fit 11"),
    "channel 0": (3, "good_chns", lambda v: v * 0, "channel numbers from 1"),
    "half channels": (3, "good_chns", lambda v: v + 0.5, "channel numbers from 1"),
    "channels twice": (3, "good_chns", lambda v: v * 0 + 1, "twice"),
    "channels in a square": (3, "good_chns", lambda v: np.ones((2, 2)), "one list of channels"),
    "texts": (3, "train_MUA", lambda v: v.astype("S"), "must hold real numbers"),
    "three long axes": (4, "train_MUA", lambda v: np.ones((30, 3, 2)), "does not fit 3 channels"),
    "a silent channel": (4, "train_MUA", lambda v: v * np.nan, "has no response at all"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_exports(wrong: str, tmp_path: Path) -> None:
    case = arrays(tmp_path)
    array, name, change, message = WRONG[wrong]
    edited(tmp_path, array, name, change)
    with pytest.raises(InputError, match=message) as caught:
        case.load()
    assert f"array{array}.mat" in str(caught.value)
