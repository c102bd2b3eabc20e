from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.recordings.pictures import pictures
from tuner.errors import InputError
from tuner.recordings import Recording
from tuner.recordings.sources import ArrayImages


def recording(**changes: Any) -> Recording:
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {
        "label": "small",
        "source": "small.h5",
        "simulated": True,
        "units": {
            "area": np.array(["V4", "V1", "V4"]),
            "array": np.array([12.0, 1.0, 12.0]),
            "reliability": np.array([0.2, 0.5, np.nan]),
        },
        "train_images": ArrayImages(pictures(5)),
        "train_responses": rng.standard_normal((5, 3)).astype(np.float32),
        "test_images": ArrayImages(pictures(2, first=90)),
        "test_responses": rng.standard_normal((4, 2, 3)).astype(np.float32),
        "truth": {
            "units/x": np.arange(3.0),
            "signal/train": np.arange(15.0).reshape(5, 3),
            "settings/size": np.array(3),
        },
    }
    return Recording(**(settings | changes))


def test_counts() -> None:
    found = recording()
    assert (found.n_train, found.n_units, found.n_test, found.n_repeats) == (5, 3, 2, 4)
    without = recording(test_images=None, test_responses=None)
    assert (without.n_test, without.n_repeats) == (0, 0)


def test_a_notebook_shows_counts_and_no_arrays() -> None:
    found = "Recording('small', 3 units, 5 training images, 2 test images, 4 responses each)"
    assert repr(recording()) == found
    assert "no test images" in repr(recording(test_images=None, test_responses=None))


def test_regions_are_in_order_of_first_appearance() -> None:
    regions = recording().regions("area")
    assert list(regions) == ["V4", "V1"]
    assert regions["V4"].tolist() == [0, 2]
    assert list(recording().regions("array")) == ["12", "1"]


def test_an_unknown_region_column_is_answered_with_the_columns() -> None:
    with pytest.raises(InputError, match="area, array, reliability"):
        recording().regions("Area")


def test_a_unit_without_a_region_is_named() -> None:
    with pytest.raises(InputError, match="unit 2 has no value in units/reliability"):
        recording().regions("reliability")


def test_dropping_units_takes_all_that_is_known_of_them_along() -> None:
    whole = recording()
    kept = whole.drop_unreliable(0.3)
    assert kept.units["area"].tolist() == ["V1"]
    np.testing.assert_array_equal(kept.train_responses, whole.train_responses[:, [1]])
    np.testing.assert_array_equal(kept.test_responses, whole.test_responses[:, :, [1]])
    assert kept.truth["units/x"].tolist() == [1.0]
    assert kept.truth["signal/train"][:, 0].tolist() == [1, 4, 7, 10, 13]
    assert kept.truth["settings/size"] == 3
    assert kept.notes == ("dropped 2 of 3 units with a reliability below 0.3",)


def test_dropping_nothing() -> None:
    whole = recording()
    assert whole.drop_unreliable(0.0) is whole
    without = replace(whole, units={"area": whole.units["area"]})
    assert without.drop_unreliable(0.5).n_units == 3
    assert "min_reliability" in without.drop_unreliable(0.5).notes[0]


def test_dropping_everything_is_refused() -> None:
    with pytest.raises(InputError, match=r"the best has 0\.5"):
        recording().drop_unreliable(0.6)


WRONG = {
    "1 axis": ({"train_responses": np.zeros(5, np.float32)}, r"\(n_images, n_units\)"),
    "no unit": ({"train_responses": np.zeros((5, 0), np.float32)}, "at least one"),
    "rows": ({"train_responses": np.ones((4, 3), np.float32)}, "5 training images but 4 rows"),
    "infinite": (
        {"train_responses": np.array([[1, np.inf, 2]] * 5, np.float32)},
        r"infinite value \(image 0, unit 1\) \(and 4 more\)",
    ),
    "silent": (
        {"train_responses": np.array([[1, 2, np.nan]] * 5, np.float32)},
        r"unit 2 \(V4\) has no training response",
    ),
    "groups": ({"train_groups": np.zeros(4, np.int64)}, "train/groups has shape"),
    "no test images": ({"test_images": None}, "must come together"),
    "test axes": ({"test_responses": np.ones((2, 3), np.float32)}, "n_repeats, n_images"),
    "test rows": ({"test_responses": np.ones((4, 3, 3), np.float32)}, "2 test images"),
    "test units": ({"test_responses": np.ones((4, 2, 2), np.float32)}, "2 units but"),
    "test infinite": (
        {"test_responses": np.full((4, 2, 3), -np.inf, np.float32)},
        "test/responses holds an infinite",
    ),
    "column": ({"units": {"area": np.array(["V1"])}}, "units/area has shape"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_refused(wrong: str) -> None:
    changes, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        recording(**changes)
