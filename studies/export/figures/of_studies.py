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
from studies.export.figures.drawn import OF_STUDIES, Drawn
from studies.results.importance import importance
from studies.results.scores import Evaluated
from studies.search.space import varying
from tuner.figures import captions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(
    one: Evaluated,
    loaded: Sequence[Trial],
    drawn: Drawn,
) -> None:
    """Learning curves, hyperparameter importance, slices, and where the units read."""
    makers: dict[str, Callable[[], Figure | str]] = {
        "curves": lambda: _curves(one, loaded, drawn),
        "importance": lambda: _importance(one, loaded, drawn),
        "slices": lambda: _slices(one, loaded, drawn),
        "weights": lambda: _weights(one, drawn),
    }
    for stem in OF_STUDIES:
        if stem not in drawn.wanted:
            continue
        figure = makers[stem]()
        if isinstance(figure, str):
            drawn.skip(f"{one.spec.name}/{stem}", figure)
        else:
            drawn.write(figure, f"{one.spec.name}/{stem}")


def _curves(one: Evaluated, loaded: Sequence[Trial], drawn: Drawn) -> Figure | str:
    from tuner.figures.curves import learning_curves

    if one.spec.closed_form:
        return "fitted in closed form, without steps"
    if not any(trial.curve for trial in loaded):
        return "no trial has reported yet"
    return learning_curves(
        trial_curves(loaded),
        title=one.spec.name,
        about=captions.trials(one.row, drawn.basis),
        **drawn.options(),
    )


def _importance(one: Evaluated, loaded: Sequence[Trial], drawn: Drawn) -> Figure | str:
    from tuner.figures.search import importance as draw

    found = importance(loaded, one.spec.space)
    if not found.shares:
        return found.note.removeprefix("not computed: ").partition(", there")[0]
    return draw(
        found.shares,
        title=one.spec.name,
        note=found.note,
        about=captions.trials(one.row, drawn.basis),
        **drawn.options(),
    )


def _slices(one: Evaluated, loaded: Sequence[Trial], drawn: Drawn) -> Figure | str:
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
        about=captions.trials(one.row, drawn.basis),
        **drawn.options(),
    )


def _weights(one: Evaluated, drawn: Drawn) -> Figure | str:
    """Where each unit reads, with the Gaussian fitted to it."""
    from tuner import readouts
    from tuner.figures.maps import masks

    if one.parameters is None:
        return "no trial is complete"
    profile = readouts.get(one.spec.key.readout).spatial_profile(one.parameters).numpy()
    labels = [str(unit.get("name", unit["unit"])) for unit in one.units]
    masked = "mask" in one.parameters
    return masks(
        profile,
        labels,
        ellipses=_in_cells(profile),
        title=one.spec.name,
        what="masks" if masked else "length of the weights over channels",
        about=captions.fit(one.row, drawn.basis),
        **drawn.options(),
    )


def _in_cells(profile: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Gaussians fitted to the maps, in cells; None where a map is one cell wide."""
    from tuner.synthesis.receptive_fields import fit_gaussians

    rows, columns = (np.arange(cells, dtype=np.float64) for cells in profile.shape[1:])
    if min(len(rows), len(columns)) < 2:
        return None
    fields = fit_gaussians(
        profile.astype(np.float64) ** 2, rows, columns, max(len(rows), len(columns))
    )
    ellipses = fields.ellipses()
    ellipses[:, 2:4] *= 2**0.5  # the square of a Gaussian is narrower by this
    ellipses[~np.isfinite(fields.fit)] = np.nan  # of a map so coarse only moments are known
    return ellipses
