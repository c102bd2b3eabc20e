"""``--backbone --layer --region --readout``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.selectors import select
from studies.names import StudyKey
from studies.selection import PARTS, Selection
from tuner.errors import InputError


@dataclass(frozen=True)
class Study:
    key: StudyKey


STUDIES = [
    Study(StudyKey(*parts))
    for parts in product(
        ["vgg19", "vgg16[eco]"], ["features.0", "features.10"], ["V1", "IT"], ["full", "factorized"]
    )
]


def test_no_pattern_selects_everything_in_order():
    assert select(STUDIES, Selection()) == STUDIES


def test_patterns_of_a_part_add_up_and_parts_narrow_down():
    chosen = select(STUDIES, Selection(layer=("features.0", "*10"), region=("V?",)))
    assert {study.key.region for study in chosen} == {"V1"}
    assert {study.key.layer for study in chosen} == {"features.0", "features.10"}
    assert chosen == [study for study in STUDIES if study.key.region == "V1"]


def test_names_with_brackets_can_be_given_as_they_are():
    chosen = select(STUDIES, Selection(backbone=("vgg16[eco]",)))
    assert {study.key.backbone for study in chosen} == {"vgg16[eco]"}


def test_case_matters():
    with pytest.raises(InputError):
        select(STUDIES, Selection(region=("v1",)))


@pytest.mark.parametrize("part", PARTS)
def test_a_pattern_that_matches_nothing_is_answered_with_the_valid_values(part):
    with pytest.raises(InputError) as caught:
        select(STUDIES, Selection(**{part: ("*", "nope*")}))
    values = dict.fromkeys(getattr(study.key, part) for study in STUDIES)
    assert str(caught.value) == (f"--{part} nope*: no {part} matches; valid: {', '.join(values)}")


def test_parts_that_match_only_apart_are_named():
    studies = [
        Study(StudyKey(*parts)) for parts in (("a", "x", "V1", "full"), ("b", "y", "V1", "full"))
    ]
    with pytest.raises(InputError, match="no study matches --backbone a --layer y together"):
        select(studies, Selection(backbone=("a",), layer=("y",)))


def test_nothing_to_choose_from_is_left_to_the_caller():
    assert select([], Selection()) == []


@given(st.lists(st.sampled_from(STUDIES)), st.sampled_from(["V1", "IT", "*", "V*"]))
def test_what_is_selected_matches_and_the_rest_does_not(studies, pattern):
    if not studies:
        return
    wanted = {"V1": {"V1"}, "IT": {"IT"}, "*": {"V1", "IT"}, "V*": {"V1"}}[pattern]
    expected = [study for study in studies if study.key.region in wanted]
    if expected:
        assert select(studies, Selection(region=(pattern,))) == expected
    else:
        with pytest.raises(InputError):
            select(studies, Selection(region=(pattern,)))
