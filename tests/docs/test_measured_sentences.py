"""Sentences that state a figure say what their table says."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str) -> list[list[str]]:
    """Cells of all tables of a page of measurements."""
    text = (DOCS / "benchmarks" / page).read_text(encoding="utf-8")
    return [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def stated(page: str, pattern: str) -> re.Match[str]:
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    found = re.search(pattern, text)
    assert found is not None, f"{page} no longer says {pattern}"
    return found


def test_how_many_trials_complete() -> None:
    found = stated("explanation/median-rule.md", r"(\d+) to (\d+) % of the trials complete")
    shares = [
        100 * int(done) / int(every)
        for row in rows("search_quality.md")
        for done, every in re.findall(r"^(\d+) of (\d+)$", row[-1])
    ]
    assert [int(text) for text in found.groups()] == [round(min(shares)), round(max(shares))]


def test_when_means_can_be_trusted() -> None:
    found = stated("explanation/ceilings.md", r"with 5, of weak units.* their sd is ([\d.]+) there")
    weak = [row for row in rows("ceilings.md") if row[:3] == ["100", "5", "0.7%"]]
    assert [row[11] for row in weak] == [found[1]]
