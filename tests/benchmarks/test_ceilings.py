"""The table of how far ceilings are off: that it is right where the truth is known, and the page as long as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ceilings

ROOT = Path(__file__).parents[2]


def rows(text: str) -> dict[tuple[int, int], list[float]]:
    cells = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line[:3] in ("| 5", "| 1")
    ]
    return {(int(c[0]), int(c[1])): [float(v.rstrip("%")) for v in c[2:]] for c in cells}


def test_scores_are_wide_with_few_repeats_and_right_with_many() -> None:
    found = rows(ceilings.page(300, noises=[10.0], images=[100, 500], repeats=[2, 20]))
    few, many = found[100, 2], found[500, 20]
    assert 10 < few[0] < 26  # units without a ceiling, %
    assert many[0] == 0
    assert many[1] == pytest.approx(np.sqrt(1 / 1.5), abs=0.006)
    for mean, sd, median in (many[2:5], many[5:8], many[8:11]):
        assert abs(mean) < 0.02
        assert abs(median) < 0.02
        assert sd < 0.1
    assert few[9] > 10 * many[9]


def test_what_the_explanation_shows_is_what_the_command_wrote() -> None:
    page = (ROOT / "docs/benchmarks/ceilings.md").read_text(encoding="utf-8")
    for noise in ceilings.NOISES:
        table = page[page.index(f"## Noise variance {noise:g} times") :]
        expected = [(n, r) for n in ceilings.IMAGES for r in ceilings.REPEATS]
        assert list(rows(table))[: len(expected)] == expected
    explained = (ROOT / "docs/explanation/ceilings.md").read_text(encoding="utf-8")
    shown = [line for line in explained.splitlines() if line.startswith("| 100 |")]
    assert len(shown) == len(ceilings.REPEATS)
    assert all(line in page for line in shown)
