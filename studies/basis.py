"""What the scores of an experiment rest on, for captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studies.config.ranges import CLOSED_FORM
from studies.workspace import Workspace
from tuner.figures.captions import Basis

CLOSED_FORMS = (CLOSED_FORM, "ridge", "fwrf", "ridge (random weights)")
"""Readouts that no search is spent on, those of references too."""


def basis_of(workspace: Workspace) -> Basis:
    """What figures, tables and pages of an experiment say that their numbers are over."""
    recording = workspace.recording
    responses = recording.test_responses
    times = np.zeros(1) if responses is None else np.isfinite(responses).sum(axis=0)
    return Basis(
        n_test=recording.n_test,
        n_repeats=int(times.max(initial=0)),
        always=bool((times == times.max(initial=0)).all()),
        n_held_out=len(workspace.held_out),
        folds=workspace.n_folds,
        min_explainable=workspace.experiment.data.min_explainable,
        weights={table.alias: Path(table.weights).name for table in workspace.experiment.backbone},
        closed_form=CLOSED_FORMS,
    )
