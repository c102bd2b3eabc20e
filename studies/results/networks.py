"""Network against region: the best layer of each network, its place in depth, and all its layers together.

The layer and the readout are those of lowest validation loss; test images choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.config.networks import BASELINES
from studies.results.scores import REGION_COLUMNS, Evaluated
from studies.workspace import Workspace

_SCORES = ("validation_loss", "validation_correlation", *REGION_COLUMNS)
_WITH_LIMITS = ("test_correlation", "test_correlation_normalized", "feve")

COLUMNS = (
    *(
        "network",
        "kind",
        "draws_of",
        "region",
        "layer",
        "layer_index",
        "depth",
        "readout",
        "n_units",
    ),
    *_SCORES,
    "fit_failed",
    *(f"{score}_{limit}" for score in _WITH_LIMITS for limit in ("low", "high")),
    *(f"stacked_{score}" for score in ("validation_loss", *_WITH_LIMITS)),
    *(f"stacked_{score}_{limit}" for score in _WITH_LIMITS for limit in ("low", "high")),
)
"""One row per network and region."""


def kind(workspace: Workspace, alias: str) -> str:
    """What a backbone is in the comparison: a ``network``, a ``baseline``, or ``untrained``."""
    settings = workspace.settings(alias)
    if settings.name in BASELINES:
        return "baseline"
    return "untrained" if settings.weights == "random" else "network"


def draws(workspace: Workspace) -> dict[str, str]:
    """Backbone to the alias that it shares with other draws of its weights."""
    return {t.alias: t.draws_of for t in workspace.experiment.backbone if t.draws_of}


def network_rows(
    workspace: Workspace,
    found: Sequence[Evaluated],
    stacked: Mapping[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, tuple[float, float]]]],
) -> list[dict[str, Any]]:
    """Return a row for each network and region that has a finished fit.

    Parameters
    ----------
    found
        Every study that is shown.
    stacked
        Network and region to the row of all its studies together and the intervals of that row's scores.
    """
    best: dict[tuple[str, str], Evaluated] = {}
    for one in found:
        loss, key = one.row.get("validation_loss"), (one.spec.key.backbone, one.spec.key.region)
        if loss is None:
            continue
        if key not in best or _rank(one) < _rank(best[key]):
            best[key] = one
    rows = []
    for (alias, region), one in best.items():
        spec = one.spec
        row: dict[str, Any] = {
            "network": alias,
            "kind": kind(workspace, alias),
            "draws_of": draws(workspace).get(alias, ""),
            "region": region,
            "layer": spec.key.layer,
            "layer_index": spec.layer_index,
            "depth": depth(workspace, alias, spec.layer_index),
            "readout": spec.key.readout,
            "n_units": len(spec.units),
            "fit_failed": one.row["fit_failed"],
        }
        row |= {score: one.row.get(score) for score in _SCORES}
        row |= _limits("", one.intervals)
        together = stacked.get((alias, region))
        if together is not None:
            scores, intervals = together
            row |= {f"stacked_{s}": scores.get(s) for s in ("validation_loss", *_WITH_LIMITS)}
            row |= _limits("stacked_", intervals)
        rows.append(row)
    return rows


def _rank(one: Evaluated) -> tuple[bool, float]:
    """Fits that failed come last, then the lower loss is better."""
    return bool(one.row["fit_failed"]), float(one.row["validation_loss"])


def _limits(prefix: str, intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {
        f"{prefix}{score}_{limit}": value
        for score in _WITH_LIMITS
        for limit, value in zip(("low", "high"), intervals.get(score, (np.nan,) * 2), strict=True)
    }


def depth(workspace: Workspace, alias: str, index: int) -> float | None:
    """Place of a layer among all that its network has, 0 for the first and 1 for the last; None where it has one."""
    wanted = [info.name for info in workspace.layers(alias)]
    last = workspace.backbone(alias).last_index(wanted, workspace.experiment.data.image_size)
    return index / last if last else None
