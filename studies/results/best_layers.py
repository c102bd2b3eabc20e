"""The best layer of every unit or region, chosen by validation loss; test scores stand beside and choose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.scores import evaluate_all
from studies.workspace import Workspace
from tuner.figures.panels import NO_LAYER, NOT_TOLD, best_row, pending

if TYPE_CHECKING:
    import pandas as pd

PER = ("unit", "region")


def best_of(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    per: Literal["unit", "region"],
) -> pd.DataFrame:
    """Return a row per unit or region: the study with its lowest validation loss, ties to the shallower layer.

    Where no fit of a unit or region is surely better than predicting the mean, its layer is ``none``, with a note, and
    it has no scores.

    Raises
    ------
    InputError
        If no study has a complete trial.
    """
    import pandas as pd

    contests: dict[Any, list[dict[str, Any]]] = {}
    for one in evaluate_all(workspace, stores, specs):
        for row in one.units if per == "unit" else [one.row]:
            if not pending(row):
                contests.setdefault(row[per], []).append(row)
    first = [per, "backbone", "layer", "readout", "validation_loss"]
    chosen: list[Mapping[str, Any]] = []
    for key, rows in sorted(contests.items()):
        best = best_row(rows)
        none = {per: key, "layer": NO_LAYER, "note": NOT_TOLD}
        chosen.append(none if best is None else {"note": "", **best})
    names = dict.fromkeys([*first, *(name for rows in contests.values() for name in rows[0])])
    return pd.DataFrame(chosen, columns=[*names, *(["note"] if "note" not in names else [])])
