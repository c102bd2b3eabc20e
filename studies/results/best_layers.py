"""The best layer of every unit or region, chosen by validation loss; test scores stand beside and choose nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.scores import evaluate_all
from studies.workspace import Workspace
from tuner.figures.metrics import number
from tuner.figures.panels import failed

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

    A region's fits that failed are no candidates; a region without another is left out.

    Raises
    ------
    InputError
        If no study has a complete trial.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for one in evaluate_all(workspace, stores, specs, draws=0):
        if per == "unit":
            rows += one.units
        elif not failed(one.row):
            rows.append(one.row)
    there = [row for row in rows if not math.isnan(number(row.get("validation_loss")))]
    best: dict[Any, dict[str, Any]] = {}
    for row in sorted(there, key=lambda row: (row["validation_loss"], row["layer_index"])):
        best.setdefault(row[per], row)
    first = [per, "backbone", "layer", "readout", "validation_loss"]
    chosen = [best[key] for key in sorted(best)]
    frame = pd.DataFrame(chosen)
    return (
        frame[[*first, *(name for name in frame.columns if name not in first)]] if chosen else frame
    )
