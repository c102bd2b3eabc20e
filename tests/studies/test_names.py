from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.names import StudyKey, escape

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
