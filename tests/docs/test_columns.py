"""Every column of every table that exports write is explained in the reference."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from studies.results.networks import COLUMNS
from tests.docs.blocks import ROOT
from tests.docs.conftest import Main, within

REFERENCE = ROOT / "docs" / "reference" / "outputs.md"
OWN = {name: {"area", "name"} for name in ("units.csv", "unit_layers.csv")}
"""Columns that the recording brings."""
LIKE = {"references.csv": "heatmap.csv", "reference_units.csv": "units.csv"}
"""Tables that have the columns of another."""


def explained() -> dict[str, set[str]]:
    """File to the words in code of its part of the reference, which begins where the file is first named with a colon."""
    text = REFERENCE.read_text(encoding="utf-8")
    begins = list(re.finditer(r"^`(\w+\.csv)`(?: \([^)]*\))?:", text, re.MULTILINE))
    heads = [found.start() for found in re.finditer(r"^## ", text, re.MULTILINE)]
    parts = {}
    for found in begins:
        later = [other.start() for other in begins if other.start() > found.start()]
        end = min([*later, *(head for head in heads if head > found.start()), len(text)])
        parts[found[1]] = set(re.findall(r"`([^`]+)`", text[found.start() : end]))
    return parts


def score_of(column: str) -> str:
    """The score that a limit belongs to, where that is how limits are explained."""
    return re.sub(r"_(low|high)$", "", column)


def test_every_column_is_explained(experiment: Path, main: Main) -> None:
    picked = ["--layer", "_blocks.2", "--region", "A", "--readout", "factorized"]
    quick = ["--units", "0-1", "--steps", "1", "-q"]
    with within(experiment):
        for words in (
            ["export", "heatmap", "-o", "columns", "--ridge", "--resplit", "1", "-q", *picked[2:]],
            ["export", "mei", "-o", "columns", "--evaluate", *quick, *picked],
            ["stimuli", "export", "-o", "columns/shown", "--blocks", "1", *quick, *picked],
        ):
            assert main(words) == 0
        with Path("columns/shown/manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with Path("columns/recorded.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["image", "repeat", "0", "1"])
            for repeat in range(2):
                out.writerows([row["image"], repeat, k + repeat, -k] for k, row in enumerate(rows))
        scored = ["columns/shown", "columns/recorded.csv", "-o", "columns/scores", "-q"]
        assert main(["stimuli", "score", *scored]) == 0
    words = explained()
    seen = set()
    for path in sorted((experiment / "columns").rglob("*.csv")):
        if path.name == "recorded.csv":
            continue
        seen.add(path.name)
        known = words[LIKE.get(path.name, path.name)]
        header = path.read_text(encoding="utf-8").splitlines()[0].split(",")
        known = known | OWN.get(LIKE.get(path.name, path.name), set())
        missing = [
            name for name in header if not {name, score_of(name)} & known and "#" not in name
        ]
        assert not missing, f"{path.name}: {missing} are not explained in {REFERENCE}"
    assert len(seen) == 14


def test_every_column_of_the_networks_is_explained() -> None:
    assert set(COLUMNS) <= explained()["networks.csv"]
