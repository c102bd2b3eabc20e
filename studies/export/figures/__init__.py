"""What ``tuner export figures`` writes: the figures of every study, and those that compare studies of a region."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from studies.basis import basis_of
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.export.figures.drawn import FIGURES, Drawn
from studies.export.figures.of_regions import compare
from studies.export.figures.of_studies import study_figures
from studies.grid import Spec
from studies.results.scores import Evaluated, evaluate_all
from studies.workspace import Workspace
from tuner.errors import InputError, unknown

if TYPE_CHECKING:
    from tuner.figures.style import ThemeName, WidthName

__all__ = ["FIGURES", "Drawn", "export_figures"]


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
) -> Drawn:
    """Write the figures of the selected studies, and of what they can be compared by.

    Parameters
    ----------
    out
        A folder, in which each study's go to ``<name>/``; or ``NAME.png`` or ``NAME.svg`` for a single figure.
    only
        Which of :data:`FIGURES`; none named: all.
    metric
        What is compared; None: test correlation, or validation correlation without test images.
    theme, width
        How the figures are drawn; see :mod:`tuner.figures.style`.

    Raises
    ------
    InputError
        If no selected study has a complete trial, the metric or a figure does not exist, or there are several figures
        for one file.
    """
    from tuner.figures.metrics import metric_named
    from tuner.figures.panels import choose_metric

    if metric is not None:
        metric_named(metric)  # refused before anything is drawn
    for name in only:
        _check_name(name)
    basis = basis_of(workspace)
    drawn = Drawn(out, workspace.recording.simulated, basis, tuple(only) or FIGURES, theme, width)
    stored = stored_studies(stores.storage)
    found: list[Evaluated] = []
    for one in evaluate_all(workspace, stores, specs, what="drawing studies"):
        study_id = stored[one.spec.name].study_id
        loaded = trials.load(stores.storage, [study_id])[study_id]
        study_figures(one, loaded, drawn)
        found.append(replace(one, parameters=None))  # of many studies they would fill the memory
    rows = [one.row for one in found]
    compare(workspace, found, choose_metric(rows, metric), drawn)
    drawn.finish()
    return drawn


def _check_name(name: str) -> None:
    """Refuse what is no figure; a file's name, without its suffix, by saying how that one is asked for."""
    if name in FIGURES:
        return
    for figure in FIGURES:
        rest = name.removeprefix(f"{figure}_")
        if rest != name:
            selector = "--backbone" if figure == "best_layer_by_region" else "--region"
            raise InputError(
                f"--only {name}: is the file of one of several figures; say --only {figure} {selector} {rest}"
            )
    raise unknown("figure", name, FIGURES)
