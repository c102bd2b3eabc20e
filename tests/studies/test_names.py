from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.names import StudyKey, escape, refuse_names
from tuner.errors import InputError

PART = st.text(min_size=1, max_size=20).filter(lambda s: "\0" not in s and s.isprintable())


@given(PART, PART, PART, PART)
def test_a_name_reads_back_as_the_combination(a: str, b: str, c: str, d: str) -> None:
    key = StudyKey(a, b, c, d)
    assert StudyKey.parse(key.name) == key


@given(PART)
def test_a_part_is_one_folder(part: str) -> None:
    path = PurePosixPath(escape(part))
    assert len(path.parts) == 1
    assert path.parts[0] not in (".", "..")


def test_ordinary_names_stay_as_they_are() -> None:
    key = StudyKey("vgg19", "features.19", "V4", "full")
    assert key.name == "vgg19/features.19/V4/full"


def test_slashes_percents_and_dots_are_escaped() -> None:
    assert StudyKey("a/b", "..", "100 %", ".").name == "a%2Fb/%2E%2E/100 %25/%2E"


@pytest.mark.parametrize("name", ["a/b/c", "a/b/c/d/e", ""])
def test_another_number_of_parts_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        StudyKey.parse(name)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (["V" * 256], "takes 256 bytes as a folder's name and 255 are allowed"),
        (["\u4e2d" * 60], "takes 540 bytes"),
        (["V1", "v1"], "studies a/b/V1/full and a/b/v1/full differ only in upper and lower case"),
    ],
)
def test_names_that_are_no_folders_are_refused(regions: list[str], message: str) -> None:
    names = [StudyKey("a", "b", region, "full").name for region in regions]
    with pytest.raises(InputError, match=message):
        refuse_names(names, "tuner.toml")


def test_a_name_that_the_database_has_no_room_for_is_refused() -> None:
    refuse_names([StudyKey("a" * 200, "b", "c" * 250, "full").name], "tuner.toml")
    with pytest.raises(InputError, match="has a name of 557 bytes and 512 are allowed"):
        refuse_names([StudyKey("a" * 200, "b" * 100, "c" * 250, "full").name], "tuner.toml")
