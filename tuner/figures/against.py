"""How searches stand against what needs no search, in words: the same in the figure, the page and the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tuner.figures.metrics import Metric, number
from tuner.figures.panels import Row
from tuner.figures.tables import LINES

AHEAD, BEHIND, UNTOLD = "ahead", "behind", "not told apart"
"""What an interval of a difference says, the first less the second."""

NAMES = {"smooth": "smooth", "start": "the closed form that it started in"}
"""What searches are compared with, as sentences call it."""


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference of scores says; an open limit says nothing.

    Examples
    --------
    >>> verdict(0.01, 0.03), verdict(-0.03, -0.01), verdict(-0.01, 0.02)
    ('ahead', 'behind', 'not told apart')
    """
    return AHEAD if low > 0 else BEHIND if high < 0 else UNTOLD


def against(rows: Sequence[Row], metric: Metric, untrained: Collection[str] = ()) -> str:
    """Count the searches whose test correlation is ahead of a closed form's, behind it, or not told apart from it.

    Those on networks that have learned nothing are counted by themselves.

    Parameters
    ----------
    rows
        Of the heatmap table.
    metric
        Which score is shown; of one that choices were made on nothing is said.
    untrained
        Networks of random weights.

    Examples
    --------
    >>> from tuner.figures.metrics import METRICS
    >>> words = {"net": ("ahead", "behind", "ahead", None), "control": ("behind",)}
    >>> rows = [{"backbone": name, "against_smooth": word} for name in words for word in words[name]]
    >>> against(rows[:4], METRICS["test_correlation"])
    'searches by test correlation (paired, 95 %): against smooth 2 ahead, 1 behind'
    >>> against(rows, METRICS["test_correlation"], untrained={"control"})
    'searches by test correlation (paired, 95 %): against smooth 2 ahead, 1 behind; on random weights: against smooth ...'
    """
    if metric.selected_on:
        return ""
    learned = _counts([row for row in rows if row.get("backbone") not in untrained])
    control = _counts([row for row in rows if row.get("backbone") in untrained])
    said = "; ".join(
        [learned, f"on random weights: {control}"] if learned and control else [learned or control]
    )
    return f"searches by test correlation (paired, 95 %): {said}" if said else ""


def _counts(rows: Sequence[Row]) -> str:
    said = []
    for line in LINES:
        words = Counter(row.get(f"against_{line}") for row in rows)
        counts = [f"{words[word]} {word}" for word in (AHEAD, BEHIND, UNTOLD) if words[word]]
        if counts:
            what = "smooth" if line == "smooth" else "their closed-form start"
            said.append(f"against {what} {', '.join(counts)}")
    return "; ".join(said)


def against_closed_forms(row: Row) -> list[str]:
    """Say of a search whether it is ahead of closed forms, a sentence for each.

    Examples
    --------
    >>> row = {"against_smooth": "ahead", "against_smooth_difference": 0.021, "against_smooth_low": 0.012}
    >>> against_closed_forms(row | {"against_smooth_high": 0.03})
    ['test correlation against smooth: +.021 [+.012, +.030], ahead']
    """
    said = []
    for line in LINES:
        word = row.get(f"against_{line}")
        if word:
            values = [
                number(row.get(f"against_{line}_{part}")) for part in ("difference", "low", "high")
            ]
            difference, low, high = (_signed(value) for value in values)
            said.append(
                f"test correlation against {NAMES[line]}: {difference} [{low}, {high}], {word}"
            )
    return said


def _signed(value: float) -> str:
    if value != value:
        return "\N{EN DASH}"
    return f"{value:+.3f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")
