"""The audit's figures now: what each must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.audit import recordings, size, statistics
from benchmarks.audit.__main__ import MEASURED
from benchmarks.audit.registry import DIFFICULTIES, REGISTRY

PAGE = Path(__file__).parents[2] / "docs/benchmarks/audit.md"


def cells(number: int) -> list[str]:
    """Figures now of a defect, easy and hard, as the page has them."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| {number} |"):
            return [cell.strip() for cell in line.strip("| ").split("|")][-2:]
    raise AssertionError(f"defect {number} is not on the page")


def test_noise_does_not_count_as_fitted() -> None:
    assert statistics.noise_passes(40) <= 2
    assert statistics.noise_passes(20, held_out=1.2) <= 1


def test_intervals_over_groups_cover_and_over_images_do_not() -> None:
    right, wrong = (statistics.coverage(60, by_groups=by_groups) for by_groups in (True, False))
    assert right > 0.85
    assert wrong < right


def test_intervals_of_layers_cover() -> None:
    assert statistics.layer_coverage(40) > 0.85


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_equal_images_do_not_leak_and_a_missing_sample_costs_its_presentation(
    difficulty: str,
) -> None:
    assert recordings.duplicates(difficulty).startswith("0 of ")
    assert recordings.missing_samples(difficulty) == {"easy": "1", "hard": "30"}[difficulty]


def test_copies_of_the_same_information_cost_nothing_when_centred() -> None:
    """Thirty-six times the features; not centred the loss rises."""
    small, large = (size.swept(side, "easy").loss for side in size.SIDES[:2])
    assert large == pytest.approx(small, rel=0.02)
    before = [size.swept(side, "easy", center=False).loss for side in size.SIDES[:2]]
    assert before[1] / before[0] > large / small


def test_rates_and_penalties_mean_the_same_at_every_size() -> None:
    small, large = (size.swept(side, "easy", readout="factorized") for side in size.SIDES[:2])
    assert 1 / 3 < large.rate / small.rate < 3
    assert 1 / 3 < large.lethal / small.lethal < 3


def test_all_twelve_defects_are_measured_and_on_the_page() -> None:
    assert len(MEASURED) == 5
    assert sorted(one.number for one in REGISTRY) == list(range(1, 13))
    text = PAGE.read_text(encoding="utf-8")
    for one in REGISTRY:
        assert f"| {one.number} | {one.what} | {one.before} |" in text, one.number


def test_the_page_holds_what_is_promised() -> None:
    for cell in cells(5):
        groups, images, layers = (float(share.rstrip("%")) for share in cell.split("; "))
        assert 92 <= groups <= 97
        assert images < groups
        assert 92 <= layers <= 97.5
    for cell in cells(8):
        better, same, _ = (int(n) for n in cell.split(";")[0].split(", "))
        assert better + same >= 25
    for cell in cells(6):
        assert int(cell.split()[0]) <= 10
    for cell in cells(4):
        assert np.abs([float(gap) for gap in cell.split(" and ")]).max() <= 0.05
