"""The figures of one study: its trials, what decides among them, and where its units read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.dashboard.pictures import trial_curves
from studies.database import trials
from studies.database.trials import Trial
from studies.export.figures.drawn import OF_STUDIES, Drawn, Look
from studies.results.importance import importance
from studies.results.scores import Evaluated
from studies.search.space import varying
from studies.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(
    workspace: Workspace,
    one: Evaluated,
    loaded: Sequence[Trial],
    look: Look,
    drawn: Drawn,
) -> None:
    """Learning curves, hyperparameter importance, slices, and where the units read."""
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
            drawn.write(figure, f"{one.spec.name}/{stem}")


def _curves(one: Evaluated, loaded: Sequence[Trial], look: Look) -> Figure | str:
    from tuner.figures.curves import learning_curves

    if one.spec.closed_form:
        return "fitted in closed form, without steps"
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
    kernel = workspace.normalization(key.backbone, key.layer).kernel
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
