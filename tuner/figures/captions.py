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

from tuner.figures.metrics import METRICS, OPTIMISTIC, Metric, number, short

Row = Mapping[str, Any]

RANDOM = "random"
"""Weights of a network that has learned nothing."""

STACKED = "stacked"
"""Readout and layer of the rows that are all studies of a region together."""

MANY = 4
"""Networks of different weights up to which each is named."""

SQUARED_ERROR = "mse"
"""The loss of references, and of studies that ask for no other."""

COUNTED = ("n_units_with_ceiling", "n_units_gated")
"""Columns of the heatmap table that count a region's units."""


@dataclass(frozen=True)
class Basis:
    """What all scores of an experiment rest on.

    Attributes
    ----------
    n_test
        Number of test images; None: not known.
    n_test_groups
        Into how many groups they fall, where intervals are drawn over whole groups; None: over images.
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
    started
        Backbone, layer and readout of the searches whose trials start in a closed form, which training then changes.
    loss
        What studies are fitted by; references are by squared error under any.
    """

    n_test: int | None = None
    n_test_groups: int | None = None
    n_repeats: int = 0
    always: bool = True
    n_held_out: int | None = None
    folds: int = 1
    min_explainable: float = 0.0
    weights: Mapping[str, str] = field(default_factory=dict)
    closed_form: Collection[str] = ("smooth",)
    started: Collection[tuple[str, str, str]] = ()
    loss: str = SQUARED_ERROR

    @property
    def untrained(self) -> frozenset[str]:
        """Networks whose weights are random."""
        return frozenset(name for name, weights in self.weights.items() if weights == RANDOM)


def in_units(measured_in: object = "") -> str:
    """Say what responses are measured in.

    Examples
    --------
    >>> in_units("spikes per 100 ms"), in_units()
    ('in spikes per 100 ms', "in the recording's units")
    """
    return f"in {measured_in}" if measured_in else "in the recording's units"


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
    >>> row |= {"n_units_gated": 0, "n_trials": 16, "n_complete": 3}
    >>> scores([row], METRICS["test_correlation"], basis)
    'mean over 51 units, none with a ceiling · 200 test images, one response (or mean of several) each · random weights ...'
    """
    return joined(
        of_units(rows, metric, basis),
        of_images(metric, basis),
        of_networks(basis, {str(row["backbone"]) for row in rows}),
        of_readouts(rows, basis),
    )


def of_units(rows: Iterable[Row], metric: Metric, basis: Basis) -> str:
    """Say how many units a region's score is the mean over.

    Examples
    --------
    >>> from tuner.figures.metrics import METRICS
    >>> row = {"n_units": 3, "n_units_gated": 0, "n_units_with_ceiling": 3}
    >>> rows = [row | {"region": "V1"}, row | {"region": "V4", "n_units_gated": 1}]
    >>> of_units(rows[:1], METRICS["feve"], Basis()), of_units(rows, METRICS["validation_loss"], Basis())
    ('mean over all 3 units, each with a ceiling', 'mean over all 3 units of each region')
    >>> of_units(rows, METRICS["feve"], Basis())
    'mean over the units with a ceiling: V1 3 of 3, V4 2 of 3'
    """
    regions: dict[str, Row] = {}
    for row in rows:
        shown = regions.setdefault(str(row["region"]), row)
        if not _there(shown, COUNTED[0]):  # of a study without a finished fit
            regions[str(row["region"])] = row
    sizes = {region: int(number(row.get("n_units", 0))) for region, row in regions.items()}
    if not sum(sizes.values()):
        return "mean over units"
    known = {region: row for region, row in regions.items() if _there(row, COUNTED[0])}
    if metric.selected_on or not known:
        return f"mean over {_all(sizes)}"
    if not any(int(number(row[COUNTED[0]])) for row in known.values()):
        few = f"{_units(sum(sizes.values()))}" if len(sizes) == 1 else _all(sizes)
        return f"mean over {few}, none with a ceiling"
    of = {region: sizes[region] for region in known}
    counted = {region: of[region] - _gated(row) for region, row in known.items()}
    if counted == of:
        return f"mean over {_all(of)}, each with a ceiling"
    least = basis.min_explainable
    also = f" and an explainable variance of at least {short(least)}" if least > 0 else ""
    if len(of) == 1:
        ((region, size),) = of.items()
        return f"mean over {counted[region]} of {_units(size)}: those with a ceiling{also}"
    every = f"{sum(counted.values())} of {sum(of.values())} in all"
    each = ", ".join(f"{region} {counted[region]} of {size}" for region, size in of.items())
    return f"mean over the units with a ceiling{also}: {each if len(of) <= MANY else every}"


def _gated(row: Row) -> int:
    if _there(row, COUNTED[1]):
        return int(number(row[COUNTED[1]]))
    return int(number(row["n_units"]) - number(row[COUNTED[0]]))


def _all(sizes: Mapping[str, int]) -> str:
    """All units, of one region or of each of several."""
    least, most = min(sizes.values()), max(sizes.values())
    if len(sizes) == 1:
        return _units(most, "all ")
    if least == most:
        return f"all {_units(most)} of each region" if most > 1 else "the one unit of each region"
    return f"all units of each region ({least} to {most})"


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


def on_other_cuts(rows: Sequence[Row], basis: Basis, cuts: int) -> str:
    """Say what losses of fits on other cuts are over.

    Examples
    --------
    >>> row = {"backbone": "net", "region": "V4", "readout": "smooth", "n_units": 51}
    >>> on_other_cuts([row], Basis(weights={"net": "imagenet"}, closed_form={"smooth"}), 5)
    'loss: mean over all 51 units, on the training images that 5 other cuts hold out · imagenet weights · smooth: ...'
    """
    others = f"{cuts} other cut{'s' * (cuts != 1)}"
    held = f"{others} hold{'s' * (cuts == 1)} out"
    if basis.folds > 1:
        held = f"{others} into {basis.folds} folds hold{'s' * (cuts == 1)} out, all of them"
    return joined(
        f"loss: {of_units(rows, METRICS['validation_loss'], basis)}, on the training images that {held}",
        of_networks(basis, {str(row["backbone"]) for row in rows}),
        of_readouts(rows, basis),
    )


def on_test_images(basis: Basis) -> str:
    """Say how many test images there are and how often each was shown."""
    if basis.n_test is None:
        return "test images"
    if not basis.n_test:
        return "no test set"
    images = f"{basis.n_test} test images"
    if basis.n_test_groups is not None:
        images += f" in {basis.n_test_groups} group{'s' * (basis.n_test_groups != 1)}"
    if basis.n_repeats < 2:
        return f"{images}, one response (or mean of several) each"
    often = (
        f"{basis.n_repeats} repeats each" if basis.always else f"up to {basis.n_repeats} repeats"
    )
    return f"{images}, {often}"


def interval(basis: Basis) -> str:
    """Say what intervals of scores are drawn over."""
    if basis.n_test_groups is None:
        return "95 % interval over test images, for these units"
    return f"95 % interval over {basis.n_test_groups} groups of test images, for these units"


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
    """Say which readouts were searched, in how many trials, and which are closed forms.

    Examples
    --------
    >>> row = {"backbone": "net", "layer": "a", "readout": "full", "n_trials": 16, "n_complete": 3}
    >>> of_readouts([row], Basis(started={("net", "a", "full")}))
    'full: best of 16 trials (3 not cut short), from a closed-form start'
    >>> of_readouts([row, row | {"layer": "b"}], Basis(started={("net", "a", "full")}))
    'full: best of 16 trials (3 not cut short), 1 of 2 from a closed-form start'
    >>> of_readouts([row, row | {"n_trials": 0, "n_complete": 0}], Basis())
    'full: best of 16 trials (3 not cut short), 1 study not searched yet'
    """
    trials: dict[str, list[int]] = {}
    ended: list[int] = []
    begun: dict[str, list[bool]] = {}
    closed: dict[str, None] = {}
    waiting = 0
    for row in rows:
        readout, count = str(row["readout"]), number(row.get("n_trials"))
        if readout in basis.closed_form:
            closed[readout] = None
        elif readout != STACKED and count == count:
            of_one = trials.setdefault(readout, [])
            if not count:
                waiting += 1
                continue
            of_one.append(int(count))
            place = (str(row.get("backbone")), str(row.get("layer")), readout)
            begun.setdefault(readout, []).append(place in basis.started)
            if _there(row, "n_complete"):
                ended.append(int(number(row["n_complete"])))
    parts = []
    if trials:
        counts = [count for of_one in trials.values() for count in of_one]
        said = f"{', '.join(trials)}: "
        if counts:
            many, most = _range(counts), max(counts)
            said += f"best of {many} trial{'s' * (most != 1)}"
            if ended and min(ended) < most:
                said += f" ({_range(ended)} not cut short)"
            said += _from_a_start(begun)
        if waiting:
            studies = f"{waiting} stud{'y' if waiting == 1 else 'ies'}"
            said += f"{', ' if counts else ''}{studies} not searched yet"
        parts.append(said)
    if closed:
        parts.append(f"{', '.join(closed)}: closed form")
    return "; ".join(parts)


def _from_a_start(begun: Mapping[str, Sequence[bool]]) -> str:
    """Say which searches, or how many, began in a closed form; of each readout one entry a search."""
    every = [one for some in begun.values() for one in some]
    if not any(every):
        return ""
    named = ""
    if not all(every):
        whole = [name for name, some in begun.items() if all(some)]
        uniform = all(all(some) or not any(some) for some in begun.values())
        named = f"{', '.join(whole)} " if uniform else f"{sum(every)} of {len(every)} "
    return f", {named}from a closed-form start"


def beside(rows: Iterable[Row]) -> str:
    """Say what is drawn beside studies: references, closed forms all of them, and what is noted of them.

    Examples
    --------
    >>> beside([{"readout": "ridge"}, {"readout": "ridge (random weights)"}, {"readout": "ridge"}])
    'beside: ridge, in closed form; ridge, in closed form on the same networks with random weights'
    >>> noted = {"backbone": "net", "readout": "ridge", "note": "see below"}
    >>> beside([noted, noted, noted | {"note": float("nan")}])
    'beside: ridge, in closed form; ridge of net: see below'
    """
    rows, said = list(rows), []
    for readout in dict.fromkeys(str(row["readout"]) for row in rows):
        name, random, _ = readout.partition(" (random weights)")
        on = " on the same networks with random weights" if random else ""
        said.append(f"{name}, in closed form{on}")
    for row in rows:
        note = row.get("note")
        if isinstance(note, str) and note:  # pandas reads an empty one as NaN
            said.append(f"{row['readout']} of {row['backbone']}: {note}")
    said = list(dict.fromkeys(said))
    return f"beside: {'; '.join(said)}" if said else ""


def no_loss(rows: Sequence[Row], basis: Basis) -> str:
    """Say why references show no validation loss, where that of studies is another one; empty where both are one.

    Examples
    --------
    >>> no_loss([{"readout": "ridge"}], Basis(loss="poisson"))
    'no validation loss of ridge: squared error, that of studies is poisson; compare correlations'
    >>> no_loss([{"readout": "ridge"}], Basis()), no_loss([], Basis(loss="poisson"))
    ('', '')
    """
    if not rows or basis.loss == SQUARED_ERROR:
        return ""
    names = ", ".join(dict.fromkeys(str(row["readout"]) for row in rows))
    return (
        f"no validation loss of {names}: squared error, that of studies is {basis.loss}; "
        "compare correlations"
    )


def _range(counts: Collection[int]) -> str:
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def trials(row: Row, basis: Basis) -> str:
    """Say what the validation losses of a study's trials are over."""
    return joined(losses(basis), of_networks(basis, {str(row["backbone"])}))


def fit(row: Row, basis: Basis) -> str:
    """Say which fit of a study is shown, and on what network."""
    return joined(of_readouts([row], basis), of_networks(basis, {str(row["backbone"])}))


NO_EVIDENCE = "by what made them: no evidence"
"""What a comparison of images by predictions of their makers is worth."""

NOTHING = "not surely better than predicting the mean: what it makes says nothing of its units"
"""Said of an encoder whose fit failed."""


def encoder(row: Row, basis: Basis, *, size: int = 1, failed: bool = False) -> str:
    """Say what made something: which fits of a study, on what network, and whether they can be trusted.

    Parameters
    ----------
    row
        The study's, of the heatmap table.
    basis
        Of the experiment.
    size
        Number of its best trials that answer together.
    failed
        Whether its best fit is not surely better than predicting the mean.

    Examples
    --------
    >>> row = {"backbone": "net", "readout": "full", "n_trials": 16}
    >>> encoder(row, Basis(weights={"net": "imagenet"}), size=3)
    'full: mean of the 3 best of 16 trials · imagenet weights'
    """
    said = fit(row, basis)
    if size > 1:
        said = said.replace(": best of", f": mean of the {size} best of", 1)
    return joined(said, NOTHING if failed else "")


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
