"""What the best trials are worth: predictions of a study's best weights, scored on validation and on test images.

Nothing here chooses anything: which trial is best was decided on validation loss while the search ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.database.artifacts import Tensors
from studies.database.stores import Stores
from studies.database.studies import Stored, require, stored_studies
from studies.database.summaries import Summary, summaries
from studies.fingerprint import refuse
from studies.grid import Spec
from studies.search.best_weights import kept_files
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.encoder import Encoder
    from tuner.features.computed import ComputedFeatures

_CHUNK = 512
_SEED = 0
"""Of the bootstrap: intervals come out the same at every export."""

MEAN_LOSS = 1.0
"""Validation loss of predicting every unit's mean."""


@dataclass(frozen=True)
class Evaluated:
    """A study with its best weights and what they are worth.

    Attributes
    ----------
    row
        One row of ``heatmap.csv``.
    units
        One row of ``units.csv`` per unit.
    parameters
        Best trial's exported parameters, or None before the first complete trial.
    intervals
        Score to the 95 % limits of the region's mean, by bootstrap over the test images.
    image_losses
        ``(n_validation,)`` loss of each validation image, mean over units, by which layers can be compared.
    """

    spec: Spec
    summary: Summary
    row: dict[str, Any]
    units: list[dict[str, Any]]
    parameters: Tensors | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    image_losses: NDArray[np.float64] | None = None


def checked(
    workspace: Workspace, stores: Stores, specs: Sequence[Spec]
) -> list[tuple[Spec, Stored]]:
    """Pair specs with their studies; refuses those that were made with other settings."""
    stored = stored_studies(stores.storage)
    found = require(stored, [spec.name for spec in specs], workspace.experiment.file)
    for spec, study in zip(specs, found, strict=True):
        refuse(workspace.experiment.file, spec.name, study.fingerprint, workspace.fingerprint(spec))
    return list(zip(specs, found, strict=True))


def best_parameters(
    stores: Stores, study: Stored, *, per_unit: bool = False, trial: int | None = None
) -> Tensors:
    """Kept weights of a study's best trial, of a given trial, or of the best of every unit.

    Raises
    ------
    InputError
        If they are not kept.
    """
    with stores.storage.read() as connection:
        files = kept_files(connection, study.study_id)
    key = None if per_unit else trial
    if key not in files:
        kept = ", ".join(str(number) for number in sorted(n for n in files if n is not None))
        raise InputError(
            f"study {study.name}: weights of {'its units' if per_unit else f'trial {trial}'} are not "
            f"kept (kept: {kept or 'none'}); bring it to more trials with 'tuner optimize'"
        )
    return stores.artifacts.read_tensors(files[key])


def predictions(
    readout: str,
    parameters: Tensors,
    features: NDArray[np.float16] | ComputedFeatures,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Scaled predictions ``(len(rows), n_units)`` from features ``(n, C, h, w)``, chunk by chunk."""
    import torch

    from tuner import readouts
    from tuner.readouts.readout import FeatureShape

    _, channels, height, width = features.shape
    shape = FeatureShape(channels, height, width)
    kernel = readouts.get(readout).kernel(shape, torch.device("cpu"))
    restored = kernel.restore(parameters)
    flat = features.reshape(len(features), -1)
    out = []
    for begin in range(0, len(rows), _CHUNK):
        x = torch.from_numpy(np.asarray(flat[rows[begin : begin + _CHUNK]])).float()
        y, _ = kernel.forward(restored, x)
        out.append(y.T.numpy())
    return np.concatenate(out)


def respond(loss: str, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Readout output as a scaled response: itself, or ELU + 1 for counts."""
    if loss == "mse":
        return scaled
    return np.where(scaled > 0, scaled + 1, np.exp(np.minimum(scaled, 0))).astype(np.float32)


def evaluate(
    workspace: Workspace, stores: Stores, specs: Sequence[Spec], *, draws: int = 1000
) -> Iterator[Evaluated]:
    """Score the best trial of every study, in the order given.

    Parameters
    ----------
    draws
        Bootstrap samples behind the intervals.
    """
    pairs = checked(workspace, stores, specs)
    items = summaries(stores.storage, [study for _, study in pairs])
    for (spec, study), item in zip(pairs, items, strict=True):
        parameters = None
        if item.best is not None:
            parameters = best_parameters(stores, study, trial=item.best.number)
        yield _evaluate_one(workspace, spec, item, parameters, draws)


def _evaluate_one(
    workspace: Workspace, spec: Spec, item: Summary, parameters: Tensors | None, draws: int
) -> Evaluated:
    key = spec.key
    combination = {
        "backbone": key.backbone,
        "layer": key.layer,
        "layer_index": spec.layer_index,
        "region": key.region,
        "readout": key.readout,
    }
    row: dict[str, Any] = combination | {"n_units": len(spec.units), "n_trials": item.finished}
    units = [
        {"study": spec.name} | combination | {"unit": int(unit)} | unit_columns(workspace, unit)
        for unit in spec.units
    ]
    if item.best is None or parameters is None:
        return Evaluated(spec, item, row, units, None)
    from tuner.scores import METRICS, mean_correlation, summarise

    value = float(item.best.value or 0.0)
    row |= {"validation_loss": value, "fit_failed": not value < MEAN_LOSS}
    validation, image_losses = _validation(workspace, spec, parameters)
    measured = workspace.targets.validation[None, :, spec.units]
    row["validation_correlation"] = mean_correlation(validation["validation_correlation"], measured)
    scores: dict[str, NDArray[Any]] = dict(validation)
    intervals: dict[str, tuple[float, float]] = {}
    if workspace.recording.test_responses is not None:
        tested, intervals = _test(workspace, spec, parameters, draws)
        scores |= tested
        means = summarise(tested)
        row |= {
            name: means[name]
            for name in METRICS
            if name in ("test_correlation", "test_correlation_normalized", "feve", "noise_ceiling")
        }
        row["n_units_with_ceiling"] = means["n_units_with_ceiling"]
    scores |= _receptive_fields(workspace, spec, parameters)
    for i, unit in enumerate(units):
        unit |= {name: values[i] for name, values in scores.items()}
    return Evaluated(spec, item, row, units, parameters, intervals, image_losses)


def unit_columns(workspace: Workspace, unit: int) -> dict[str, Any]:
    """A unit's columns in the recording; one that is called like a score keeps its values under ``recorded_``."""
    reserved = {"reliability", "noise_ceiling", "unit", "study", "region", "backbone", "layer"}
    return {
        (f"recorded_{name}" if name in reserved else name): values[unit]
        for name, values in workspace.recording.units.items()
    }


def _validation(
    workspace: Workspace, spec: Spec, parameters: Tensors
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Scores per unit, and losses per image."""
    from tuner.fitting import losses
    from tuner.scores import pearson
    from tuner.scores.moments import nan_mean

    features = workspace.features(spec.key.backbone, spec.key.layer)
    loss = workspace.experiment.training.loss
    rows = workspace.split.validation
    raw = predictions(spec.key.readout, parameters, features.train, rows)
    target = workspace.targets.validation[:, spec.units]
    import torch

    each = losses.value(loss, torch.from_numpy(raw), torch.from_numpy(target)).double().numpy()
    scores = {
        "validation_loss": np.nanmean(each, axis=0),
        "validation_correlation": pearson(respond(loss, raw), target[None]),
    }
    return scores, nan_mean(np.where(np.isfinite(each), each, np.nan), axis=1)


def _test(
    workspace: Workspace, spec: Spec, parameters: Tensors, draws: int
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[float, float]]]:
    """Scores per unit, and the limits of the region's means."""
    from tuner.scores import bootstrap_scores, counted_units, region_intervals, score_units

    features = workspace.features(spec.key.backbone, spec.key.layer)
    assert features.test is not None
    assert workspace.recording.test_responses is not None
    raw = predictions(spec.key.readout, parameters, features.test, np.arange(len(features.test)))
    scaled = respond(workspace.experiment.training.loss, raw)
    scaling = workspace.scaling
    predicted = scaled * scaling.scale[spec.units] + scaling.mean[spec.units]
    measured = workspace.recording.test_responses[:, :, spec.units]
    scores = score_units(predicted, measured, draws=draws, seed=_SEED)
    counted = counted_units(scores)
    if not draws or not counted.any():
        return scores, {}
    samples = bootstrap_scores(predicted, measured, draws=draws, seed=_SEED)
    return scores, region_intervals(samples, counted)


def _receptive_fields(
    workspace: Workspace, spec: Spec, parameters: Tensors
) -> dict[str, NDArray[Any]]:
    """Where each unit reads, in pixels and degrees, from its weights."""
    from tuner.synthesis.receptive_fields import from_readout

    model = encoder(workspace, spec, parameters, trial=None, value=None)
    columns = from_readout(model).columns(workspace.experiment.data.pixels_per_degree)
    return {name: np.asarray(values) for name, values in columns.items()}


def encoder(
    workspace: Workspace,
    spec: Spec,
    parameters: Mapping[str, Any],
    *,
    trial: int | None,
    value: float | None,
) -> Encoder:
    """The image-computable model of a study with these weights."""
    import torch

    from tuner.encoder import Encoder

    settings = workspace.settings(spec.key.backbone)
    experiment = workspace.experiment
    features = workspace.features(spec.key.backbone, spec.key.layer)
    own = {name: t for name, t in parameters.items() if name not in ("unit_loss", "trial")}
    units: dict[str, NDArray[Any]] = {
        name: values[spec.units] for name, values in workspace.recording.units.items()
    }
    return Encoder(
        backbone=workspace.backbone(spec.key.backbone),
        layer=spec.key.layer,
        normalization=features.normalization,
        readout=spec.key.readout,
        parameters=own,
        response_mean=torch.from_numpy(workspace.scaling.mean[spec.units]),
        response_scale=torch.from_numpy(workspace.scaling.scale[spec.units]),
        loss=experiment.training.loss,
        image_size=experiment.data.image_size,
        units=units,
        unit_indices=spec.units,
        weights=settings.weights,
        weights_seed=experiment.search.seed,
        meta={
            "study": spec.name,
            "trial": "best of every unit" if trial is None else trial,
            "validation_loss": value,
            "simulated": workspace.recording.simulated,
            "recording": workspace.recording.label,
            "pixels_per_degree": experiment.data.pixels_per_degree,
        },
    ).to(workspace.device)
