"""What the scores of an experiment rest on, for captions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from studies.config.experiment import Experiment
from studies.config.networks import BASELINES, draws
from studies.config.ranges import CLOSED_FORM
from studies.workspace import Workspace
from tuner.figures.captions import Basis
from tuner.figures.draws import label

CLOSED_FORMS = (CLOSED_FORM, "ridge", "fwrf", "located", "ridge (random weights)")
"""Readouts that no search is spent on, those of references too."""


def basis_of(workspace: Workspace) -> Basis:
    """What figures, tables and pages of an experiment say that their numbers are over."""
    recording = workspace.recording
    responses = recording.test_responses
    groups = None if responses is None else workspace.scoring["groups"]
    times = np.zeros(1) if responses is None else np.isfinite(responses).sum(axis=0)
    return Basis(
        n_test=recording.n_test,
        n_test_groups=None if groups is None else int(np.unique(groups).size),
        n_repeats=int(times.max(initial=0)),
        always=bool((times == times.max(initial=0)).all()),
        n_held_out=len(workspace.cuts.held_out),
        folds=workspace.cuts.n_folds,
        min_explainable=workspace.experiment.data.min_explainable,
        weights=_weights(workspace.experiment),
        closed_form=CLOSED_FORMS,
        started=_started(workspace),
        loss=workspace.experiment.training.loss,
    )


def _started(workspace: Workspace) -> frozenset[tuple[str, str, str]]:
    """Backbone, layer and readout of the searches that start in a closed form, draws of a network under both names."""
    together = _together(workspace.experiment)
    found = set()
    for spec in workspace.grid:
        if not spec.closed_form and workspace.start(spec) == "closed_form":
            key = spec.key
            found.add((key.backbone, key.layer, key.readout))
            if key.backbone in together:
                found.add((together[key.backbone], key.layer, key.readout))
    return frozenset(found)


def _together(experiment: Experiment) -> dict[str, str]:
    """Alias of a draw to what the draws of its network are called together."""
    shared = draws(experiment.backbone)
    counts = Counter(shared.values())
    return {alias: label(name, counts[name]) for alias, name in shared.items()}


def _weights(experiment: Experiment) -> dict[str, str]:
    """Network to the word for its weights, the draws of one together too."""
    words = {}
    for table in experiment.backbone:
        word = Path(table.weights).name
        if table.name in BASELINES:
            word = "no"
        elif word == "imagenet" and ("/" in table.name or ":" in table.name):
            word = "published"  # on whatever they were trained
        words[table.alias] = word
    return words | dict.fromkeys(_together(experiment).values(), "random")
