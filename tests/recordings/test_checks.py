from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.recordings.pictures import pictures
from tuner.errors import InputError
from tuner.recordings import Recording, check_responses, cut, deal
from tuner.recordings.sources import ArrayImages

SPLIT = cut(100, None, 0.1, 0)


def recording(responses: NDArray[np.float64]) -> Recording:
    return Recording(
        label="small",
        source="small.h5",
        simulated=True,
        units={"area": np.array(["V1", "V4"]), "name": np.array(["a", "b"])},
        train_images=ArrayImages(np.broadcast_to(pictures(1), (100, 8, 8, 3))),
        train_responses=responses.astype(np.float32),
    )


def good() -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(0, 1, (100, 2))


def test_good_responses_pass() -> None:
    check_responses(recording(good()), SPLIT, "mse", "area")
    check_responses(recording(good()), SPLIT, "poisson", "name")


def test_too_few_fit_responses() -> None:
    responses = good()
    responses[SPLIT.fit[19:], 1] = np.nan
    with pytest.raises(InputError, match=r"unit 1 \(b, V4\) has 19 valid .* 90 fit images"):
        check_responses(recording(responses), SPLIT, "mse", "area")
    responses[SPLIT.fit[19], 1] = 0.5
    check_responses(recording(responses), SPLIT, "mse", "area")


def test_too_few_validation_responses() -> None:
    responses = good()
    responses[SPLIT.validation[4:]] = np.nan
    with pytest.raises(InputError, match=r"unit 0 .* 4 valid .* \(and 1 more units\)"):
        check_responses(recording(responses), SPLIT, "mse", "area")


@pytest.mark.parametrize("value", [0.0, 1e9, -3.0])
def test_constant_responses(value: float) -> None:
    responses = good()
    responses[SPLIT.fit, 0] = value
    with pytest.raises(InputError, match=r"unit 0 .* responds alike"):
        check_responses(recording(responses), SPLIT, "mse", "area")


def test_negative_responses_under_poisson() -> None:
    responses = good()
    responses[SPLIT.validation[0], 1] = -0.25
    check_responses(recording(responses), SPLIT, "mse", "area")
    with pytest.raises(InputError, match=r"unit 1 .* negative response \(-0.25\).*poisson"):
        check_responses(recording(responses), SPLIT, "poisson", "area")


def test_negative_test_responses_under_poisson() -> None:
    test = np.ones((2, 3, 2), dtype=np.float32)
    test[:, :, 0] = np.nan
    whole = replace(recording(good()), test_images=ArrayImages(pictures(3)), test_responses=test)
    check_responses(whole, SPLIT, "poisson", "area")
    test[1, 1, 1] = -1
    with pytest.raises(InputError, match="unit 1"):
        check_responses(whole, SPLIT, "poisson", "area")


def test_the_region_column_must_exist() -> None:
    with pytest.raises(InputError, match="array"):
        check_responses(recording(good()), SPLIT, "mse", "array")


def test_a_unit_needs_responses_outside_every_fold() -> None:
    responses = good()
    splits = deal(100, None, 4, 0)
    responses[splits[2].fit[10:], 1] = np.nan  # nearly all that it has lies in the third fold
    for fold in (0, 1, 3):
        check_responses(recording(responses), splits[fold], "mse", "area", fold)
    with pytest.raises(InputError, match=r"unit 1 .* outside fold 3.*training\.folds = 1"):
        check_responses(recording(responses), splits[2], "mse", "area", 2)
