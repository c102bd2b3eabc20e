"""The audit's figures now: what each must keep."""

from __future__ import annotations

from pathlib import Path

from benchmarks import audit

PAGE = Path(__file__).parents[2] / "docs/benchmarks/audit.md"


def test_noise_does_not_count_as_fitted() -> None:
    assert audit.noise_passes(40) <= 2


def test_intervals_over_groups_cover_and_over_images_do_not() -> None:
    right, wrong = audit.coverage(60, by_groups=True), audit.coverage(60, by_groups=False)
    assert right > 0.85
    assert wrong < right


def test_the_page_has_every_defect_that_is_registered() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] != "| |"]
    for one in audit.REGISTRY:
        assert any(line.startswith(f"| {one.number} | {one.what} |") for line in rows), one.number


def test_the_page_holds_the_coverage_that_is_promised() -> None:
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:4] == "| 5 ")
    covered = float(row.split("|")[4].split("%")[0])
    assert 92 <= covered <= 97
