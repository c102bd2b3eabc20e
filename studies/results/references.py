"""Closed forms beside the studies: what no search at all would reach on the same layer, region and cut.

Ridge, ridge under a Gaussian mask a unit, what searches start in, and ridge if the network had learned nothing: the same
layer with random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.config.networks import BASELINES
from studies.database.artifacts import Tensors
from studies.grid import Spec
from studies.results.judged import fit_failed, mean_losses
from studies.results.predictions import predictions
from studies.results.scores import region_columns
from studies.search.closed_form import arranged, judged_predictions
from studies.search.start import located_fits
from studies.workspace import Workspace
from tuner.progress import counted

if TYPE_CHECKING:
    from tuner.closed_form.fwrf import FwrfFit
    from tuner.closed_form.smooth import SmoothFit

RIDGE = "ridge"
FWRF = "fwrf"
LOCATED = "located"
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


def located_rows(workspace: Workspace, specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """As `ridge_rows`, in the closed form that columns start in: what is above it, a search has added.

    See :mod:`tuner.closed_form.located`; test images are predicted by the mean of the folds' fits.
    """
    return _rows(workspace, specs, LOCATED)


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
    "located": located_rows,
    "random": random_rows,
}
"""What each option of ``tuner export heatmap`` draws beside the studies."""


@dataclass(frozen=True)
class _Fitted:
    """What a closed form predicts of the images that fits are judged on, and of the test images; ``(n_images, n_units)``."""

    held_out: NDArray[np.float32]
    tested: NDArray[np.float32] | None


def _left_out_one_by_one(
    workspace: Workspace,
    spec: Spec,
    targets: NDArray[np.float32],
    units: NDArray[np.int64],
    name: str,
) -> _Fitted:
    """Ridge or fwRF of a layer, settings chosen by leaving out one image, group or fold at a time."""
    from tuner.closed_form.fwrf import fit_fwrf
    from tuner.closed_form.smooth import fit_smooth

    features = workspace.features(spec.key.backbone, spec.key.layer)
    splits = workspace.cuts.splits
    rows, others, groups = arranged(splits, workspace.recording.train_groups)
    fit: Callable[..., SmoothFit | FwrfFit] = partial(fit_smooth, widths=[0.0])
    found = (fit_fwrf if name == FWRF else fit)(
        features.train,
        targets[:, units],
        rows,
        others=others,
        groups=groups,
        weights=features.test is not None,
        device=workspace.algebra_device,
    )
    tested = None
    if features.test is not None:
        kind = "factorized" if name == FWRF else "full"
        every = np.arange(len(features.test))
        tested = predictions(kind, found.parameters, features.test, every)
    return _Fitted(judged_predictions(found, splits), tested)


def _located(
    workspace: Workspace,
    spec: Spec,
    targets: NDArray[np.float32],
    units: NDArray[np.int64],
) -> _Fitted:
    """Where searches start, as they keep it; of the test images the mean of the folds' fits."""
    from tuner.fitting.plan import resolve_memory
    from tuner.fitting.targets import Targets

    features, cuts = workspace.features(spec.key.backbone, spec.key.layer), workspace.cuts
    memory = resolve_memory(workspace.experiment.training.memory, workspace.device)
    given = Targets.of(targets, cuts.splits, cuts.halves)
    fitted, weight, bias = located_fits(workspace, spec, given, memory, loss="mse")
    there = np.isin(units, fitted)
    mine = np.searchsorted(fitted, units[there])
    weight, bias = weight[:, mine], bias[:, mine]

    def predicted(fit: Tensors, maps: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        whole = np.zeros((len(rows), len(units)), dtype=np.float32)
        whole[:, there] = predictions("full", fit, maps, rows)
        return whole

    held_out = np.zeros((len(cuts.held_out), len(units)), dtype=np.float32)
    for rows, weights, level, split in zip(given.judged, weight, bias, cuts.splits, strict=True):
        fit = {"weight": weights, "bias": level}
        held_out[rows] = predicted(fit, features.train, split.validation)
    tested = None
    if features.test is not None:
        mean = {"weight": weight.mean(0), "bias": bias.mean(0)}
        tested = predicted(mean, features.test, np.arange(len(features.test)))
    return _Fitted(held_out, tested)


def _rows(workspace: Workspace, specs: Sequence[Spec], readout: str) -> list[dict[str, Any]]:
    from tuner.closed_form.smooth import PENALTIES
    from tuner.fitting import losses
    from tuner.fitting.losses import response_scaling
    from tuner.scores import mean_correlation, pearson, score_units

    layers: dict[tuple[str, str], Spec] = {}
    for spec in specs:
        layers.setdefault((spec.key.backbone, spec.key.layer), spec)
    wanted = {(s.key.backbone, s.key.layer, s.key.region) for s in specs}
    recording = workspace.recording
    scaling = response_scaling("mse", recording.train_responses[workspace.cuts.fitted])
    targets = scaling.apply(recording.train_responses)
    rows = []
    what = f"references: {readout}"
    for spec in counted(list(layers.values()), what, workspace.progress):
        backbone, layer = spec.key.backbone, spec.key.layer
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
        if readout == LOCATED:
            found = _located(workspace, spec, targets, every)
        else:
            found = _left_out_one_by_one(workspace, spec, targets, every, readout)
        predicted = found.held_out
        judged = targets[workspace.cuts.held_out][:, every]
        each = np.square(predicted - judged).astype(np.float64)
        flat = mean_losses("mse", judged)
        # With folds each unit's setting was chosen on the images that it is judged on.
        tried = 1 if workspace.cuts.n_folds == 1 else len(PENALTIES)
        tested = found.tested
        if tested is not None:
            tested = tested * scaling.scale[every] + scaling.mean[every]
        for region, mine in local.items():
            held_out = targets[workspace.cuts.held_out][None, :, every[mine]]
            relative = workspace.experiment.training.relative
            mean_loss = losses.mean_loss("mse", held_out[0]) if relative else 1.0
            row: dict[str, Any] = {
                "backbone": backbone,
                "layer": layer,
                "layer_index": spec.layer_index,
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
