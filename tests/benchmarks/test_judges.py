"""What the page on judges says: the truth is asked first, and a judge's own best natural image is the harder rival."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/benchmarks/judges.md"


def test_every_judge_finds_its_own_favourite_harder_to_beat_than_the_true_one() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [
        line.strip("| ").split(" | ") for line in lines if line.startswith(("| easy", "| hard"))
    ]
    assert {row[0] for row in rows} == {"easy", "hard"}
    for row in rows:
        shares = [int(cell.rstrip("%")) for cell in row[2:]]
        assert all(own <= true for own, true in zip(shares[1::2], shares[2::2], strict=True))
    ideal = [row for row in rows if row[1] == "the true filter itself"]
    assert len(ideal) == 2
