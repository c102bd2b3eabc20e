"""What ``tuner export figures`` writes: the figures of every study, and those that compare studies of a region."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies import trials
from studies.evaluation import Evaluated, evaluate
from studies.grid import Spec
from studies.importance import importance
from studies.names import escape
from studies.opening import Stores
from studies.pictures import trial_curves
from studies.registry import stored_studies
from studies.space import varying
from studies.trials import Trial
from studies.workspace import Workspace
from tuner.errors import InputError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tuner.figures.metrics import Metric
    from tuner.figures.style import ThemeName, WidthName

Progress = Callable[[str, int, int], None]

OF_STUDIES = ("curves", "importance", "slices", "weights")
OF_REGIONS = ("units_by_readout", "units_by_layer", "best_layer_by_region")
FIGURES = (*OF_STUDIES, *OF_REGIONS)
"""What their files are called, without a suffix and the region."""


@dataclass
class Drawn:
    """What was written, and what was not and why.

    Attributes
    ----------
    wanted
        Of :data:`FIGURES`.
    paths
        Files, PNG and SVG.
    skipped
        Reason to the figures that it is the reason for.
    """

    wanted: Collection[str] = FIGURES
    paths: list[Path] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, figure: str, reason: str) -> None:
        """Note a figure that cannot be drawn."""
        self.skipped.setdefault(reason, []).append(figure)

    def notes(self) -> list[str]:
        """A line per reason."""
        out = []
        for reason, figures in self.skipped.items():
            more = f" and {len(figures) - 3} more" if len(figures) > 3 else ""
            out.append(f"not drawn: {', '.join(figures[:3])}{more}: {reason}")
        return out


@dataclass(frozen=True)
class Look:
    """How figures are drawn."""

    theme: ThemeName
    width: WidthName | None
    simulated: bool

    def options(self, *, width: bool = True) -> dict[str, Any]:
        """Arguments of a figure; not all have a width that can be chosen."""
        out: dict[str, Any] = {"theme": self.theme, "simulated": self.simulated}
        return out | {"width": self.width} if width else out


def export_figures(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    only: Collection[str] = (),
    metric: str | None = None,
    theme: ThemeName = "light",
    width: WidthName | None = None,
    progress: Progress | None = None,
) -> Drawn:
    """Write the figures of the selected studies, and of what they can be compared by.

    Parameters
    ----------
    out
        Each study's go to ``OUT/<name>/``, the others to ``OUT``.
    only
        Which of :data:`FIGURES`; none named: all.
    metric
        What is compared; None: test correlation, or validation correlation without test images.
    theme, width
        How they are drawn.

    Raises
    ------
    InputError
        If no selected study has a complete trial, or the metric or a figure does not exist.
    """
    from tuner.figures.metrics import metric_named
    from tuner.figures.panels import choose_metric

    if metric is not None:
        metric_named(metric)  # refused before anything is drawn
    for name in only:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
    drawn = Drawn(tuple(only) or FIGURES)
    look = Look(theme, width, workspace.recording.simulated)
    stored = stored_studies(stores.storage)
    found: list[Evaluated] = []
    for done, one in enumerate(evaluate(workspace, stores, specs), start=1):
        study_id = stored[one.spec.name].study_id
        with stores.storage.read() as connection:
            loaded = trials.load(connection, [study_id])[study_id]
        study_figures(workspace, one, loaded, out, look, drawn)
        found.append(replace(one, parameters=None))  # of many studies they would fill the memory
        if progress is not None:
            progress("drawing studies", done, len(specs))
    rows = [one.row for one in found]
    if all("validation_loss" not in row for row in rows):
        raise InputError("no study has a complete trial yet; run 'tuner optimize --n-trials 50'")
    compare(found, choose_metric(rows, metric), out, look, drawn)
    return drawn


def study_figures(
    workspace: Workspace,
    one: Evaluated,
    loaded: Sequence[Trial],
    out: Path,
    look: Look,
    drawn: Drawn,
) -> None:
    """Learning curves, hyperparameter importance, slices, and where the units read."""
    from tuner.figures.style import save

    makers: dict[str, Callable[[], Figure | str]] = {
        "curves": lambda: _curves(one, loaded, look),
        "importance": lambda: _importance(one, loaded, look),
        "slices": lambda: _slices(one, loaded, look),
        "weights": lambda: _weights(workspace, one, look),
    }
    for stem in OF_STUDIES:
        if stem not in drawn.wanted:
            continue
        figure = makers[stem]()
        if isinstance(figure, str):
            drawn.skip(f"{one.spec.name}/{stem}", figure)
        else:
            drawn.paths += save(figure, out / one.spec.name / stem)


def _curves(one: Evaluated, loaded: Sequence[Trial], look: Look) -> Figure | str:
    from tuner.figures.curves import learning_curves

    if not any(trial.curve for trial in loaded):
        return "no trial has reported yet"
    return learning_curves(trial_curves(loaded), title=one.spec.name, **look.options())


def _importance(one: Evaluated, loaded: Sequence[Trial], look: Look) -> Figure | str:
    from tuner.figures.search import importance as draw

    found = importance(loaded, one.spec.space)
    if not found.shares:
        return found.note.removeprefix("not computed: ").partition(", there")[0]
    return draw(found.shares, title=one.spec.name, note=found.note, **look.options())


def _slices(one: Evaluated, loaded: Sequence[Trial], look: Look) -> Figure | str:
    from tuner.figures.search import slices

    finished = [trial for trial in loaded if trial.state in trials.FINISHED]
    names = varying(one.spec.space)
    if not names:
        return "no hyperparameter varies"
    if not finished:
        return "no trial has finished"
    return slices(
        {name: [trial.params[name] for trial in finished] for name in names},
        [math.nan if trial.value is None else trial.value for trial in finished],
        complete=[trial.state == TrialState.COMPLETE for trial in finished],
        log=varying(one.spec.space, log=True),
        title=one.spec.name,
        **look.options(),
    )


def _weights(workspace: Workspace, one: Evaluated, look: Look) -> Figure | str:
    """Where each unit reads, with the Gaussian fitted to it."""
    from tuner import readouts
    from tuner.figures.maps import masks

    if one.parameters is None:
        return "no trial is complete"
    profile = readouts.get(one.spec.key.readout).spatial_profile(one.parameters).numpy()
    labels = [str(unit.get("name", unit["unit"])) for unit in one.units]
    return masks(
        profile, labels, ellipses=_in_cells(workspace, one), title=one.spec.name, **look.options()
    )


def _in_cells(workspace: Workspace, one: Evaluated) -> NDArray[np.float64] | None:
    """The fitted Gaussians in cells of the map instead of pixels; None where a map is one cell wide."""
    from tuner.synthesis.receptive_fields import cell_centres

    key = one.spec.key
    (info,) = workspace.backbone(key.backbone).describe(
        [key.layer], workspace.experiment.data.image_size
    )
    kernel = workspace.features(key.backbone, key.layer).normalization.kernel
    rows, columns = cell_centres(info, kernel)
    if min(len(rows), len(columns)) < 2:
        return None
    step = columns[1] - columns[0]
    fields = ("rf_x", "rf_y", "rf_sigma_major", "rf_sigma_minor", "rf_angle", "rf_fit")
    x, y, along, across, angle, fit = np.array([[u[f] for f in fields] for u in one.units]).T
    x = np.where(np.isfinite(fit), x, np.nan)  # of a map so coarse only moments are known
    return np.stack(
        [(x - columns[0]) / step, (y - rows[0]) / step, along / step, across / step, angle], axis=1
    )


def compare(
    found: Sequence[Evaluated], metric: Metric, out: Path, look: Look, drawn: Drawn
) -> None:
    """Readouts and layers of each region unit by unit, and the best layers of all regions."""
    from tuner.figures.panels import failed, pending

    usable = [one for one in found if not pending(one.row) and not failed(one.row)]
    for region in dict.fromkeys(one.spec.key.region for one in found):
        mine = sorted((one for one in usable if one.spec.key.region == region), key=_loss)
        for stem, pair, reason in (
            ("units_by_readout", _two_readouts(mine), "needs two readouts that fitted"),
            ("units_by_layer", _two_layers(mine), "needs two layers that one readout fitted"),
        ):
            name = f"{stem}_{escape(region)}"
            if stem not in drawn.wanted:
                continue
            if pair is None:
                drawn.skip(name, reason)
            elif not _defined(pair, metric):
                drawn.skip(name, f"no unit has a {metric.label}")
            else:
                _scatter(region, pair, metric, out / name, look, drawn)
    backbones = dict.fromkeys(one.spec.key.backbone for one in found)
    for backbone in backbones if "best_layer_by_region" in drawn.wanted else ():
        stem = "best_layer_by_region"
        stem += "" if len(backbones) == 1 else f"_{escape(backbone)}"
        every = [one for one in found if one.spec.key.backbone == backbone]
        fitted = [one for one in usable if one.spec.key.backbone == backbone]
        entries = _best_entries(fitted, metric)
        if not entries:
            drawn.skip(stem, f"no fit that did not fail has a {metric.label}")
            continue
        _best_layers(every, entries, metric, out / stem, look, drawn)


def _loss(one: Evaluated) -> float:
    return float(one.row["validation_loss"])


Pair = tuple[Evaluated, Evaluated]


def _two_readouts(mine: Sequence[Evaluated]) -> Pair | None:
    """The best study of a region, and the best one with another readout of the same backbone."""
    for other in mine[1:]:
        key = other.spec.key
        if key.readout != mine[0].spec.key.readout and key.backbone == mine[0].spec.key.backbone:
            return other, mine[0]
    return None


def _two_layers(mine: Sequence[Evaluated]) -> Pair | None:
    """The best study of a region, and the one at the next best layer, with the same backbone and readout."""
    for other in mine[1:]:
        key, best = other.spec.key, mine[0].spec.key
        if (key.backbone, key.readout) == (best.backbone, best.readout):
            return other, mine[0]
    return None


def _scores(one: Evaluated, metric: Metric) -> NDArray[np.float64]:
    return np.array([unit.get(metric.name, math.nan) for unit in one.units], dtype=np.float64)


def _defined(pair: Pair, metric: Metric) -> bool:
    return bool(np.isfinite(_scores(pair[0], metric) + _scores(pair[1], metric)).any())


def _scatter(region: str, pair: Pair, metric: Metric, stem: Path, look: Look, drawn: Drawn) -> None:
    from tuner.figures.scatter import unit_scatter
    from tuner.figures.style import save

    first, second = (one.spec.key for one in pair)
    figure = unit_scatter(
        _scores(pair[0], metric),
        _scores(pair[1], metric),
        names=(f"{first.readout}, {first.layer}", f"{second.readout}, {second.layer}"),
        metric=metric.name,
        title=f"{region} \N{MIDDLE DOT} {first.backbone}",
        **look.options(width=False),
    )
    drawn.paths += save(figure, stem)


def _best_entries(
    usable: Sequence[Evaluated], metric: Metric
) -> list[tuple[Evaluated, dict[str, float]]]:
    """Best study per region and readout, and how often each layer is the best of a bootstrap draw."""
    from tuner.figures.metrics import number
    from tuner.scores import best_choice_probability

    contests: dict[tuple[str, str], list[Evaluated]] = {}
    for one in usable:
        contests.setdefault((one.spec.key.region, one.spec.key.readout), []).append(one)
    out = []
    for mine in contests.values():
        best = min(mine, key=lambda one: (_loss(one), one.spec.layer_index))
        if math.isnan(number(best.row.get(metric.name))):
            continue
        losses: Mapping[str, NDArray[np.float64]] = {
            one.spec.key.layer: one.image_losses for one in mine if one.image_losses is not None
        }
        out.append((best, best_choice_probability(losses) if len(losses) > 1 else {}))
    return out


def _best_layers(
    every: Sequence[Evaluated],
    entries: Sequence[tuple[Evaluated, dict[str, float]]],
    metric: Metric,
    stem: Path,
    look: Look,
    drawn: Drawn,
) -> None:
    from tuner.figures.best_layers import BestLayer, best_layers
    from tuner.figures.metrics import number
    from tuner.figures.style import save

    layers = dict(sorted({one.spec.layer_index: one.spec.key.layer for one in every}.items()))
    figure = best_layers(
        [
            BestLayer(
                best.spec.key.region,
                best.spec.key.readout,
                best.spec.key.layer,
                float(best.row[metric.name]),
                *best.intervals.get(metric.name, (math.nan, math.nan)),
                probabilities=shares,
                ceiling=number(best.row.get("noise_ceiling")),
            )
            for best, shares in entries
        ],
        list(layers.values()),
        metric=metric.name,
        title=f"Best layer of each region \N{MIDDLE DOT} {every[0].spec.key.backbone}",
        **look.options(),
    )
    drawn.paths += save(figure, stem)
