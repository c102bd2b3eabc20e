"""What the numbers of a figure, a table or a page are over, in words: all exports say it in these.

A score is worth what it is taken over. So every figure says of how many units it is the mean and how the others were left
out, on which images and how often each was shown, whether there is a ceiling, whether networks are trained and readouts
searched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.figures.metrics import OPTIMISTIC, Metric, number, short

Row = Mapping[str, Any]

RANDOM = "random"
"""Weights of a network that has learned nothing."""

STACKED = "stacked"
"""Readout of the rows that are all studies of a region together."""

MANY = 4
"""Networks of different weights up to which each is named."""

COUNTED = ("n_units_with_ceiling", "n_units_gated")
"""Columns of the heatmap table that count a region's units."""


@dataclass(frozen=True)
class Basis:
    """What all scores of an experiment rest on.

    Attributes
    ----------
    n_test
        Number of test images; None: not known.
    n_repeats
        Most responses that a unit has to one of them.
    always
        Whether every unit has so many to each.
    n_held_out
        Number of training images that trials are judged on; None: not known.
    folds
        Into how many folds they are dealt; 1: they are cut from the training images once.
    min_explainable
        Least explainable variance of a unit that a region's test scores are over.
    weights
        Name of each network to its weights: ``imagenet``, ``random`` or a file.
    closed_form
        Readouts that are fitted without a search.
    """

    n_test: int | None = None
    n_repeats: int = 0
    always: bool = True
    n_held_out: int | None = None
    folds: int = 1
    min_explainable: float = 0.0
    weights: Mapping[str, str] = field(default_factory=dict)
    closed_form: Collection[str] = ()

    @property
    def untrained(self) -> frozenset[str]:
        """Networks whose weights are random."""
        return frozenset(name for name, weights in self.weights.items() if weights == RANDOM)


def joined(*parts: str) -> str:
    """Put parts of a caption side by side; empty ones are left out."""
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def scores(rows: Sequence[Row], metric: Metric, basis: Basis) -> str:
    """Say what the scores of some studies are over.

    Parameters
    ----------
    rows
        Of the heatmap table, those that are shown.
    metric
        The score.
    basis
        Of the experiment that they are from.

    Examples
    --------
    >>> from tuner.figures.metrics import METRICS
    >>> row = {"backbone": "net", "region": "V4", "readout": "full", "n_units": 51, "n_units_with_ceiling": 0}
    >>> basis = Basis(n_test=200, n_repeats=1, weights={"net": "random"})
    >>> scores([row | {"n_units_gated": 0, "n_trials": 16}], METRICS["test_correlation"], basis)
    'mean over 51 units, none with a ceiling · 200 test images, one response each · random weights · full: best of 16 trials'
    """
    return joined(
        of_units(rows, metric, basis),
        of_images(metric, basis),
        of_networks(basis, {str(row["backbone"]) for row in rows}),
        of_readouts(rows, basis),
    )


def of_units(rows: Iterable[Row], metric: Metric, basis: Basis) -> str:
    """Say how many units a region's score is the mean over, all regions counted together."""
    regions: dict[str, Row] = {}
    for row in rows:
        shown = regions.setdefault(str(row["region"]), row)
        if not _there(shown, COUNTED[0]):  # of a study without a finished fit
            regions[str(row["region"])] = row
    units = sum(int(number(row.get("n_units", 0))) for row in regions.values())
    if not units:
        return "mean over units"
    if metric.selected_on:
        return f"mean over {_units(units, 'all ')}"
    known = [row for row in regions.values() if _there(row, COUNTED[0])]
    if not known:
        return f"mean over {_units(units)}"
    ceilings = sum(int(number(row[COUNTED[0]])) for row in known)
    if not ceilings:
        return f"mean over {_units(units)}, none with a ceiling"
    gated = sum(
        int(number(row[COUNTED[1]]))
        if _there(row, COUNTED[1])
        else int(number(row["n_units"]) - number(row[COUNTED[0]]))
        for row in known
    )
    if not gated:
        return f"mean over {_units(units, 'all ')}, each with a ceiling"
    least = basis.min_explainable
    also = f" and an explainable variance of at least {short(least)}" if least > 0 else ""
    return f"mean over {units - gated} of {_units(units)}: those with a ceiling{also}"


def _there(row: Row, name: str) -> bool:
    value = number(row.get(name))
    return value == value


def _units(count: int, before: str = "") -> str:
    return "its one unit" if count == 1 and before else f"{before}{count} unit{'s' * (count != 1)}"


def of_images(metric: Metric, basis: Basis) -> str:
    """Say which images a score is on, and how often each was shown."""
    if metric.selected_on:
        return joined(OPTIMISTIC, held_out(basis), "" if basis.n_test != 0 else "no test set")
    return on_test_images(basis)


def held_out(basis: Basis) -> str:
    """Say which images trials are judged on."""
    if basis.n_held_out is None:
        return ""
    if basis.folds > 1:
        return (
            f"{basis.n_held_out} training images in {basis.folds} folds, each by a fit that did not "
            "see it"
        )
    return f"{basis.n_held_out} held-out training images"


def on_test_images(basis: Basis) -> str:
    """Say how many test images there are and how often each was shown."""
    if basis.n_test is None:
        return "test images"
    if not basis.n_test:
        return "no test set"
    if basis.n_repeats < 2:
        return f"{basis.n_test} test images, one response each"
    often = (
        f"{basis.n_repeats} repeats each" if basis.always else f"up to {basis.n_repeats} repeats"
    )
    return f"{basis.n_test} test images, {often}"


def of_networks(basis: Basis, names: Collection[str]) -> str:
    """Say what the weights of some networks are."""
    weights = {name: basis.weights[name] for name in basis.weights if name in names}
    kinds = set(weights.values())
    if len(kinds) == 1:
        return f"{kinds.pop()} weights"
    if len(weights) > MANY:
        counts = Counter(weights.values())
        return ", ".join(
            f"{count} network{'s' * (count != 1)}: {kind} weights" for kind, count in counts.items()
        )
    return ", ".join(f"{name}: {kind} weights" for name, kind in weights.items())


def of_readouts(rows: Iterable[Row], basis: Basis) -> str:
    """Say which readouts were searched, in how many trials, and which are closed forms."""
    trials: dict[str, list[int]] = {}
    closed: dict[str, None] = {}
    for row in rows:
        readout, count = str(row["readout"]), number(row.get("n_trials"))
        if readout in basis.closed_form:
            closed[readout] = None
        elif readout != STACKED and count == count:
            trials.setdefault(readout, []).append(int(count))
    parts = []
    if trials:
        counts = [count for of_one in trials.values() for count in of_one]
        least, most = min(counts), max(counts)
        many = str(most) if least == most else f"{least} to {most}"
        parts.append(f"{', '.join(trials)}: best of {many} trial{'s' * (most != 1)}")
    if closed:
        parts.append(f"{', '.join(closed)}: closed form")
    return "; ".join(parts)


def trials(row: Row, basis: Basis) -> str:
    """Say what the validation losses of a study's trials are over."""
    return joined(losses(basis), of_networks(basis, {str(row["backbone"])}))


def fit(row: Row, basis: Basis) -> str:
    """Say which fit of a study is shown, and on what network."""
    return joined(of_readouts([row], basis), of_networks(basis, {str(row["backbone"])}))


def unit_by_unit(rows: Sequence[Row], metric: Metric, basis: Basis) -> str:
    """Say what the scores of single units are over."""
    return joined(
        of_images(metric, basis),
        of_networks(basis, {str(row["backbone"]) for row in rows}),
        of_readouts(rows, basis),
    )


def losses(basis: Basis) -> str:
    """Say what the validation losses of single trials are over."""
    return ", ".join(part for part in ("loss: mean over units", held_out(basis)) if part)
