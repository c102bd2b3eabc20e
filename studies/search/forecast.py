"""What a search would take: studies, memory and disk from sizes, time from a short calibration; nothing is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.grid import Spec, cohorts
from studies.search.calibrate import (
    ZERO,
    Budget,
    Span,
    Timed,
    column_seconds,
    image_seconds,
)
from studies.search.closed_form import problem
from studies.search.create import plans
from studies.search.extraction import sweeps
from studies.search.rungs import ReportGrid
from studies.search.start import starts_elsewhere
from studies.workspace import Workspace

SURVIVING = Span(0.5, 0.65, 0.85)
"""Share of a round's column-steps that the median rule leaves: half the trials stop, from 30 % of the reports on."""

SURVIVING_RUNGS = Span(0.29, 0.47, 0.66)
"""The same of the rule at rungs: measured in 30 searches of 50 trials, the least, the mean and the most."""

OVERHEAD_SECONDS = 0.05
"""Sampler and database per study and round."""

START_UNKNOWN = 0.7
"""Natural logarithm of how far a closed form to start in may be off: its units' fields are not known before."""


@dataclass(frozen=True)
class CohortPlan:
    """What one cohort takes, as far as its sizes say.

    Attributes
    ----------
    memory
        Bytes while it trains, features in memory included.
    rounds
        How many there are, the last one as the part of a round that it is.
    """

    backbone: str
    layer: str
    readout: str
    studies: int
    features: int
    columns: int
    rounds_at_once: int
    compiled: bool
    tier: str
    memory: int
    cache: int
    kept: int
    rounds: float


@dataclass(frozen=True)
class Times:
    """How long a search takes.

    Attributes
    ----------
    rounds
        Of each cohort, one round: what a kill costs at most.
    searches
        Of each cohort, all its rounds.
    extraction
        Of the features that are not in the cache yet.
    """

    rounds: list[Span]
    searches: list[Span]
    extraction: Span

    @property
    def search(self) -> Span:
        """Of all cohorts."""
        return sum(self.searches, ZERO)


def plan(workspace: Workspace, specs: Sequence[Spec], n_trials: int) -> list[CohortPlan]:
    """Plan of every cohort of the selected studies; nothing is measured."""
    how = plans(workspace, specs)
    return [
        (_closed_form if members[0].closed_form else _cohort)(
            workspace, members, how[members[0].name], n_trials
        )
        for members in cohorts(specs).values()
    ]


def times(
    workspace: Workspace, specs: Sequence[Spec], planned: Sequence[CohortPlan], seconds: float
) -> Times:
    """How long the plan takes, from measurements of at most so many seconds (and what one measurement takes)."""
    budget = Budget(seconds)
    members = list(cohorts(specs).values())
    images = _Images(workspace, specs, budget)
    fitted = [k for k in range(len(planned)) if not members[k][0].closed_form]
    wanted = [
        Timed(members[k], planned[k].compiled, planned[k].columns // planned[k].rounds_at_once)
        for k in fitted
    ]
    trials = column_seconds(workspace, wanted, budget)
    column = {k: trials[place] for place, k in enumerate(fitted)}
    rounds, searches = [], []
    started: set[tuple[str, str]] = set()
    for k, cohort in enumerate(planned):
        overhead = OVERHEAD_SECONDS * cohort.studies
        seen = _images_seen(workspace, members[k], cohort)
        if k in column:
            whole = _pruned(workspace, column[k] * cohort.columns)
            if cohort.tier == "recompute":
                whole += images.of(cohort.backbone, [cohort.layer]) * seen
            once = whole * (1 / cohort.rounds_at_once)
        else:
            whole = _fit_seconds(workspace, members[k])
            if cohort.tier == "recompute":
                whole += images.of(cohort.backbone, [cohort.layer]) * seen
            once = whole
        rounds.append(once + Span(overhead, overhead, overhead))
        rests = overhead * float(np.ceil(cohort.rounds))
        search = whole * cohort.rounds + Span(rests, rests, rests)
        # Both readouts of a layer start in one closed form.
        if k in column and (cohort.backbone, cohort.layer) not in started:
            first = _start_seconds(workspace, members[k][0])
            if first.value:
                started.add((cohort.backbone, cohort.layer))
            search += first
        searches.append(search)
    return Times(rounds, searches, _extraction(workspace, specs, images))


def _pruned(workspace: Workspace, whole: Span) -> Span:
    search = workspace.experiment.search
    if search.pruner != "median":
        return whole
    share = SURVIVING if search.rungs == "reports" else SURVIVING_RUNGS
    return Span(whole.low * share.low, whole.value * share.value, whole.high * share.high)


class _Images:
    """Seconds of an image through each backbone, timed once to its deepest layer; the rest by multiply-adds."""

    def __init__(self, workspace: Workspace, specs: Sequence[Spec], budget: Budget) -> None:
        self._workspace, self._budget = workspace, budget
        self._layers = {
            alias: list(dict.fromkeys(s.key.layer for s in specs if s.key.backbone == alias))
            for alias in dict.fromkeys(s.key.backbone for s in specs)
        }
        self._timed: dict[str, Span] = {}

    def of(self, alias: str, layers: Sequence[str]) -> Span:
        """Seconds of one image up to some layers."""
        every = self._layers[alias]
        if alias not in self._timed:
            self._workspace.progress(f"calibrating {alias}", 0, 1)
            self._timed[alias] = image_seconds(self._workspace, alias, every, self._budget)
            self._workspace.progress(f"calibrating {alias}", 1, 1)
        macs = {info.name: info.macs for info in self._workspace.networks.layers(alias)}
        whole = max(macs[layer] for layer in every)
        # pixels take no multiply-adds
        share = max(macs[layer] for layer in layers) / whole if whole else 1.0
        return self._timed[alias] * share if share < 1 else self._timed[alias]


def _images_seen(workspace: Workspace, members: Sequence[Spec], cohort: CohortPlan) -> float:
    """Images that the backbone runs on in a round of a layer that the cache cannot hold."""
    if cohort.tier != "recompute":
        return 0.0
    if members[0].closed_form:
        sizes = problem(workspace, members)
        # Features are read a piece of channels at a time, so each piece computes every image anew.
        pieces = sizes.pieces(sizes.plan(plans(workspace, members)[members[0].name]["memory"]))
        return float((pieces + 1) * (sizes.images + sizes.others))
    training = workspace.experiment.training
    reports = len(ReportGrid.of(workspace.experiment).steps)
    seen = training.batch_size * training.steps + len(workspace.cuts.held_out) * reports
    return float(cohort.rounds_at_once * seen)


def _fit_seconds(workspace: Workspace, members: Sequence[Spec]) -> Span:
    from tuner.closed_form.cost import fit_seconds

    sizes = problem(workspace, members)
    memory = plans(workspace, members)[members[0].name]["memory"]
    value = fit_seconds(
        sizes, sizes.plan(memory), workspace.algebra_device, folds=workspace.cuts.n_folds
    )
    return Span(value, value, value).widened(0.4)


def _start_seconds(workspace: Workspace, spec: Spec) -> Span:
    """Of the closed form that columns of a layer start in."""
    from tuner.closed_form.cost import located_seconds

    if not starts_elsewhere(workspace, spec):
        return ZERO
    value = located_seconds(
        len(workspace.cuts.fitted),
        spec.shape,
        sum(map(len, workspace.regions.values())),
        workspace.cuts.n_folds,
        workspace.algebra_device,
    )
    return Span(value, value, value).widened(START_UNKNOWN)


def _extraction(workspace: Workspace, specs: Sequence[Spec], images: _Images) -> Span:
    """Time to extract what is not yet in the cache, and what of it is computed a second time.

    Of a layer that the cache cannot hold, only the statistics are taken.
    """
    total = ZERO
    recording = workspace.recording
    for sweep in sweeps(workspace, specs):
        if sweep.waits is None:
            total += images.of(sweep.backbone, sweep.layers) * recording.n_train
        else:
            passes = recording.n_train * (1 + sweep.waits.again) + recording.n_test
            total += images.of(sweep.backbone, sweep.layers) * passes
    return total


def _cohort(
    workspace: Workspace, members: Sequence[Spec], how: dict[str, Any], n_trials: int
) -> CohortPlan:
    from tuner import readouts
    from tuner.fitting.plan import column_bytes, fixed_bytes, grouping

    experiment = workspace.experiment
    size, training = experiment.search.parallel_trials, experiment.training
    spec = members[0]
    readout = readouts.get(spec.key.readout)
    held = workspace.features.held_bytes(spec.shape, how["memory"])
    groups = grouping(
        [s.units for s in members],
        size,
        readout=readout,
        shape=spec.shape,
        batch_size=training.batch_size,
        steps=training.steps,
        device=workspace.device,
        memory=how["memory"] - held,
        compiled=how["compiled"],
        folds=workspace.cuts.n_folds,
        judged=workspace.cuts.judged,
    )
    kernel = readout.kernel(spec.shape, workspace.device, compiled=how["compiled"])
    per_column = column_bytes(kernel, training.batch_size, workspace.cuts.judged)
    folds = workspace.cuts.n_folds
    most = max(sum(len(block.units) for block in turn) for group in groups for turn in group.turns)
    largest = most * size * folds
    target = max(s.target(n_trials) for s in members)
    columns = sum(len(s.units) for s in members) * size * folds
    tier = workspace.features.tier(spec.shape, how["memory"])
    return CohortPlan(
        backbone=spec.key.backbone,
        layer=spec.key.layer,
        readout=spec.key.readout,
        studies=len(members),
        features=spec.shape.size,
        columns=columns,
        rounds_at_once=len(groups),
        compiled=how["compiled"],
        tier=tier,
        memory=largest * per_column
        + fixed_bytes(spec.shape, training.batch_size, workspace.device)
        + held,
        cache=0 if tier == "recompute" else workspace.features.cached_bytes(spec.shape),
        kept=(experiment.search.keep + 1) * _weights_bytes(workspace, members),
        rounds=target / size,
    )


def _closed_form(
    workspace: Workspace, members: Sequence[Spec], how: dict[str, Any], n_trials: int
) -> CohortPlan:
    """One fit of all studies, under all settings."""
    from tuner.closed_form.cost import fit_bytes

    spec, sizes = members[0], problem(workspace, members)
    arithmetic = sizes.plan(how["memory"])
    tier = workspace.features.tier(spec.shape, how["memory"])
    return CohortPlan(
        backbone=spec.key.backbone,
        layer=spec.key.layer,
        readout=spec.key.readout,
        studies=len(members),
        features=spec.shape.size,
        columns=sizes.units * spec.target(n_trials),
        rounds_at_once=1,
        compiled=False,
        tier=tier,
        memory=fit_bytes(sizes, arithmetic),
        cache=0 if tier == "recompute" else workspace.features.cached_bytes(spec.shape),
        kept=_weights_bytes(workspace, members),
        rounds=1.0,
    )


def _weights_bytes(workspace: Workspace, members: Sequence[Spec]) -> int:
    """Of one weights file of each study, with folds the predictions of held-out images too."""
    from tuner import readouts

    folds = workspace.cuts.n_folds
    readout = readouts.get(members[0].key.readout)
    parameters = sum(
        int(np.prod(shape))
        for s in members
        for shape in readout.parameter_shapes(s.shape, len(s.units), folds).values()
    )
    answers = 0 if folds == 1 else len(workspace.cuts.held_out) * sum(len(s.units) for s in members)
    return 4 * (parameters + answers)
