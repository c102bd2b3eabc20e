"""The best layer of every unit or region, chosen by validation loss; test scores stand beside and choose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.scores import evaluate_all, unit_columns
from studies.workspace import Workspace
from tuner.figures.panels import NO_LAYER, NOT_SURE, NOT_TOLD, best_row, pending

if TYPE_CHECKING:
    import pandas as pd

PER = ("unit", "region")

NEXT = ("next_backbone", "next_layer", "next_validation_loss")
"""Columns of the best fit at another layer, of this network or another."""


def best_of(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    per: Literal["unit", "region"],
) -> pd.DataFrame:
    """Return a row per unit or region: the study with its lowest validation loss, ties to the shallower layer.

    Where no fit of a unit or region is surely better than predicting the mean, its layer is ``none``, with a note, and
    it has no scores. Where the lowest loss is of such a fit, and another is chosen, the note says so. Beside the best stand
    the next layer, of this network or another, and the lowest loss there: one that is ahead by little is not surely best.

    Raises
    ------
    InputError
        If no study has a complete trial.
    """
    import pandas as pd

    of_units = unit_columns(workspace, 0)
    contests: dict[Any, list[dict[str, Any]]] = {}
    for one in evaluate_all(workspace, stores, specs):
        for row in one.units if per == "unit" else [one.row]:
            if not pending(row):
                contests.setdefault(row[per], []).append(row)
    first = [per, "backbone", "layer", "readout", "validation_loss", *NEXT]
    chosen: list[Mapping[str, Any]] = []
    for key, rows in sorted(contests.items()):
        best = best_row(rows)
        if best is None:
            told = rows[0] if per == "unit" else {}
            about = {name: told[name] for name in told if name in of_units or name == "region"}
            chosen.append({**about, per: key, "layer": NO_LAYER, "note": NOT_TOLD})
        else:
            note = best.get("note") or _passed_over(rows, best)
            chosen.append({**best, **_next(rows, best), "note": note})
    names = dict.fromkeys([*first, *(name for rows in contests.values() for name in rows[0])])
    return pd.DataFrame(chosen, columns=[*names, *(["note"] if "note" not in names else [])])


def _passed_over(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> str:
    """Say which fit has a lower loss than the one that was chosen, and why it was not."""
    lowest = min(rows, key=lambda row: float(row["validation_loss"]))
    if not lowest["validation_loss"] < best["validation_loss"]:
        return ""
    where = "/".join(str(lowest[name]) for name in ("backbone", "layer", "readout"))
    return f"{where} has a lower loss ({lowest['validation_loss']:.3f}), but is {NOT_SURE}"


def _next(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> dict[str, Any]:
    """Say which other layer comes next, by the lowest loss of its readouts."""
    others = [row for row in rows if any(row[name] != best[name] for name in ("backbone", "layer"))]
    if not others:
        return {}
    following = min(others, key=lambda row: float(row["validation_loss"]))
    found = (following["backbone"], following["layer"], following["validation_loss"])
    return dict(zip(NEXT, found, strict=True))
