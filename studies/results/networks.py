"""Network against region: the best layer of each network, its place in depth, and all its layers together.

The layer and the readout are those of lowest validation loss; test images choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studies.config.networks import BASELINES, draws
from studies.results.on_test_images import REGION_COLUMNS, limits
from studies.results.scores import Evaluated
from studies.workspace import Workspace
from tuner.figures.panels import NO_LAYER, best_row, pending
from tuner.figures.tables import WITH_LIMITS

_SCORES = ("validation_loss", "validation_correlation", *REGION_COLUMNS)

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
    *(f"{score}_{limit}" for score in WITH_LIMITS for limit in ("low", "high")),
    *(f"stacked_{score}" for score in ("validation_loss", *WITH_LIMITS)),
    *(f"stacked_{score}_{limit}" for score in WITH_LIMITS for limit in ("low", "high")),
)
"""One row per network and region."""


def kind(workspace: Workspace, alias: str) -> str:
    """What a backbone is in the comparison: a ``network``, a ``baseline``, or ``untrained``."""
    settings = workspace.networks.settings(alias)
    if settings.name in BASELINES:
        return "baseline"
    return "untrained" if settings.weights == "random" else "network"


def network_rows(
    workspace: Workspace,
    found: Sequence[Evaluated],
    stacked: Mapping[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, tuple[float, float]]]],
) -> list[dict[str, Any]]:
    """Return a row for each network and region that has a finished fit.

    Where all fits failed there is no best layer, and the scores are those of the fit with the lowest loss.

    Parameters
    ----------
    found
        Every study that is shown.
    stacked
        Network and region to the row of all its studies together and the intervals of that row's scores.
    """
    contests: dict[tuple[str, str], list[Evaluated]] = {}
    for one in found:
        if not pending(one.row):
            contests.setdefault((one.spec.key.backbone, one.spec.key.region), []).append(one)
    rows = []
    for (alias, region), mine in contests.items():
        best = best_row(one.row for one in mine)
        one = min(mine, key=lambda one: (one.row is not best, float(one.row["validation_loss"])))
        spec = one.spec
        row: dict[str, Any] = {
            "network": alias,
            "kind": kind(workspace, alias),
            "draws_of": draws(workspace.experiment.backbone).get(alias, ""),
            "region": region,
            "layer": NO_LAYER if best is None else spec.key.layer,
            "layer_index": None if best is None else spec.layer_index,
            "depth": None if best is None else depth(workspace, alias, spec.layer_index),
            "readout": None if best is None else spec.key.readout,
            "n_units": len(spec.units),
            "fit_failed": one.row["fit_failed"],
        }
        row |= {score: one.row.get(score) for score in _SCORES}
        row |= limits(one.intervals)
        together = stacked.get((alias, region))
        if together is not None:
            scores, intervals = together
            row |= {f"stacked_{s}": scores.get(s) for s in ("validation_loss", *WITH_LIMITS)}
            row |= limits(intervals, "stacked_")
        rows.append(row)
    return rows


def depth(workspace: Workspace, alias: str, index: int) -> float | None:
    """Place of a layer among all that its network has, 0 for the first and 1 for the last; None where it has one."""
    wanted = [info.name for info in workspace.networks.layers(alias)]
    last = workspace.networks.backbone(alias).last_index(
        wanted, workspace.experiment.data.image_size
    )
    return index / last if last else None
