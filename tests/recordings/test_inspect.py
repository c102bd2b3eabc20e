from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.recordings.pictures import pictures, write_pictures
from tuner.errors import InputError
from tuner.recordings import Recording
from tuner.recordings.inspect import inspect
from tuner.recordings.simulated.model import Population, Settings, simulate
from tuner.recordings.sources import ArrayImages, FileImages

N_UNITS = 10


def clean() -> Recording:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((60 + 40, N_UNITS))
    return Recording(
        label="clean",
        source="clean.h5",
        simulated=False,
        units={"area": np.array(["V1"] * 5 + ["IT"] * 5)},
        train_images=ArrayImages(pictures(60), "train/images"),
        train_responses=(signal[:60] + rng.standard_normal((60, N_UNITS))).astype(np.float32),
        test_images=ArrayImages(pictures(40, first=900), "test/images"),
        test_responses=(signal[60:] + rng.standard_normal((20, 40, N_UNITS))).astype(np.float32),
    )


def test_nothing_is_suspicious_about_a_clean_recording() -> None:
    found = inspect(clean())
    assert found.suspicious == ()
    assert (found.n_units, found.n_train, found.n_test, found.n_repeats) == (10, 60, 40, 20)
    assert found.image_sizes == {"8 x 8": 100}
    v1, it = found.regions
    assert (v1.region, v1.n_units, it.region) == ("V1", 5, "IT")
    assert v1.missing_train == v1.missing_test == 0
    # Signal and noise of variance 1: 1/2, 20/21 and its root.
    assert v1.reliability == pytest.approx(0.5, abs=0.07)
    assert v1.split_half == pytest.approx(20 / 21, abs=0.02)
    assert v1.ceiling == pytest.approx(np.sqrt(20 / 21), abs=0.01)
    assert v1.n_units_with_ceiling == 5
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_simulated_recording_is_not_suspicious() -> None:
    recording = simulate((Population("V1"),), Settings(n_train=300, units_per_region=6))
    found = inspect(recording)
    assert found.suspicious == ()
    assert found.simulated
    assert found.n_groups == len(set(recording.train_groups))


def constant(r: Recording) -> dict[str, Any]:
    return {"train_responses": changed(r.train_responses, 3, 7.0)}


def changed(responses: NDArray[np.float32], unit: int, values: Any) -> NDArray[np.float32]:
    out = responses.copy()
    out[..., unit] = values
    return out


def duplicated(r: Recording) -> dict[str, Any]:
    images = pictures(60)
    images[7] = images[2]
    return {"train_images": ArrayImages(images, "train/images")}


def in_both(r: Recording) -> dict[str, Any]:
    images = pictures(40, first=900)
    images[5] = pictures(1)[0]
    return {"test_images": ArrayImages(images, "test/images")}


def groups(r: Recording) -> dict[str, Any]:
    return {"train_groups": np.arange(60) // 3, "test_groups": np.arange(40) + 18}


def scaled(r: Recording) -> dict[str, Any]:
    return {
        "train_responses": changed(r.train_responses, 1, r.train_responses[:, 1] * 1e4),
        "test_responses": changed(r.test_responses, 1, r.test_responses[..., 1] * 1e4),
    }


def offset(r: Recording) -> dict[str, Any]:
    return {"train_responses": r.train_responses + 50, "test_responses": r.test_responses + 50}


def other_scale(r: Recording) -> dict[str, Any]:
    return {"test_responses": r.test_responses + 9}


def counts(r: Recording) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "train_responses": rng.poisson(4.0, (60, N_UNITS)).astype(np.float32),
        "test_responses": rng.poisson(4.0, (20, 40, N_UNITS)).astype(np.float32),
    }


def twins(r: Recording) -> dict[str, Any]:
    return {"train_responses": changed(r.train_responses, 8, r.train_responses[:, 2])}


def gaps(r: Recording) -> dict[str, Any]:
    responses = r.train_responses.copy()
    responses[10:30, :5] = np.nan
    return {"train_responses": responses}


def few(r: Recording) -> dict[str, Any]:
    return {"units": {"area": np.array(["V1"] * 6 + ["IT"] * 4)}}


def once(r: Recording) -> dict[str, Any]:
    return {"test_responses": r.test_responses[:1]}


def unanswered(r: Recording) -> dict[str, Any]:
    return {"test_responses": changed(r.test_responses, 0, np.nan)}


def noise(r: Recording) -> dict[str, Any]:
    values = np.random.default_rng(0).standard_normal((20, 40))
    values -= values.mean(axis=0)  # the mean over repeats does not vary: no signal at all
    return {"test_responses": changed(r.test_responses, 9, values)}


def transposed(r: Recording) -> dict[str, Any]:
    return {
        "train_images": ArrayImages(pictures(6)),
        "train_responses": r.train_responses[:6],
    }


def wide(r: Recording) -> dict[str, Any]:
    return {"train_images": ArrayImages(pictures(60, size=16)[:, :8])}


SUSPICIOUS: dict[str, tuple[Any, str]] = {
    "constant": (constant, r"1 of 10 units \(3\) respond alike"),
    "duplicated": (
        duplicated,
        r"2 training images occur more than once, exactly or nearly: train/images\[2\], train",
    ),
    "in both": (
        in_both,
        r"1 test images are training images too, exactly or nearly: test/images\[5\]",
    ),
    "groups in both": (groups, "2 groups have both training and test images"),
    "scales": (scaled, "not normalised: standard deviations of units differ"),
    "offsets": (offset, "not normalised: the mean of 10 of 10 units"),
    "other scale in the test": (other_scale, "in 10 units the mean test response is more than 3"),
    "counts": (counts, "whole numbers from 0: counts"),
    "twins": (twins, r"1 of 10 units \(8\) respond exactly as another"),
    "gaps": (gaps, r"many missing responses: V1 \(33%\)"),
    "few units": (few, r"fewer than 5 units: IT \(4\)"),
    "shown once": (once, "each test image has one response, .* there are no ceilings"),
    "no test response": (unanswered, r"1 of 10 units \(0\) have no test response"),
    "no signal": (noise, r"no signal in the test repeats: IT \(1 of 5\)"),
    "more units than images": (transposed, "are responses transposed"),
    "not square": (wide, r"not square \(16 x 8\): set data.fit"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", SUSPICIOUS)
def test_what_is_suspicious_is_said(what: str) -> None:
    change, message = SUSPICIOUS[what]
    recording = clean()
    found = inspect(replace(recording, **change(recording))).suspicious
    matching = [line for line in found if re.search(message, line)]
    assert matching, found
    assert all("\n" not in line for line in found)


def test_counts_that_are_fitted_as_counts_are_not_suspicious() -> None:
    change, message = SUSPICIOUS["counts"]
    recording = replace(clean(), **change(clean()))
    said, unsaid = (inspect(recording, loss=loss).suspicious for loss in ("mse", "poisson"))
    assert [line for line in said if line not in unsaid and re.search(message, line)]
    assert len(unsaid) == len(said) - 1


def test_without_a_test_set() -> None:
    found = inspect(replace(clean(), test_images=None, test_responses=None))
    assert found.suspicious == ()
    assert found.regions[0].ceiling is None
    assert found.regions[0].missing_test is None


def test_units_without_a_ceiling_are_counted() -> None:
    recording = clean()
    found = inspect(replace(recording, **noise(recording)))
    assert [region.n_units_with_ceiling for region in found.regions] == [5, 4]
    assert np.isnan(found.units.ceiling[9])


def test_image_files_are_compared_by_content(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(60)]
    write_pictures(tmp_path, names)
    (tmp_path / "07.png").write_bytes((tmp_path / "03.png").read_bytes())
    recording = replace(clean(), train_images=FileImages(tmp_path, names, "x"))
    assert (
        "2 training images occur more than once, exactly or nearly: 03.png, 07.png"
        in inspect(recording).suspicious
    )
    (tmp_path / "05.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"05\.png"):
        inspect(recording)


def test_an_unknown_region_column() -> None:
    with pytest.raises(InputError, match="area"):
        inspect(clean(), "arrays")
