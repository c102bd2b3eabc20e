from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.recordings.cases import generic, tvsd
from tests.recordings.conformance import check_equal
from tests.recordings.trials_file import write_trials
from tuner.errors import InputError
from tuner.recordings import load_recording, write_recording
from tuner.recordings.convert import read_any
from tuner.recordings.join import join_recordings
from tuner.recordings.sources import ArrayImages


def test_both_monkeys_in_one_file(tmp_path: Path) -> None:
    n, f = tvsd(tmp_path / "N", "N"), tvsd(tmp_path / "F", "F")
    out = tmp_path / "both.h5"
    write_recording(join_recordings({"N": n.load(), "F": f.load()}), out)
    both = load_recording(out, images=n.images)
    regions = both.regions("area")
    assert list(regions) == ["N/V1", "N/V4", "N/IT", "F/V1", "F/IT", "F/V4"]
    alone = f.load()
    np.testing.assert_array_equal(
        both.train_responses[:, regions["F/V4"]],
        alone.train_responses[:, alone.regions("area")["V4"]],
    )
    np.testing.assert_array_equal(both.test_responses[:, :, :960], n.test)
    assert set(both.units["recording"]) == {"N", "F"}
    assert "N/1" in both.regions("array")
    assert len(both.regions("array")) == 31
    assert both.units["channel"][[0, 960]].tolist() == [0, 0]
    assert any(note.startswith("N: dropped 64") for note in both.notes)


def test_joining_pads_repeats_and_columns(tmp_path: Path) -> None:
    first = generic(tmp_path).load()
    second = replace(
        first,
        test_responses=first.test_responses[:2],
        units={"area": first.units["area"], "depth": np.arange(9.0), "name": first.units["name"]},
    )
    both = join_recordings({"a": first, "b": second})
    assert both.n_units == 18
    np.testing.assert_array_equal(both.test_responses[:2, :, 9:], first.test_responses[:2])
    assert np.isnan(both.test_responses[2:, :, 9:]).all()
    assert np.isnan(both.units["depth"][:9]).all()
    assert both.units["depth"][9:].tolist() == list(range(9))
    assert np.isnan(both.units["reliability"][9:]).all()
    assert both.units["array"][9:].tolist() == [""] * 9
    assert both.units["array"][0] == "a/0"


def test_only_recordings_of_the_same_images_are_joined(tmp_path: Path) -> None:
    one = generic(tmp_path).load()
    with pytest.raises(InputError, match="at least two"):
        join_recordings({"a": one})
    other = one.train_images.read(0)[None].repeat(30, axis=0)
    changes = {
        "differ in content": {"train_images": ArrayImages(other, "train/images")},
        "is train/images.0. in one": {"train_images": ArrayImages(other)},
        "grouped differently": {"train_groups": one.train_groups[::-1]},
        "only one has a test set": {"test_images": None, "test_responses": None},
    }
    for message, change in changes.items():
        with pytest.raises(InputError, match=message):
            join_recordings({"a": one, "b": replace(one, **change)})
    shorter = replace(
        one,
        test_images=ArrayImages(other[:2]),
        test_responses=one.test_responses[:, :2],
        test_groups=None,
    )
    with pytest.raises(InputError, match="6 and 2 test images"):
        join_recordings({"a": one, "b": shorter})


@pytest.mark.parametrize("embed", [False, True])
def test_any_format_is_converted(embed: bool, tmp_path: Path) -> None:
    case = tvsd(tmp_path / "N")
    steps: list[tuple[str, int, int]] = []
    recording = read_any(
        case.path,
        "tvsd",
        images=case.images,
        min_reliability=0.4,
        monkey="N",
        mapping=tmp_path / "not needed",
    )
    out = tmp_path / "out.h5"
    write_recording(recording, out, embed=embed, progress=lambda *step: steps.append(step))
    check_equal(load_recording(out, images=None if embed else case.images), recording)
    assert (recording.units["reliability"] >= 0.4).all()
    assert (steps[-1] == ("writing test images", 6, 6)) if embed else not steps


def test_raw_trials_are_recognised(tmp_path: Path) -> None:
    raw = write_trials(tmp_path)
    steps: list[tuple[str, int, int]] = []
    found = read_any(
        raw.path, "tvsd", monkey="F", progress=lambda *step: steps.append(step), min_reliability=0.1
    )
    assert steps[0][0] == "reading trials"
    assert found.n_units < 1024
    assert (found.units["reliability"] >= 0.1).all()
    with pytest.raises(InputError, match="no option colour"):
        read_any(raw.path, "tvsd", monkey="F", colour=1)
