"""The figure of recorded cortex holds what the page lists."""

from __future__ import annotations

from pathlib import Path

from benchmarks.real.figure import draw, read
from tests.docs.blocks import ROOT


def test_the_figure_shows_what_the_page_lists(tmp_path: Path) -> None:
    page = ROOT / "docs" / "benchmarks" / "real.md"
    found, units = read(page)
    text = page.read_text(encoding="utf-8")
    assert found.keys() == units.keys()
    assert len(found) >= 3
    for ways in found.values():
        assert {"full", "factorized", "stacked"} <= set(ways)
        assert len(ways["full"]) >= 2
        for layers in ways.values():
            for difference, error in layers.values():
                assert f"({difference:+.3f} ± {error:.3f})" in text
    draw(found, units, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
