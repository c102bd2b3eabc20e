"""What an experiment does about images that occur more than once."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from studies.config.experiment import load_experiment
from studies.workspace import Workspace
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tests.studies.small import write_recording
from tuner.recordings import duplicates


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A recording with five training images twice, and two of them in the test set as well."""
    path = write_recording(tmp_path / "leaky.h5")
    with h5py.File(path, "a") as file:
        file["train/images"][10:15] = file["train/images"][0:5]
        file["test/images"][[0, 7]] = file["train/images"][0:2]
    return path


def test_leaks_are_refused_at_create_and_equal_images_grouped_and_said_once(
    make_experiment: MakeExperiment, leaky: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_experiment({"data": {"path": str(leaky)}})
    refused = run("study", "create", "-c", config)
    assert refused.code == 2
    assert (
        refused.err.strip()
        .splitlines()[-1]
        .startswith(
            f"error: {leaky}: 2 of 12 test images are training images too, exactly or nearly "
            "(test/images[0] is train/images[0], test/images[7] is train/images[1]); "
        )
    )
    config = make_experiment({"data": {"path": str(leaky), "test_duplicates": "allow"}})
    created = run("study", "create", "-c", config)
    assert created.code == 0
    assert created.err.count("10 of 120 training images occur more than once") == 1

    # Found once: the images are not looked at again.
    monkeypatch.setattr(duplicates, "find", None)
    groups = Workspace(load_experiment(config)).recording.train_groups
    assert groups is not None
    np.testing.assert_array_equal(groups[10:15], groups[0:5])


def test_they_can_be_left_as_they_are(make_experiment: MakeExperiment, leaky: Path) -> None:
    keys = {"path": str(leaky), "test_duplicates": "allow", "duplicates": "ignore"}
    recording = Workspace(load_experiment(make_experiment({"data": keys}))).recording
    assert recording.train_groups is None
    assert recording.notes == ()
