"""Sentences of the documentation that state a measured figure, each with the table that it comes from.

A sentence that states a figure is listed here with how the figure follows from a table of `docs/benchmarks`, or the
figure is a setting and listed as such. `python -m pytest tests/docs/test_measured_sentences.py` holds both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.audit.registry import defect

ROOT = Path(__file__).parents[2]

WRITTEN = ("docs/benchmarks", "docs/reference/cli.md", "docs/reference/config.md")
"""Pages, and a folder of them, that commands write: they are the tables, or take their figures from the code."""

FIGURE = re.compile(r"(?<![\w.`-])(?:\d+(?:\.\d+)? %|0?\.\d{2,3}(?!\d)|\d\.\d{2}(?!\d))")
"""What looks measured: a percentage, or a number with two or three decimals."""


@dataclass(frozen=True)
class Sentence:
    """A sentence with figures.

    Attributes
    ----------
    page
        Where it stands, from the root.
    pattern
        A regular expression whose groups are the figures.
    figures
        What they must be, from tables.
    """

    page: str
    pattern: str
    figures: Callable[[], list[str]]

    def stated(self) -> list[str] | None:
        """The figures that the page states; None where the sentence is not there."""
        found = re.search(self.pattern, prose(self.page))
        return None if found is None else list(found.groups())


def prose(page: str) -> str:
    """A page without code, tables and line breaks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("|")]
    return re.sub(r"`[^`]*`", lambda m: m[0].replace(" ", ""), " ".join(" ".join(lines).split()))


def tables(page: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Every table of a page of `docs/benchmarks` with the headings above it, joined by a slash."""
    headings: dict[int, str] = {}
    rows: list[list[str]] = []
    text = (ROOT / "docs/benchmarks" / page).read_text(encoding="utf-8")
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("| ").split("|")])
            continue
        if rows:
            yield "/".join(headings[level] for level in sorted(headings)), rows
            rows = []
        if line.startswith("#"):
            marks, _, heading = line.partition(" ")
            headings = {k: v for k, v in headings.items() if k < len(marks)} | {len(marks): heading}


def _shares_of_trials() -> list[str]:
    shares = [
        100 * int(done) / int(every)
        for _, rows in tables("search_quality.md")
        for row in rows
        for done, every in re.findall(r"^(\d+) of (\d+)$", row[-1])
    ]
    return [str(round(min(shares))), str(round(max(shares)))]


def _settled() -> list[str]:
    """What ``--until-settled`` gave up: trials, mean, studies under 0.5 %, and the worst, of all seeds."""
    rows = [
        row
        for where, found in tables("demo.md")
        if "When it is settled" in where
        for row in found
        if row[0].isdecimal()
    ]
    trials, mean = ([row[i].removesuffix(" %") for row in rows] for i in (1, 4))
    under = [row[5].partition(" of ")[0] for row in rows]
    worst = [row[6].removesuffix(" %") for row in rows]
    return [min(trials), max(trials), min(mean), max(mean), min(under), max(under), max(worst)]


def _ceilings(images: str, repeats: str, column: int) -> list[str]:
    """Cells of the table of weak units, and of strong ones."""
    return [
        row[column]
        for _, rows in tables("ceilings.md")
        for row in rows
        if row[:2] == [images, repeats]
    ]


def _lowest_feve() -> list[str]:
    strong = next(rows for where, rows in tables("ceilings.md") if " 1 times" in where)
    return [f"{max(-float(row[10]) for row in strong if row[0] == '50'):.2f}"]


def _decimal(text: str) -> str:
    """A number as prose has it: without the leading zero."""
    return f"{abs(float(text)):.3f}".removeprefix("0")


def _real(ways: tuple[str, ...]) -> list[str]:
    """Differences to `smooth` as shipped, least and largest, of all sessions and layers."""
    found = [
        float(re.findall(r"\(([+-][\d.]+)", cell)[0])
        for where, rows in tables("real.md")
        if "As shipped" in where
        for row in rows
        if row[0] in ways
        for cell in row[1:]
        if "(" in cell
    ]
    return [_decimal(str(min(found))), _decimal(str(max(found)))]


def _stacked_over_best() -> list[str]:
    """How far all readouts together are above the best single study of their session, least and largest."""
    found = []
    for where, rows in tables("real.md"):
        if "As shipped" not in where or not any(row[0] == "stacked" for row in rows):
            continue
        scores = {
            row[0]: [float(cell.split()[0]) for cell in row[1:5] if cell]
            for row in rows
            if row[0] in ("smooth", "full", "factorized", "stacked")
        }
        single = max(max(scores[way]) for way in ("smooth", "full", "factorized"))
        found.append(scores["stacked"][0] - single)
    return [_decimal(f"{min(found):+.3f}"), _decimal(f"{max(found):+.3f}")]


def _closed_forms(way: str) -> list[str]:
    """Correlations at three layers of three sessions, on a single cut."""
    return [
        _decimal(cell.split()[0])
        for where, rows in tables("real.md")
        if "Closed forms on a single cut" in where
        for row in rows
        if row[0] == way
        for cell in row[1:4]
    ]


_NUMBER = r"(\.\d{3})"
_SIX = rf"{_NUMBER}, {_NUMBER}, {_NUMBER}"

SENTENCES = (
    Sentence(
        "docs/explanation/median-rule.md",
        r"(\d+) to (\d+) % of the trials complete",
        _shares_of_trials,
    ),
    Sentence(
        "docs/explanation/median-rule.md",
        r"stopped after (\d+) to (\d+) trials on average. The best was then ([\d.]+) % to ([\d.]+) % worse than after all "
        r"50 on average, in (\d+) to (\d+) of 30 studies less than 0.5 %, in the worst ([\d.]+) %",
        _settled,
    ),
    Sentence(
        "docs/explanation/ceilings.md",
        r"with 5, of weak units.* their sd is ([\d.]+) there",
        lambda: _ceilings("100", "5", 11)[-1:],
    ),
    Sentence(
        "docs/explanation/ceilings.md",
        r"misfortune with them \(([\d.]+) at 50 images",
        _lowest_feve,
    ),
    Sentence(
        "docs/explanation/closed-form.md",
        rf"are {_SIX} \(session 190929\), {_SIX} \(210225\) and {_SIX} \(210621\)",
        lambda: _closed_forms("smooth"),
    ),
    Sentence(
        "docs/explanation/closed-form.md",
        rf"where ridge alone has {_SIX}; {_SIX}; {_SIX}",
        lambda: _closed_forms("ridge"),
    ),
    Sentence(
        "README.md",
        rf"more than `smooth`, the closed form, by {_NUMBER} to {_NUMBER};",
        lambda: _real(("full",)),
    ),
    Sentence(
        "README.md",
        rf"readout lies between {_NUMBER} below and {_NUMBER} above it",
        lambda: _real(("factorized",)),
    ),
    Sentence(
        "README.md",
        rf"{_NUMBER} to {_NUMBER} above the best\s+single\s+study",
        _stacked_over_best,
    ),
    Sentence(
        "README.md",
        rf"\(\[`--stacked`\]\(docs/howto/stacking.md\)\) are {_NUMBER} to {_NUMBER} above",
        lambda: _real(("stacked",)),
    ),
)
"""All sentences that state a measured figure, beside the pages that a command writes."""

SETTINGS: dict[str, tuple[str, ...]] = {
    "README.md": ("3.11",),
    "docs/explanation/ceilings.md": ("15 %", "0.85", "0.60"),
    "docs/explanation/columns.md": ("0.85",),
    "docs/explanation/median-rule.md": ("30 %", "10 %", "0.5 %"),
    "docs/howto/closed-loop.md": (".05",),
    "docs/howto/images.md": ("0.15",),
    "docs/howto/low-memory.md": ("0.85",),
    "docs/reference/outputs.md": ("95 %", "5 %", ".05", ".15", ".95"),
}
"""Page to figures in it that were chosen, or follow by arithmetic, and were not measured."""

WITHOUT_TABLE: dict[str, tuple[str, ...]] = {
    "README.md": (".92", ".40", ".78", ".87", ".89", ".02", ".03", ".045"),
    "docs/explanation/median-rule.md": ("35 %", "47 %"),
}
"""Page to figures in it that stand in no table: seen once, in the example that the page walks through or on the demo's
searches."""


def unlisted(page: str) -> list[str]:
    """Figures of a page that no sentence accounts for."""
    text = prose(page)
    for one in SENTENCES:
        if one.page == page:
            text = re.sub(one.pattern, "", text)
    chosen = SETTINGS.get(page, ()) + WITHOUT_TABLE.get(page, ())
    return [found[0] for found in FIGURE.finditer(text) if found[0] not in chosen]


def wrong() -> list[str]:
    """Sentences that are not there, or state other figures than their tables."""
    out = []
    for one in SENTENCES:
        stated, expected = one.stated(), one.figures()
        if stated != expected:
            out.append(f"{one.page}: states {stated}, its table {expected}")
    return out


def pages() -> list[str]:
    """Pages on which every figure must be accounted for: all that people write."""
    every = ["README.md", *(str(p.relative_to(ROOT).as_posix()) for p in ROOT.glob("docs/**/*.md"))]
    return sorted(page for page in every if not page.startswith(WRITTEN))


@defect(12, "sentences of the documentation that state other figures than their tables", "4 wrong")
def sentences(difficulty: str) -> str:
    """Of those that state figures."""
    loose = sum(map(len, WITHOUT_TABLE.values()))
    return f"{len(wrong())} of {len(SENTENCES)} wrong; {loose} figures stand in no table"
