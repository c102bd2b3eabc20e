"""How long it takes to fit the best settings anew on other cuts, from sizes and a few seconds of calibration."""

from __future__ import annotations

from collections.abc import Sequence

from studies.grid import Spec, cohorts
from studies.search.calibrate import ZERO, Budget, Span, Timed, column_seconds
from studies.search.closed_form import problem
from studies.search.start import starts_elsewhere
from studies.workspace import Workspace

SECONDS = 10.0
"""That the measurements may take."""


def seconds_on_other_cuts(workspace: Workspace, specs: Sequence[Spec], cuts: int) -> Span:
    """Time to fit all studies on so many other cuts, what they start in included; features are taken to be there.

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
    total = sum((trials[k] * (count * cuts) for k, count in enumerate(columns)), ZERO)
    started: set[tuple[str, str]] = set()
    for members in parts:
        layer = members[0].key.backbone, members[0].key.layer
        if members[0].closed_form:
            total += _solving(workspace, members, cuts)
        elif layer not in started and starts_elsewhere(workspace, members[0]):
            started.add(layer)
            total += _starting(workspace, members[0], cuts)
    return total


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
