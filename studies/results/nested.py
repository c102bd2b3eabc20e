"""What the choice of a layer is worth on images that had no part in it: nested cross-validation over layers.

The layer with the lowest validation loss was chosen on the images that the loss is of, so that loss flatters it. Here the
layer is chosen without each fold in turn, and judged on that fold: the fits are the search's own, which did not see the fold
either. With a single cut the two halves of the validation images take turns. Settings were chosen on all of these images, so
what is left of the optimism is theirs. Test images are used by no choice, and need no nesting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.results.judged import by_image, mean_losses
from tuner.figures.panels import NO_LAYER, best_row
from tuner.scores.moments import nan_mean

if TYPE_CHECKING:
    from studies.results.scores import Evaluated
    from studies.workspace import Workspace

COLUMNS = (
    "backbone",
    "region",
    "readout",
    "n_layers",
    "chosen",
    "validation_loss",
    "nested_loss",
    "chosen_inside",
)
"""Of ``nested.csv``: one row per backbone, region and readout."""


def nested_rows(workspace: Workspace, found: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Rows with :data:`COLUMNS`, of every backbone, region and readout of which two layers or more were fitted."""
    contests: dict[tuple[str, str, str], list[Evaluated]] = {}
    for one in found:
        key = one.spec.key
        if one.image_losses is not None:
            contests.setdefault((key.backbone, key.region, key.readout), []).append(one)
    folds = workspace.cuts.halves if workspace.cuts.n_folds == 1 else workspace.cuts.folds
    rows = []
    for (backbone, region, readout), layers in contests.items():
        if len(layers) < 2:
            continue
        losses = np.stack([one.image_losses for one in layers if one.image_losses is not None])
        best = best_row(one.row for one in layers)
        chosen = min(layers, key=lambda o: (o.row is not best, float(o.row["validation_loss"])))
        outside, picked = nested(losses, folds)
        names = Counter(layers[k].spec.key.layer for k in picked)
        rows.append(
            {
                "backbone": backbone,
                "region": region,
                "readout": readout,
                "n_layers": len(layers),
                "chosen": NO_LAYER if best is None else chosen.spec.key.layer,
                "validation_loss": chosen.row["validation_loss"],
                "nested_loss": outside / _divisor(workspace, chosen),
                "chosen_inside": ", ".join(f"{name} {n}x" for name, n in names.most_common()),
            }
        )
    return rows


def nested(losses: NDArray[np.float64], folds: NDArray[np.int64]) -> tuple[float, list[int]]:
    """Choose on all folds but one, judge on that one.

    Parameters
    ----------
    losses
        ``(n_candidates, n_images)`` of each image by a fit that did not see it; NaN = none.
    folds
        ``(n_images,)`` codes.

    Returns
    -------
    loss
        Mean over images, each of what was chosen without its fold.
    chosen
        Candidate of each fold in order.
    """
    outside = np.full(losses.shape[1], np.nan)
    picked = []
    for fold in np.unique(folds):
        mine = folds == fold
        inside = nan_mean(losses[:, ~mine], axis=1)
        best = int(np.argmin(np.where(np.isnan(inside), np.inf, inside)))
        outside[mine] = losses[best, mine]
        picked.append(best)
    return float(nan_mean(outside)), picked


def _divisor(workspace: Workspace, one: Evaluated) -> float:
    """Loss of predicting every unit's mean on these images, averaged as `nested` does; 1 where losses are not divided."""
    if workspace.mean_loss(one.spec.units) == 1.0:
        return 1.0
    target = workspace.targets.validation[:, one.spec.units]
    return float(nan_mean(by_image(mean_losses(workspace.experiment.training.loss, target))))
