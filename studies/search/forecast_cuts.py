"""How long it takes to fit the best settings anew on other cuts, from sizes and a few seconds of calibration."""

from __future__ import annotations

from collections.abc import Sequence

from studies.grid import Spec, cohorts
from studies.search.calibrate import Budget, Span, Timed, column_seconds
from studies.search.closed_form import problem
from studies.search.start import starts_elsewhere
from studies.workspace import Workspace

SECONDS = 10.0
"""That the measurements may take."""


START, FIT = "start", "fit"
"""Kinds of parts: what a layer's columns start in, and a cohort's fits."""

Parts = dict[tuple[str, ...], Span]
"""``(START, backbone, layer)`` and ``(FIT, backbone, layer, readout)`` to the time of all cuts."""


def expected_on_other_cuts(workspace: Workspace, specs: Sequence[Spec], cuts: int) -> Parts:
    """Time to fit all studies on so many other cuts, part by part; features are taken to be there.

    Parameters
    ----------
    specs
        The studies.
    cuts
        How many further cuts.
    """
    parts = list(cohorts(specs).values())
    trained = [members for members in parts if not members[0].closed_form]
    folds = workspace.cuts.n_folds
    columns = [folds * sum(len(spec.units) for spec in members) for members in trained]
    wanted = [Timed(*one) for one in zip(trained, [False] * len(trained), columns, strict=True)]
    trials = column_seconds(workspace, wanted, Budget(SECONDS))
    found: Parts = {}
    for k, members in enumerate(trained):
        spec = members[0]
        found[FIT, *spec.cohort] = trials[k] * (columns[k] * cuts)
        start = (START, spec.key.backbone, spec.key.layer)
        if start not in found and starts_elsewhere(workspace, spec):
            found[start] = _starting(workspace, spec, cuts)
    for members in parts:
        if members[0].closed_form:
            found[FIT, *members[0].cohort] = _solving(workspace, members, cuts)
    return found


def _solving(workspace: Workspace, members: Sequence[Spec], cuts: int) -> Span:
    """Of a closed form; with folds all cuts share its decompositions."""
    from tuner.closed_form.cost import fit_seconds
    from tuner.fitting.plan import resolve_memory

    sizes, folds = problem(workspace, members), workspace.cuts.n_folds
    memory = resolve_memory(workspace.experiment.training.memory, workspace.device)
    value = fit_seconds(
        sizes,
        sizes.plan(memory),
        workspace.algebra_device,
        folds=folds,
        groupings=cuts if folds > 1 else 1,
    )
    return Span(value, value, value).widened(0.4) * (1 if folds > 1 else cuts)


def _starting(workspace: Workspace, spec: Spec, cuts: int) -> Span:
    """Of what a layer's columns start in; with folds all cuts share its decompositions."""
    from studies.search.forecast import START_UNKNOWN
    from tuner.closed_form.cost import located_seconds

    folds = workspace.cuts.n_folds
    value = located_seconds(
        len(workspace.cuts.fitted),
        spec.shape,
        sum(map(len, workspace.regions.values())),
        folds,
        workspace.algebra_device,
        foldings=cuts if folds > 1 else 1,
    )
    return Span(value, value, value).widened(START_UNKNOWN) * (1 if folds > 1 else cuts)
