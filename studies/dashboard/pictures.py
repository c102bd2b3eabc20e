"""Pictures of each study's best trial for the dashboard: how it came about, and where its units read.

How it came about is its learning curve among the others', or, of a closed form, the loss at every point of its grid.

They are made when a study has all its trials, never during a round, and made anew when more trials came. The files are
written first and change hands in one transaction, as kept weights do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from studies.basis import basis_of
from studies.config.ranges import CLOSED_FORM, logarithmic, varied
from studies.database import trials
from studies.database.artifacts import Tensors
from studies.database.connection import Storage
from studies.database.pictures import attach, drawn
from studies.database.stores import Stores
from studies.database.studies import Stored
from studies.database.summaries import ENOUGH, Summary, summaries
from studies.database.tokens import Fenced
from studies.database.trials import Trial
from studies.database.weights import kept_files
from studies.grid import Spec
from studies.workspace import Workspace
from tuner.errors import InputError
from tuner.figures import captions
from tuner.figures.metrics import METRICS
from tuner.figures.panels import NOT_SURE
from tuner.progress import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tuner.figures.trials import TrialCurve

CURVE = "learning-curve.png"
GRID = "grid.png"
MAP = {"full": "weight-map.png", CLOSED_FORM: "weight-map.png"}
OTHER_MAP = "mask.png"
DPI = 110


def trial_curves(loaded: Sequence[Trial]) -> list[TrialCurve]:
    """Trials as figures show them; one that took no steps has its value at step 0."""
    from tuner.figures.trials import TrialCurve

    return [
        TrialCurve(
            trial.number,
            list(curve),
            list(curve.values()),
            trials.WORDS[trial.state],
        )
        for trial in loaded
        for curve in [trial.curve or ({} if trial.value is None else {0: trial.value})]
    ]


def outdated(storage: Storage, studies: Sequence[Stored]) -> list[Summary]:
    """Studies with a best trial that has no pictures, or pictures from before its last trials."""
    made = drawn(storage, CURVE) | drawn(storage, MAP[CLOSED_FORM])
    return [
        summary
        for summary in summaries(storage, studies)
        if summary.best is not None
        and made.get(summary.study.study_id) != (summary.best.number, summary.finished)
    ]


def make_pictures(
    workspace: Workspace, stores: Stores, specs: Sequence[Spec], stored: Mapping[str, Stored]
) -> int:
    """Make the pictures of studies that are missing or out of date; one that somebody works on is left to them.

    Returns
    -------
    int
        Studies whose pictures are new.
    """
    by_name = {spec.name: spec for spec in specs}
    wanted = outdated(stores.storage, [stored[name] for name in by_name])
    count = 0
    for summary in counted(wanted, "pictures for the dashboard", workspace.progress):
        with stores.claims.claim(summary.study.claim) as mine:
            if mine:
                count += _make(workspace, stores, by_name[summary.study.name], summary)
    return count


def _make(workspace: Workspace, stores: Stores, spec: Spec, summary: Summary) -> bool:
    study, best = summary.study, summary.best
    assert best is not None
    loaded = trials.load(stores.storage, [study.study_id])[study.study_id]
    kept = kept_files(stores.storage, study.study_id)
    file = kept.get(None if spec.closed_form else best.number)
    try:
        tensors = None if file is None else file.read(stores.artifacts)
    except InputError:
        # Its kept weights are lost; 'tuner doctor' says so, and the search itself goes on.
        return False
    from tuner.figures import style

    scores: Mapping[str, Any] = {}
    if tensors is not None and workspace.scorer is not None and summary.loss is not None:
        scores = workspace.scorer(workspace, spec, tensors, summary.loss, summary.finished)
    figures = _draw(workspace, spec, loaded, tensors)
    files = {name: style.render(figure, "png", dpi=DPI) for name, figure in figures.items()}
    try:
        note = study_note(workspace, spec, summary, scores)
        attach(stores.storage, stores.artifacts, study, best, summary.finished, files, note, scores)
    except Fenced:
        # Deleted or made anew since it was looked at: a picture is nothing that anybody waits for.
        return False
    return True


def study_note(
    workspace: Workspace, spec: Spec, summary: Summary, scores: Mapping[str, Any]
) -> str:
    """What the dashboard says of a study: its loss and scores, what they are over, and where the rest is."""
    best = summary.best
    assert best is not None
    basis, row = basis_of(workspace), spec.columns | {"n_trials": summary.finished}
    simulated = "*Simulated recording.* " if workspace.recording.simulated else ""
    which = "every unit at its own setting" if spec.closed_form else f"trial {best.number}"
    row |= {"n_units": len(spec.units), **scores}
    said = ""
    if "test_correlation" in scores:
        metric = METRICS["test_correlation"]
        over = captions.joined(
            captions.of_units([row], metric, basis), captions.on_test_images(basis)
        )
        said = f"**Test correlation {scores['test_correlation']:.3g}** ({over}).\n\n"
    if scores.get("fit_failed"):
        said = f"**This fit is {NOT_SURE}**, on the held-out images and corrected for the number of trials.\n\n{said}"
    return (
        f"{simulated}**Validation loss {summary.loss:.4g}** ({which}). 1 predicts every unit's mean.\n\n"
        f"{captions.joined(f'{len(spec.units)} units', captions.trials(row, basis), captions.of_readouts([row], basis))}\n\n"
        f"{said}{_importance_is_early(summary, spec)}All scores, and those of single units, are in the report, "
        f"`tuner export report -o results`: "
        f"`results/report.html#{spec.name}`. The best trial's pictures and weights are its artifacts."
    )


def _importance_is_early(summary: Summary, spec: Spec) -> str:
    """What the dashboard does not say of the importances that it draws from any number of trials."""
    complete = summary.counts.get(TrialState.COMPLETE, 0)
    if spec.closed_form or complete >= ENOUGH:
        return ""
    return (
        f"*{complete} trial{'s' * (complete != 1)} ran to the end: hyperparameter importance, as drawn on this page, says "
        f"nothing below {ENOUGH}.*\n\n"
    )


def _draw(
    workspace: Workspace, spec: Spec, loaded: Sequence[Trial], tensors: Tensors | None
) -> dict[str, Figure]:
    from tuner import readouts
    from tuner.figures.maps import masks

    readout, simulated = spec.key.readout, workspace.recording.simulated
    basis, row = basis_of(workspace), spec.columns | {"n_trials": len(loaded)}
    course = _course(spec, loaded, simulated, captions.trials(row, basis))
    if tensors is None:
        return course
    tensors.pop("unit_loss", None)
    profile = readouts.get(readout).spatial_profile(tensors)
    names = workspace.recording.units.get("name")
    labels = [str(u if names is None else names[u]) for u in spec.units]
    where = masks(
        profile.numpy(),
        labels,
        title=spec.name,
        about=captions.fit(row, basis),
        simulated=simulated,
    )
    return course | {MAP.get(readout, OTHER_MAP): where}


def _course(spec: Spec, loaded: Sequence[Trial], simulated: bool, about: str) -> dict[str, Figure]:
    """How the best trial came about."""
    from tuner.figures.curves import learning_curves
    from tuner.figures.search import slices

    if not spec.closed_form:
        curves = trial_curves(loaded)
        return {CURVE: learning_curves(curves, title=spec.name, about=about, simulated=simulated)}
    names = [name for name, setting in spec.space.items() if varied(setting)]
    if not names:
        return {}
    settings = {name: [trial.params[name] for trial in loaded] for name in names}
    losses = [math.nan if trial.value is None else trial.value for trial in loaded]
    log = [name for name in names if logarithmic(name, spec.space[name])]
    return {
        GRID: slices(settings, losses, log=log, title=spec.name, about=about, simulated=simulated)
    }
