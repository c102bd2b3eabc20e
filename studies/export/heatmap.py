"""``tuner export heatmap``: which layer explains which region, as a figure and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studies.database.stores import Stores
from studies.grid import Spec
from studies.results.scores import evaluate_all
from studies.workspace import Workspace
from tuner.errors import InputError


def export_heatmap(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    metric: str | None = None,
    references: Sequence[dict[str, Any]] = (),
    cuts: int = 0,
) -> list[Path]:
    """Write ``heatmap.csv``, ``units.csv``, ``heatmap.png`` and ``heatmap.svg``.

    With references (rows of `studies.results.references`), ``references.csv`` too, and they are drawn beside the studies.
    With ``cuts``, how sure the choice of layers is besides: ``resplit.csv`` and ``best_layers``.

    Raises
    ------
    InputError
        If no selected study has a complete trial, the metric does not exist, or it is a loss that references do not have.
    """
    from tuner.figures.heatmap import heatmap
    from tuner.figures.metrics import metric_named
    from tuner.figures.style import save
    from tuner.figures.tables import write_heatmap, write_units

    if metric is not None:
        metric_named(metric)  # refused before anything is scored
    loss = workspace.experiment.training.loss
    if references and metric == "validation_loss" and loss != "mse":
        raise InputError(
            f"--metric validation_loss: the references' is squared error, the studies' {loss}; draw "
            "validation_correlation, or leave the references out"
        )
    # All weights together would fill the memory.
    found = [replace(one, parameters=None) for one in evaluate_all(workspace, stores, specs)]
    rows = [one.row for one in found]
    units = [unit for one in found for unit in one.units]
    figure = heatmap(
        rows,
        metric=metric,
        simulated=workspace.recording.simulated,
        references=references,
        groups=workspace.areas,
    )
    paths = [write_heatmap(rows, out / "heatmap.csv"), write_units(units, out / "units.csv")]
    if references:
        paths.append(write_heatmap(references, out / "references.csv"))
    paths += save(figure, out / "heatmap")
    if cuts:
        from studies.results.resplit import resplit, write_resplit

        fits = resplit(workspace, stores, specs, cuts)
        paths += write_resplit(fits, found, out, simulated=workspace.recording.simulated)
    return paths
