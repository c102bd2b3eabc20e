"""What each score is called, which way is better, and how its numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.errors import unknown

OPTIMISTIC = "validation, selected on, optimistic"
SIMULATED = "simulated recording"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Metric:
    """A column of the heatmap table that can be drawn.

    Attributes
    ----------
    name
        Name of its column in ``heatmap.csv``.
    label
        What an axis is called that shows it.
    higher_is_better
        Direction of the scale.
    comparable_ceiling
        Whether the noise ceiling lies on the same scale.
    selected_on
        Whether the score comes from the images that choices were made on.
    """

    name: str
    label: str
    higher_is_better: bool = True
    comparable_ceiling: bool = False
    selected_on: bool = False


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("test_correlation", "test correlation", comparable_ceiling=True),
        Metric("test_correlation_normalized", "normalised test correlation (CCnorm)"),
        Metric("feve", "fraction of explainable variance explained (FEVe)"),
        Metric("validation_correlation", "validation correlation", selected_on=True),
        Metric(
            "validation_loss",
            "validation loss (1 = predicts the mean)",
            higher_is_better=False,
            selected_on=True,
        ),
    )
}


def metric_named(name: str) -> Metric:
    """Return a metric.

    Raises
    ------
    InputError
        If there is none of that name; the message lists those that exist.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def number(value: object) -> float:
    """Return a table's value as a float; missing (None, empty) is NaN."""
    if value is None or value == "":
        return math.nan
    return float(value)  # type: ignore[arg-type]


def short(value: float) -> str:
    """Write a score in at most four characters: ``.83``, ``1.02``, ``12``.

    Examples
    --------
    >>> [short(x) for x in (0.834, 1.0, 12.4, 0.0)]
    ['.83', '1.00', '12', '.00']
    """
    if not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    if size >= 999.5:
        text = ">999"
    elif size >= 9.995:
        text = f"{size:.0f}"
    else:
        text = f"{size:.2f}"
        if text.startswith("0."):
            text = text[1:]
    return text if value >= 0 or text == ".00" else MINUS + text


def clean(name: object, limit: int = 28) -> str:
    """Return a name that fits a label: no control characters, the middle of a long one cut."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (limit - 1 - head) :]}"
