"""``tuner data``."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.cli.test_wrong_input import write_config, write_images, write_recording
from tuner.recordings import load_recording


@pytest.fixture
def recording(folder):
    write_config(folder)
    write_recording(folder / "recording.h5")
    return folder / "recording.h5"


def test_a_converted_recording_is_the_same(run, folder, recording):
    ended = run("data", "convert", "-o", "copy.h5")
    assert ended.code == 0, ended.err
    assert ended.out == "wrote copy.h5\n"
    before, after = load_recording(recording), load_recording(folder / "copy.h5")
    np.testing.assert_array_equal(after.train_responses, before.train_responses)
    np.testing.assert_array_equal(after.test_responses, before.test_responses)
    np.testing.assert_array_equal(after.train_groups, before.train_groups)
    assert after.train_images.digest() == before.train_images.digest()
    assert after.units["area"].tolist() == ["V1", "V1", "IT", "IT"]


def test_the_selection_of_units_is_applied(run, folder, recording):
    write_config(folder, data="min_reliability = 0.45")
    ended = run("data", "convert", "-o", "copy.h5")
    assert "note: dropped 2 of 4 units" in ended.err
    assert load_recording(folder / "copy.h5").n_units == 2


def test_images_are_kept_as_paths_or_embedded(run, folder, recording):
    with h5py.File(recording, "r+") as file:
        del file["train/images"]
        file["train/image_paths"] = np.array(write_images(folder), dtype=object)
    assert run("data", "convert", "-o", "paths.h5").code == 0
    assert run("data", "convert", "-o", "whole.h5", "--embed").code == 0
    with h5py.File(folder / "paths.h5") as paths, h5py.File(folder / "whole.h5") as whole:
        assert paths["train/image_paths"].asstr()[3] == "003.png"
        assert "images" not in paths["train"]
        assert whole["train/images"].shape == (60, 32, 32, 3)


def test_an_existing_file_is_replaced_only_when_told(run, folder, recording):
    (folder / "copy.h5").write_text("mine")
    run("data", "convert", "-o", "copy.h5").check_one_line_error(2, "copy.h5: exists", "--force")
    assert (folder / "copy.h5").read_text() == "mine"
    assert run("data", "convert", "-o", "copy.h5", "--force").code == 0
    assert load_recording(folder / "copy.h5").n_units == 4


def test_a_folder_that_is_not_there_is_named(run, folder, recording):
    run("data", "convert", "-o", "no/copy.h5").check_one_line_error(2, "no: no such folder")


def test_a_simulated_recording_can_be_written(run, folder):
    write_config(
        folder,
        data='format = "simulated"\nn_train = 60\nn_test = 5\nn_repeats = 2\nunits_per_region = 2',
    )
    ended = run("data", "convert", "-o", "simulated.h5")
    assert ended.code == 0, ended.err
    recording = load_recording(folder / "simulated.h5")
    assert recording.simulated
    assert (recording.n_train, recording.n_test, recording.n_repeats) == (60, 5, 2)
    assert list(recording.regions("area")) == ["V1", "V4", "IT"]


def test_recordings_of_the_same_images_are_joined(run, folder, recording):
    ended = run(
        "data", "convert", "-o", "both.h5", "--join", "A=tuner.toml", "--join", "B=tuner.toml"
    )
    assert ended.code == 0, ended.err
    both = load_recording(folder / "both.h5")
    assert {name: len(units) for name, units in both.regions("area").items()} == {
        "A/V1": 2,
        "A/IT": 2,
        "B/V1": 2,
        "B/IT": 2,
    }


@pytest.mark.parametrize(
    ("join", "mention"),
    [
        (["A=tuner.toml"], "at least two"),
        (["A=tuner.toml", "A=tuner.toml"], "the name A is given twice"),
        (["tuner.toml"], "must be NAME=FILE"),
        (["A=tuner.toml", "B=no.toml"], "no.toml: not found"),
    ],
)
def test_what_cannot_be_joined_is_named(run, folder, recording, join, mention):
    words = [word for pair in join for word in ("--join", pair)]
    run("data", "convert", "-o", "both.h5", *words).check_one_line_error(2, mention)
    assert not (folder / "both.h5").exists()
