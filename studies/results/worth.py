"""What a study's best trial is worth, in a few numbers: said at the end of a search, in the dashboard and in listings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studies.grid import Spec
from studies.results.scores import score
from studies.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

SCORES = (
    *("fit_failed", "validation_correlation", "test_correlation"),
    *("test_correlation_normalized", "feve", "noise_ceiling"),
    *("n_units_with_ceiling", "n_units_gated"),
)
"""Those of ``heatmap.csv`` that are kept with a study."""

DIGITS = 4


def worth(
    workspace: Workspace, spec: Spec, parameters: Mapping[str, Tensor], loss: float, finished: int
) -> dict[str, Any]:
    """Score a study's best trial without intervals; a :data:`studies.workspace.Scorer`."""
    found = score(
        workspace,
        spec,
        dict(parameters),
        value=loss,
        finished=finished,
        intervals=False,
        fields=False,
    ).row
    there = {name: found[name] for name in SCORES if name in found}
    return {
        name: round(value, DIGITS) if isinstance(value, float) else value
        for name, value in there.items()
        if not (isinstance(value, float) and math.isnan(value))
    }
