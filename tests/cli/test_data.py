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


def write_assembly(path, n_bins=2):
    """A netCDF-4 file of 60 presentations, 4 neuroids and two time bins, as xarray writes them."""
    rng = np.random.default_rng(2)
    names = [f"{index:03}.png" for index in range(60)]
    columns = {
        "presentation": {"stimulus_id": names, "filename": names},
        "neuroid": {"neuroid_id": list("abcd"), "region": ["V4", "V4", "IT", "IT"]},
        "time_bin": {"time_bin_start": [0.0, 70.0], "time_bin_end": [70.0, 170.0]},
    }
    with h5py.File(path, "w") as file:
        for dimension, length in (("presentation", 60), ("neuroid", 4), ("time_bin", n_bins)):
            scale = file.create_dataset(dimension, data=np.arange(length))
            scale.make_scale(dimension)
            for name, values in columns[dimension].items():
                kept = values[:length]
                data = np.array(kept, dtype=object) if isinstance(kept[0], str) else np.array(kept)
                file[name] = data
                file[name].dims[0].attach_scale(scale)
        file["dicarlo"] = rng.normal(size=(60, 4, n_bins))
        for axis, dimension in enumerate(("presentation", "neuroid", "time_bin")):
            file["dicarlo"].dims[axis].attach_scale(file[dimension])
        return file["dicarlo"][()]


def test_an_assembly_is_converted_without_a_config_file(run, folder):
    write_images(folder)
    values = write_assembly(folder / "train.nc")
    ended = run(
        "data", "convert", "-o", "out.h5", "--assembly", "train.nc", "--images", "images",
        "--window", 60, 200,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "note: there is no test set" in ended.err
    converted = load_recording(folder / "out.h5", images=folder / "images")
    assert list(converted.regions("area")) == ["V4", "IT"]
    order = [int(name[:3]) for name in converted.train_images.names]
    np.testing.assert_allclose(converted.train_responses, values[order, :, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (["--assembly", "no.nc"], ["no.nc: no such file"]),
        (["--assembly", "train.nc"], ["2 time bins"]),
        (["--assembly", "train.nc", "--window", 0, 10], ["no time bin lies within 0 to 10 ms"]),
        (["--assembly", "train.nc", "--join", "A=a.toml"], ["say only one"]),
        (["--images", "images"], ["--images: only with --assembly"]),
        (["--window", 0, 10], ["--window: only with --assembly"]),
        (["--test-stimuli", "x.csv"], ["--test-stimuli: only with --assembly"]),
    ],
)
def test_what_is_wrong_about_an_assembly_is_named(run, folder, words, mentions):
    write_images(folder)
    write_assembly(folder / "train.nc")
    run("data", "convert", "-o", "out.h5", *words).check_one_line_error(2, *mentions)


def test_inspect_shows_regions_and_what_is_suspicious(run, folder, recording):
    ended = run("data", "inspect")
    assert ended.code == 0, ended.err
    assert "60 images in 30 groups" in ended.out
    assert "10 images, 3 repeats" in ended.out
    assert "70 of 32 x 32 px" in ended.out
    assert "regions with fewer than 5 units: V1 (2), IT (2)" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 120
    assert "SIMULATED" not in ended.out


def test_inspect_for_programs(run, folder, recording):
    summary = run("data", "inspect", "--format", "json").json
    assert (summary["n_units"], summary["n_test"], summary["n_repeats"]) == (4, 10, 3)
    assert [region["region"] for region in summary["regions"]] == ["V1", "IT"]
    assert any("fewer than 5 units" in line for line in summary["suspicious"])
    table = run("data", "inspect", "--format", "csv").out.splitlines()
    assert table[0].startswith("region,n_units,missing_train")
    assert len(table) == 3


def test_inspect_draws_every_unit(run, folder, recording):
    ended = run("data", "inspect", "-o", "units", "--format", "json")
    assert ended.code == 0, ended.err
    assert ended.json["n_units"] == 4
    assert (folder / "units.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder / "units.svg").read_bytes()
    assert run("data", "inspect", "-o", "one.svg").code == 0
    assert [path.name for path in folder.glob("one*")] == ["one.svg"]


def test_inspect_says_simulated(run, folder):
    write_config(
        folder,
        data='format = "simulated"\nn_train = 60\nn_test = 5\nn_repeats = 2\nunits_per_region = 2',
    )
    assert "SIMULATED" in run("data", "inspect").out


def test_inspect_without_a_test_set(run, folder, recording):
    with h5py.File(recording, "r+") as file:
        del file["test"]
    ended = run("data", "inspect")
    assert ended.code == 0, ended.err
    assert "test      none" in ended.out
    run("data", "inspect", "-o", "units").check_one_line_error(2, "nothing to draw")


def test_inspect_takes_a_file_without_a_config_file(run, folder, recording):
    (folder / "tuner.toml").unlink()
    ended = run("data", "inspect", "recording.h5")
    assert ended.code == 0, ended.err
    assert "60 images in 30 groups" in ended.out
    assert "no groups" not in ended.out
    with h5py.File(recording, "r+") as file:
        del file["train/groups"], file["train/images"]
        file["train/image_paths"] = np.array(write_images(folder), dtype=object)
    run("data", "inspect", "recording.h5").check_one_line_error(2, "say --images FOLDER")
    missing = run("data", "inspect", "none.h5")
    missing.check_one_line_error(2, "none.h5: no such file")
    assert "data.path" not in missing.err
    ended = run("data", "inspect", "recording.h5", "--images", "images")
    assert ended.code == 0, ended.err
    assert "note: no groups: where images show the same thing" in ended.out
    assert "train/groups of the generic file" in ended.out


def test_inspect_says_what_a_file_needs_a_config_file_for(run, folder, recording):
    with h5py.File(folder / "things.mat", "w") as file:
        file["train_MUA"] = np.zeros((3, 4))
    asked = run("data", "inspect", "things.mat")
    asked.check_one_line_error(2, "is a TVSD recording", 'format = "tvsd"', "leave FILE out")
    run("data", "inspect", "tuner.toml").check_one_line_error(2, "say -c tuner.toml")
    (folder / "exports").mkdir()
    run("data", "inspect", "exports").check_one_line_error(2, 'format = "tvsd-arrays"')
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    run("data", "inspect", "other.h5").check_one_line_error(2, "train/responses")
    run("data", "inspect", "recording.h5", "-c", "other.toml").check_one_line_error(2, "only one")
    run("data", "inspect", "--images", "x").check_one_line_error(2, "only with FILE")
