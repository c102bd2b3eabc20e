"""Closed forms beside the studies: what no search at all would reach on the same layer, region and cut.

Ridge, ridge under a Gaussian mask a unit, and ridge if the network had learned nothing: the same layer with random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.config.networks import BASELINES
from studies.grid import Spec
from studies.results.judged import fit_failed, mean_losses
from studies.results.predictions import predictions
from studies.results.scores import region_columns
from studies.search.closed_form import arranged, judged_predictions
from studies.workspace import Workspace
from tuner.progress import counted

if TYPE_CHECKING:
    from tuner.closed_form.fwrf import FwrfFit
    from tuner.closed_form.smooth import SmoothFit

RIDGE = "ridge"
FWRF = "fwrf"
RANDOM = "ridge (random weights)"


def ridge_rows(workspace: Workspace, specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """Rows like those of ``heatmap.csv``, one per backbone, layer and region of the studies.

    The strength is chosen per unit by leave-one-out among the fit images, and the fit is closed-form: the smooth readout
    without its prior. ``validation_loss`` is squared error over variance whatever the studies' loss is.
    """
    return _rows(workspace, specs, RIDGE)


def fwrf_rows(workspace: Workspace, specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """As `ridge_rows`, with a Gaussian mask for each unit: the factorized readout without a search (fwRF)."""
    return _rows(workspace, specs, FWRF)


def random_rows(workspace: Workspace, specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """As `ridge_rows`, on the same layers of the same networks with random weights, seeded by ``search.seed``.

    Pixels and Gabor filters have no weights, and no such rows.
    """
    specs = [s for s in specs if workspace.settings(s.key.backbone).name not in BASELINES]
    layers: dict[str, dict[str, None]] = {}
    for spec in specs:
        layers.setdefault(spec.key.backbone, {})[spec.key.layer] = None
    untrained = workspace.untrained({alias: list(names) for alias, names in layers.items()})
    return _rows(untrained, specs, RANDOM)


REFERENCES: Mapping[str, Callable[[Workspace, Sequence[Spec]], list[dict[str, Any]]]] = {
    "ridge": ridge_rows,
    "fwrf": fwrf_rows,
    "random": random_rows,
}
"""What each option of ``tuner export heatmap`` draws beside the studies."""


def _closed_form(readout: str) -> tuple[Callable[..., SmoothFit | FwrfFit], str]:
    """What fits a reference, and the readout whose parameters it gives."""
    from tuner.closed_form.fwrf import fit_fwrf
    from tuner.closed_form.smooth import fit_smooth

    if readout == FWRF:
        return fit_fwrf, "factorized"
    return partial(fit_smooth, widths=[0.0]), "full"


def _rows(workspace: Workspace, specs: Sequence[Spec], readout: str) -> list[dict[str, Any]]:
    from tuner.closed_form.smooth import PENALTIES
    from tuner.fitting import losses
    from tuner.fitting.losses import response_scaling
    from tuner.scores import mean_correlation, pearson, score_units

    fit, kind = _closed_form(readout)
    layers = list(dict.fromkeys((s.key.backbone, s.key.layer, s.layer_index) for s in specs))
    wanted = {(s.key.backbone, s.key.layer, s.key.region) for s in specs}
    recording, splits = workspace.recording, workspace.cuts.splits
    fitted, others, groups = arranged(splits, recording.train_groups)
    scaling = response_scaling("mse", recording.train_responses[fitted])
    targets = scaling.apply(recording.train_responses)
    rows = []
    what = f"references: {readout}"
    for backbone, layer, index in counted(layers, what, workspace.progress):
        features = workspace.features(backbone, layer)
        regions = {
            region: units
            for region, units in workspace.regions.items()
            if (backbone, layer, region) in wanted
        }
        every = np.concatenate(list(regions.values()))
        position = {int(unit): i for i, unit in enumerate(every)}
        local = {
            region: np.array([position[int(u)] for u in units]) for region, units in regions.items()
        }
        found = fit(
            features.train,
            targets[:, every],
            fitted,
            others=others,
            groups=groups,
            weights=features.test is not None,
            device=workspace.algebra_device,
        )
        predicted = judged_predictions(found, splits)
        judged = targets[workspace.cuts.held_out][:, every]
        each = np.square(predicted - judged).astype(np.float64)
        flat = mean_losses("mse", judged)
        # With folds each unit's setting was chosen on the images that it is judged on.
        tried = 1 if workspace.cuts.n_folds == 1 else len(PENALTIES)
        tested = None
        if features.test is not None:
            rows_there = np.arange(len(features.test))
            scaled = predictions(kind, found.parameters, features.test, rows_there)
            tested = scaled * scaling.scale[every] + scaling.mean[every]
        for region, mine in local.items():
            held_out = targets[workspace.cuts.held_out][None, :, every[mine]]
            relative = workspace.experiment.training.relative
            mean_loss = losses.mean_loss("mse", held_out[0]) if relative else 1.0
            row: dict[str, Any] = {
                "backbone": backbone,
                "layer": layer,
                "layer_index": index,
                "region": region,
                "readout": readout,
                "n_units": len(mine),
                "validation_loss": float(np.nanmean(each[:, mine], axis=0).mean()) / mean_loss,
                "validation_correlation": mean_correlation(
                    pearson(predicted[:, mine], held_out), held_out
                ),
            }
            row["fit_failed"] = fit_failed(
                workspace, row["validation_loss"], each[:, mine], flat[:, mine], trials=tried
            )
            if recording.test_responses is not None and tested is not None:
                row |= region_columns(
                    workspace,
                    score_units(
                        tested[:, mine],
                        recording.test_responses[:, :, every[mine]],
                        draws=0,
                        **workspace.scoring,
                    ),
                )
            rows.append(row)
    return rows
