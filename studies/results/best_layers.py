"""The best layer of every unit or region, chosen by validation loss; test scores stand beside and choose nothing.

Of a unit it is said how sure the choice is: its loss at every other layer less that at the best, on the same held-out images
(:mod:`studies.results.sure`). Of a region other cuts of the images say it, see :mod:`studies.results.resplit`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from studies.config.networks import untrained
from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.paired import set_against
from studies.results.scores import Evaluated, evaluate_all, unit_columns
from studies.results.sure import Fit, ahead, divisors
from studies.workspace import Workspace
from tuner.figures.panels import NO_LAYER, NOT_SURE, NOT_TOLD, best_row, pending

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from tuner.scores import Gaps

PER = ("unit", "region")


NEXT = ("next_backbone", "next_layer", "next_validation_loss")
"""Columns of the best fit at another layer, of this network or another."""

CHOICE = ("next_difference", "next_difference_low", "next_difference_high", "choice", "rivals")
"""Columns that say of a unit how sure its best layer is."""

COLUMNS = (
    *("unit", "region", "backbone", "layer", "layer_index", "readout", "validation_loss"),
    *NEXT,
    *CHOICE,
    *("test_correlation", "test_correlation_low", "test_correlation_high", "note"),
)
"""Of ``unit_layers.csv``, before the unit's columns in the recording: one row per unit."""

CONTROL = "this network has random weights: what the trained ones have learned does not help here"

Row = Mapping[str, Any]


def best_of(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    per: Literal["unit", "region"],
) -> pd.DataFrame:
    """Return a row per unit or region: the study with its lowest validation loss, ties to the shallower layer.

    Where no fit of a unit or region is surely better than predicting the mean, its layer is ``none``, with a note, and
    it has no scores. Where the lowest loss is of such a fit, and another is chosen, the note says so. Beside the best stand
    the next layer, of this network or another, and the lowest loss there; of a unit also how sure the choice is, of a region
    how its test score stands against those of closed forms, paired (:mod:`studies.results.paired`).

    Raises
    ------
    InputError
        If no study has a complete trial.
    """
    import pandas as pd

    # All weights together would fill the memory.
    evaluated = evaluate_all(workspace, stores, specs)
    found = [replace(one, parameters=None) for one in evaluated]
    if per == "unit":
        chosen = unit_layers(workspace, found)
    else:
        chosen = _set_against(workspace, stores, found, region_layers(workspace, found))
    rows = [row for one in found for row in (one.units if per == "unit" else [one.row])] + chosen
    first = [per, "backbone", "layer", "readout", "validation_loss", *NEXT]
    first += CHOICE if per == "unit" else ()
    names = dict.fromkeys([*first, *(name for row in rows if not pending(row) for name in row)])
    return pd.DataFrame(chosen, columns=[*names, *(["note"] if "note" not in names else [])])


def region_layers(workspace: Workspace, found: Sequence[Evaluated]) -> list[Row]:
    """Return a row per region, as :func:`best_of`."""
    controls = _controls(workspace)
    contests: dict[str, list[Row]] = {}
    for one in found:
        if not pending(one.row):
            contests.setdefault(one.row["region"], []).append(one.row)
    out: list[Row] = []
    for region, rows in sorted(contests.items()):
        best = best_row(rows)
        if best is None:
            out.append({"region": region, "layer": NO_LAYER, "note": NOT_TOLD})
        else:
            out.append(_beside(best, rows, controls))
    return out


def _set_against(
    workspace: Workspace, stores: Stores, found: Sequence[Evaluated], chosen: Sequence[Row]
) -> list[Row]:
    """Put beside the best of each region how it stands against closed forms, as ``heatmap.csv`` does of every study."""
    places = {(row.get("backbone"), row["layer"], row["region"]) for row in chosen}
    near = [one for one in found if one.spec.key.place in places]
    told: dict[tuple[Any, ...], Row] = {
        (*one.spec.key.place, one.spec.key.readout): one.row
        for one in set_against(workspace, stores, near, [])
    }
    names = ("backbone", "layer", "region", "readout")
    return [{**told.get(tuple(row.get(name) for name in names), {}), **row} for row in chosen]


def unit_layers(workspace: Workspace, found: Sequence[Evaluated]) -> list[Row]:
    """Return a row per unit, as :func:`best_of`, with how sure its layer is."""
    of_units = unit_columns(workspace, 0)
    controls = _controls(workspace)
    contests: dict[int, list[tuple[Row, Fit]]] = {}
    for one in found:
        for place, row in enumerate(one.units):
            if not pending(row):
                contests.setdefault(row["unit"], []).append((row, (one, place)))
    weights: dict[str, NDArray[np.float64]] = {}
    out: list[Row] = []
    for unit, fits in sorted(contests.items()):
        rows = [row for row, _ in fits]
        best = best_row(rows)
        if best is None:
            about = {name: rows[0][name] for name in rows[0] if name in of_units}
            whose = {"unit": unit, "region": rows[0]["region"]}
            out.append({**about, **whose, "layer": NO_LAYER, "note": NOT_TOLD})
            continue
        one, place = next(fit for row, fit in fits if row is best)
        region = one.spec.key.region
        if region not in weights:
            weights[region] = divisors(workspace, one.spec.units)
        rivals = _other_layers(fits, best)
        gaps = ahead(workspace, (one, place), [fit for _, fit in rivals], weights[region][:, place])
        out.append({**_beside(best, rows, controls), **_how_sure(rivals, gaps)})
    return out


def _controls(workspace: Workspace) -> frozenset[str]:
    """Networks of random weights, where there are others."""
    tables = workspace.experiment.backbone
    random = untrained(tables)
    return random if len(random) < len(tables) else frozenset()


def _beside(best: Row, rows: Sequence[Row], controls: frozenset[str]) -> dict[str, Any]:
    """Put beside the best which other layer comes next, by its lowest loss, and which fit was passed over.

    That the best is a control is noted: no layer that has learned anything is ahead of it.
    """
    control = CONTROL if best["backbone"] in controls else ""
    note = "; ".join(filter(None, (control, best.get("note") or _passed_over(rows, best))))
    others = [row for row in rows if _layer(row) != _layer(best)]
    following = min(others, key=_loss, default=None)
    found = () if following is None else (*_layer(following), following["validation_loss"])
    return {**best, **dict(zip(NEXT, found, strict=False)), "note": note}


def _passed_over(rows: Sequence[Row], best: Row) -> str:
    """Say which fit has a lower loss than the one that was chosen, and why it was not."""
    lowest = min(rows, key=_loss)
    if not _loss(lowest) < _loss(best):
        return ""
    where = "/".join(str(lowest[name]) for name in ("backbone", "layer", "readout"))
    return f"{where} has a lower loss ({lowest['validation_loss']:.3f}), but is {NOT_SURE}"


def _other_layers(fits: Sequence[tuple[Row, Fit]], best: Row) -> list[tuple[Row, Fit]]:
    """Of every other layer the fit of lowest loss, the nearest first; those that diverged are no rivals."""
    nearest: dict[tuple[str, str], tuple[Row, Fit]] = {}
    for row, fit in sorted(fits, key=lambda one: _loss(one[0])):
        if _layer(row) != _layer(best) and math.isfinite(_loss(row)):
            nearest.setdefault(_layer(row), (row, fit))
    return list(nearest.values())


def _how_sure(rivals: Sequence[tuple[Row, Fit]], gaps: Gaps) -> dict[str, Any]:
    """Columns :data:`CHOICE`; empty where there is no other layer."""
    if not rivals:
        return {}
    near = [row for (row, _), worse in zip(rivals, gaps.worse, strict=True) if not worse]
    names = ", ".join("/".join(_layer(row)) for row in near)
    limits = (float(values[0]) for values in (gaps.difference, gaps.low, gaps.high))
    return dict(zip(CHOICE, (*limits, gaps.choice, names), strict=True))


def _layer(row: Row) -> tuple[str, str]:
    return str(row["backbone"]), str(row["layer"])


def _loss(row: Row) -> float:
    return float(row["validation_loss"])


MOST = 8
"""Regions whose best layers are printed; the tables have all."""


def lowest(rows: Sequence[Row]) -> str:
    """Say which layer is the best of each region, of rows from :func:`region_layers`.

    Examples
    --------
    >>> best = {"region": "V4", "backbone": "net", "layer": "b", "readout": "full"}
    >>> lowest([best, {"region": "IT", "layer": "none"}])
    'lowest validation loss: V4 net/b (full), IT none'
    """
    each = [
        f"{row['region']} {row['layer']}"
        if row["layer"] == NO_LAYER
        else f"{row['region']} {row['backbone']}/{row['layer']} ({row['readout']})"
        for row in rows[:MOST]
    ]
    more = f", and {len(rows) - MOST} more regions" if len(rows) > MOST else ""
    return f"lowest validation loss: {', '.join(each)}{more}"


def among_layers(backbones: Collection[str]) -> str:
    """What other cuts say how sure the choice is among; empty where that is all layers.

    Examples
    --------
    >>> among_layers(["net", "net"]), among_layers(["net", "gabor"])
    ('', " among each network's layers")
    """
    return " among each network's layers" if len(set(backbones)) > 1 else ""


def summary(rows: Sequence[Row]) -> str:
    """Say of how many units the best layer is sure; empty where no unit has two layers to choose from.

    Examples
    --------
    >>> summary([{"layer": "a", "choice": "sure"}, {"layer": "b", "choice": "undecided"}, {"layer": "none"}])
    'best layer of single units: sure of 1 of 3, undecided of 1, none of 1'
    """
    counts = Counter(row.get("choice") for row in rows)
    none = sum(row["layer"] == NO_LAYER for row in rows)
    if not counts["sure"] + counts["undecided"]:
        return ""
    said = f"sure of {counts['sure']} of {len(rows)}, undecided of {counts['undecided']}"
    said += f", none of {none}" if none else ""
    return f"best layer of single units: {said}"
