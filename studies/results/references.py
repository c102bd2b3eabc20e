"""Closed forms beside the studies: what no search at all would reach on the same layer, region and cut.

Ridge, ridge under a Gaussian mask a unit, what searches start in, and ridge if the network had learned nothing: the same
layer with random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies.config.networks import BASELINES
from studies.database.artifacts import Tensors
from studies.grid import Spec
from studies.names import Place, StudyKey
from studies.results.judged import fit_failed, mean_losses, units_failed
from studies.results.on_test_images import on_test_images
from studies.results.predictions import predictions
from studies.results.scores import unit_rows
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

_FLAT = 1e-12
"""Least loss of predicting the mean that a unit's loss is divided by."""


REFERENCES: Mapping[str, str] = {
    "ridge": RIDGE,
    "fwrf": FWRF,
    "located": LOCATED,
    "random": RANDOM,
}
"""Each option of ``tuner export heatmap`` and ``report``, and how the readout is called that it draws beside the studies."""


@dataclass(frozen=True)
class Reference:
    """A closed form beside the studies, and what it is worth: scored as they are, on the same images.

    Attributes
    ----------
    key
        Its place among the studies: its readout is called like none of theirs.
    row
        Of ``references.csv``, a row like those of ``heatmap.csv``.
    units
        Of ``reference_units.csv``, a row like those of ``units.csv`` for every unit.
    parts
        As of :class:`studies.results.scores.Evaluated`.
    """

    key: StudyKey
    row: dict[str, Any]
    units: list[dict[str, Any]]
    parts: NDArray[np.float64] | None


def of_tables(workspace: Workspace, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of references as tables have them: without ``validation_loss`` where that of studies is not squared error.

    The same column would hold two losses. Which layer of a reference is the best is still told by its own.
    """
    if workspace.experiment.training.loss == "mse":
        return list(rows)
    return [{**row, "validation_loss": None} for row in rows]


def named(workspace: Workspace, specs: Sequence[Spec], names: Sequence[str]) -> list[Reference]:
    """Fit the closed forms of several of :data:`REFERENCES`, one after the other; see :func:`references`.

    The same draw of random weights is fitted once: where a network of random weights is a backbone of the experiment, and
    ``ridge`` is asked for too, that is its control and that of the trained one, and its ``note`` says so.
    """
    alone, twice = _drawn_once(workspace, specs, ridge="ridge" in names)
    found = [
        reference
        for name in names
        for reference in references(
            workspace, alone if name == "random" else specs, REFERENCES[name]
        )
    ]
    if "random" in names:
        for reference in found:
            of = twice.get(reference.key.place, ()) if reference.key.readout == RIDGE else ()
            if of:
                reference.row["note"] = f"also {', '.join(of)} with random weights: the same draw"
    return found


def _drawn_once(
    workspace: Workspace, specs: Sequence[Spec], *, ridge: bool
) -> tuple[list[Spec], dict[Place, tuple[str, ...]]]:
    """Of which studies ridge on random weights is fitted, and which ridge is also that of whom on random weights.

    Of several draws that are shown as one network none is the control of another.
    """

    def draw(spec: Spec) -> tuple[str, int, str, str]:
        table = workspace.networks.settings(spec.key.backbone)
        named = table.model_dump(exclude={"alias", "layers", "weights", "seeds"})
        return repr(sorted(named.items())), table.draw, spec.key.layer, spec.key.region

    random: list[Spec] = []
    learned: list[Spec] = []
    for spec in specs:
        table = workspace.networks.settings(spec.key.backbone)
        (random if table.weights == "random" else learned).append(spec)
    if not ridge:
        controls = {draw(spec) for spec in learned}
        return [*learned, *(spec for spec in random if draw(spec) not in controls)], {}
    own = {
        draw(spec): spec.key.place
        for spec in random
        if not workspace.networks.settings(spec.key.backbone).draws_of
    }
    twice: dict[Place, tuple[str, ...]] = {}
    for spec in learned:
        place = own.get(draw(spec))
        if place is not None:
            names = dict.fromkeys((*twice.get(place, ()), spec.key.backbone))
            twice[place] = tuple(names)
    return [spec for spec in learned if draw(spec) not in own], twice


def references(workspace: Workspace, specs: Sequence[Spec], readout: str) -> list[Reference]:
    """Fit a closed form for every backbone, layer and region of the studies.

    ``validation_loss`` is squared error over variance whatever the studies' loss is; see :func:`of_tables`.

    Parameters
    ----------
    readout
        Which: :data:`RIDGE`, its strength chosen per unit by leave-one-out among the fit images, the smooth readout
        without its prior; :data:`FWRF`, with a Gaussian mask for each unit besides, the factorized readout without a
        search; :data:`LOCATED`, what columns start in (:mod:`tuner.closed_form.located`; test images are predicted by the
        mean of the folds' fits): what is above it, a search has added; :data:`RANDOM`, ridge on the same layers of the same
        networks with random weights, seeded by ``search.seed``. Pixels and Gabor filters have no weights, and no such
        reference.
    """
    if readout == RANDOM:
        specs = [
            s for s in specs if workspace.networks.settings(s.key.backbone).name not in BASELINES
        ]
        layers: dict[str, dict[str, None]] = {}
        for spec in specs:
            layers.setdefault(spec.key.backbone, {})[spec.key.layer] = None
        workspace = workspace.untrained({alias: list(names) for alias, names in layers.items()})
    return list(_fitted(workspace, specs, readout))


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

    features = workspace.features.of(spec.key.backbone, spec.key.layer)
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

    features, cuts = workspace.features.of(spec.key.backbone, spec.key.layer), workspace.cuts
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


def _fitted(workspace: Workspace, specs: Sequence[Spec], readout: str) -> Iterator[Reference]:
    from tuner.fitting.losses import response_scaling

    layers: dict[tuple[str, str], Spec] = {}
    for spec in specs:
        layers.setdefault((spec.key.backbone, spec.key.layer), spec)
    wanted = {(s.key.backbone, s.key.layer, s.key.region) for s in specs}
    responses = workspace.recording.train_responses
    scaling = response_scaling("mse", responses[workspace.cuts.fitted])
    targets = scaling.apply(responses)
    for spec in counted(list(layers.values()), f"references: {readout}", workspace.progress):
        backbone, layer = spec.key.backbone, spec.key.layer
        # Starts are of all regions, wanted or not; predicted together, they do not depend on what else is.
        regions = {
            region: units
            for region, units in workspace.regions.items()
            if readout == LOCATED or (backbone, layer, region) in wanted
        }
        every = np.concatenate(list(regions.values()))
        if readout == LOCATED:
            found = _located(workspace, spec, targets, every)
        else:
            found = _left_out_one_by_one(workspace, spec, targets, every, readout)
        tested = found.tested
        if tested is not None:
            tested = tested * scaling.scale[every] + scaling.mean[every]
        first = 0
        for region, units in regions.items():
            mine = slice(first, first + len(units))
            first += len(units)
            if (backbone, layer, region) not in wanted:
                continue
            key = StudyKey(backbone, layer, region, readout)
            yield _scored(
                workspace,
                Spec(key, spec.layer_index, units, spec.shape, {}),
                found.held_out[:, mine],
                targets[workspace.cuts.held_out][:, units],
                None if tested is None else tested[:, mine],
            )


def _scored(
    workspace: Workspace,
    spec: Spec,
    predicted: NDArray[np.float32],
    judged: NDArray[np.float32],
    tested: NDArray[np.float32] | None,
) -> Reference:
    """Score a region's predictions as those of a study are.

    Parameters
    ----------
    spec
        Stands for the reference where a study would stand.
    predicted, judged
        ``(n_held_out, n_units)`` of the images that fits are judged on, and their scaled responses.
    tested
        ``(n_test, n_units)`` of the test images, in the recording's units.
    """
    from tuner.closed_form.smooth import PENALTIES
    from tuner.fitting import losses
    from tuner.scores import mean_correlation, pearson
    from tuner.scores.moments import nan_mean

    each = np.square(predicted - judged).astype(np.float64)
    flat = mean_losses("mse", judged)
    relative = workspace.experiment.training.relative
    value = float(np.nanmean(each, axis=0).mean())
    own = nan_mean(each)
    if relative:
        value /= losses.mean_loss("mse", judged)
        mean = nan_mean(np.where(np.isnan(each), np.nan, flat))
        own = own / np.where(mean > _FLAT, mean, 1.0)
    # With folds each unit's setting was chosen on the images that it is judged on.
    tried = 1 if workspace.cuts.n_folds == 1 else len(PENALTIES)
    correlation = pearson(predicted, judged[None])
    row: dict[str, Any] = spec.columns | {
        "n_units": len(spec.units),
        "validation_loss": value,
        "validation_correlation": mean_correlation(correlation, judged[None]),
        "fit_failed": fit_failed(workspace, value, each, flat, trials=tried),
    }
    scores: dict[str, NDArray[Any]] = {
        "validation_loss": own,
        "validation_correlation": correlation,
        "fit_failed": units_failed(workspace, each, flat, trials=tried),
    }
    parts = None
    if workspace.recording.test_responses is not None and tested is not None:
        of_test = on_test_images(workspace, spec.units, tested)
        row |= of_test.columns(workspace)
        scores |= of_test.units
        parts = of_test.parts
    return Reference(spec.key, row, unit_rows(workspace, spec, scores), parts)
