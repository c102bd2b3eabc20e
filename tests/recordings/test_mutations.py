"""A short soak: ``python -m tests.recordings.soak_mutations`` is the long one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.recordings.cases import generic
from tests.recordings.soak_mutations import SOAKED, judge, soak
from tuner.recordings.sources import ArrayImages


@pytest.mark.parametrize("case", SOAKED)
def test_damaged_files_end_in_an_error_or_in_what_is_right(
    probed: None, case: str, tmp_path: Path
) -> None:
    report = soak(case, range(25), 12345, tmp_path, limit_s=3)
    assert not report.wrong, "\n".join(report.wrong)
    assert sum(report.outcomes.values()) == 25
    assert report.outcomes["read"] > 0
    assert report.outcomes["refused"] > 0


def test_the_judge_notices(tmp_path: Path) -> None:
    """What the soak looks for would be found: units, images and areas in each other's place."""
    case = generic(tmp_path)
    found = case.load()
    assert judge(found, case, 0) is None
    units = np.array([1, 0, *range(2, 9)])
    swapped = found.select_units(units)
    same_columns = replace(swapped, units=found.units)
    assert "responses of other units" in str(judge(same_columns, case, 0))
    rolled = replace(found, train_responses=np.roll(found.train_responses, 1, axis=0))
    assert "train responses of other" in str(judge(rolled, case, 0))
    test = replace(found, test_responses=found.test_responses[:, ::-1])
    assert "test responses of other" in str(judge(test, case, 0))
    areas = replace(found, units=found.units | {"area": found.units["area"][::-1]})
    assert "another area" in str(judge(areas, case, 0))
    renamed = replace(found, test_images=ArrayImages(case.test_pixels[[0, 1, 2, 4, 4, 5]]))
    assert judge(renamed, case, 1) is None  # the damage is in the name of one image
    scaled = replace(found, train_responses=found.train_responses * 2)
    assert "are not what they were" in str(judge(scaled, case, 0))
