"""``tuner export heatmap``: which layer explains which region, as a figure and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.basis import basis_of
from studies.config.networks import draws
from studies.database.stores import Stores
from studies.export.made_from import changed, remember
from studies.export.resplit import announced, on_other_cuts, sentences, write_resplit
from studies.export.target import is_file
from studies.grid import Spec
from studies.results.best_layers import COLUMNS as UNIT_LAYER_COLUMNS
from studies.results.best_layers import among_layers, lowest, region_layers, summary, unit_layers
from studies.results.nested import COLUMNS as NESTED_COLUMNS
from studies.results.nested import nested_rows
from studies.results.networks import COLUMNS as NETWORK_COLUMNS
from studies.results.networks import network_rows
from studies.results.paired import set_against
from studies.results.references import Reference, named, of_tables
from studies.results.scores import Evaluated, Scorer, evaluate_all, score_here, unit_columns
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tuner.figures.style import ThemeName


@dataclass(frozen=True)
class Heatmap:
    """A heatmap drawn, and what it was drawn from.

    Attributes
    ----------
    figure
        The figure.
    rows, units
        Of ``heatmap.csv`` and ``units.csv``.
    references
        What is drawn beside the studies.
    found
        The studies, without their weights.
    stacked
        Network and region to the row of all its studies together, and the limits of that row's scores.
    """

    figure: Figure
    rows: list[dict[str, Any]]
    units: list[dict[str, Any]]
    references: list[Reference]
    found: list[Evaluated]
    stacked: dict[tuple[str, str], tuple[dict[str, Any], dict[str, tuple[float, float]]]]


def export_heatmap(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    out: Path,
    *,
    metric: str | None = None,
    references: Sequence[str] = (),
    cuts: int = 0,
    stacked: bool = False,
    say: Callable[[str], None] = lambda message: None,
    scorer: Scorer = score_here,
) -> list[Path]:
    """Write ``heatmap.csv``, ``units.csv``, ``heatmap.png`` and ``heatmap.svg``; or one file of OUT's name.

    With several layers ``nested.csv`` and ``unit_layers.csv``: what the choice of a layer is worth, how sure a unit's is.
    With several backbones ``networks.csv``, ``networks.png`` and ``networks.svg`` too: network against region.

    Parameters
    ----------
    out
        A folder; or ``NAME.csv``, ``NAME.png`` or ``NAME.svg``, which are the table and the figure.
    metric
        Column that is drawn; None: test correlation, or validation correlation without test images.
    references
        Which of :data:`studies.results.references.REFERENCES` are drawn beside the studies, and written as
        ``references.csv`` and ``reference_units.csv``.
    cuts
        On how many other cuts the best settings are fitted, to say how sure the choice of layers is:
        ``resplit.csv`` and ``best_layers``.
    stacked
        Whether a row and a panel ``stacked`` are added: all studies of a region on a backbone together.
    say
        Told how long fitting on other cuts will take, what the scores are over, where the folder's last heatmap was made
        from other test responses, which tables of it are removed because they are not made this time, of how many units
        the best layer is sure, and how sure each region's is on other cuts.
    scorer
        Who computes the studies' scores.

    Raises
    ------
    InputError
        If no selected study has a complete trial, the metric does not exist or is a loss that references do not have,
        or the one file that ``OUT`` names cannot hold what is asked for.
    """
    from tuner.figures.metrics import metric_named
    from tuner.figures.style import save, save_as
    from tuner.figures.tables import write_csv, write_heatmap, write_units

    one_file = is_file(out, ".png", ".svg", ".csv")
    if one_file and (cuts or (references and out.suffix.lower() == ".csv")):
        raise InputError(
            f"-o {out}: one file does not hold the further tables that --resplit and references "
            "(--ridge, --fwrf, --located, --random) give; name a folder"
        )
    if metric is not None:
        metric_named(metric)  # refused before anything is scored
    _of_one_loss(workspace, metric, references)
    expected = announced(workspace, stores, specs, cuts, say) if cuts else None
    made = draw_heatmap(
        workspace,
        stores,
        specs,
        metric=metric,
        references=references,
        stacked=stacked,
        say=say,
        scorer=scorer,
    )
    if one_file:
        table = out.suffix.lower() == ".csv"
        return [write_heatmap(made.rows, out) if table else save_as(made.figure, out)]
    other = changed(out, workspace.recording)
    if other is not None:
        say(other)
    paths = [
        write_heatmap(made.rows, out / "heatmap.csv"),
        write_units(made.units, out / "units.csv"),
    ]
    basis = basis_of(workspace)
    remember(out, workspace.recording, made.rows, basis)
    if made.references:
        beside = made.references
        units = [unit for reference in beside for unit in reference.units]
        paths += [
            write_heatmap(
                of_tables(workspace, (reference.row for reference in beside)),
                out / "references.csv",
            ),
            write_units(of_tables(workspace, units), out / "reference_units.csv"),
        ]
    choices = nested_rows(workspace, made.found)
    if choices:
        paths.append(write_csv(choices, NESTED_COLUMNS, out / "nested.csv"))
    if len({(spec.key.backbone, spec.key.layer) for spec in specs}) > 1:
        layers = unit_layers(workspace, made.found)
        names = dict.fromkeys([*UNIT_LAYER_COLUMNS, *unit_columns(workspace, 0)])
        paths.append(write_csv(layers, tuple(names), out / "unit_layers.csv"))
        if not cuts:
            among = among_layers([spec.key.backbone for spec in specs])
            say(f"{lowest(region_layers(workspace, made.found))}; --resplit 5 says how sure{among}")
        if summary(layers):
            say(f"{summary(layers)} (unit_layers.csv)")
    paths += save(made.figure, out / "heatmap")
    if len({spec.key.backbone for spec in specs}) > 1:
        paths += _against(workspace, made, metric, out)
    _remove_others(out, paths, say)
    if expected is not None:
        fits = on_other_cuts(workspace, stores, specs, cuts, made.found, expected)
        paths += write_resplit(
            fits,
            made.found,
            out,
            basis=basis,
            groups=workspace.areas,
            simulated=workspace.recording.simulated,
        )
        for sentence in sentences(fits):
            say(sentence)
    return paths


def _of_one_loss(workspace: Workspace, metric: str | None, references: Sequence[str]) -> None:
    """Refuse to draw losses of two kinds on one scale, before anything is scored."""
    loss = workspace.experiment.training.loss
    if references and metric == "validation_loss" and loss != "mse":
        raise InputError(
            f"--metric validation_loss: the references' is squared error, the studies' {loss}; draw "
            "validation_correlation, or leave the references out"
        )


_MAY_BE = (
    *("references.csv", "reference_units.csv", "nested.csv", "unit_layers.csv"),
    *(f"networks.{suffix}" for suffix in ("csv", "png", "svg")),
)
"""Files of an export that are not made by every one."""


def _remove_others(out: Path, paths: Sequence[Path], say: Callable[[str], None]) -> None:
    """Remove what an earlier export left beside the tables that were just written, as though it belonged to them."""
    for path in (out / name for name in _MAY_BE):
        if path not in paths and path.is_file():
            path.unlink()
            say(f"removed {path}: of an earlier export, and not made by this one")


def _against(workspace: Workspace, made: Heatmap, metric: str | None, out: Path) -> list[Path]:
    """Write ``networks.csv``, ``networks.png`` and ``networks.svg``: network against region."""
    from tuner.figures.networks import networks
    from tuner.figures.panels import choose_metric
    from tuner.figures.style import save
    from tuner.figures.tables import write_csv

    rows = network_rows(workspace, made.found, made.stacked)
    figure = networks(
        rows,
        metric=choose_metric(made.rows, metric).name,
        basis=basis_of(workspace),
        groups=workspace.areas,
        simulated=workspace.recording.simulated,
    )
    return [
        write_csv(rows, NETWORK_COLUMNS, out / "networks.csv"),
        *save(figure, out / "networks"),
    ]


def draw_heatmap(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    *,
    metric: str | None = None,
    references: Sequence[str] = (),
    stacked: bool = False,
    theme: ThemeName = "light",
    say: Callable[[str], None] = lambda message: None,
    scorer: Scorer = score_here,
) -> Heatmap:
    """Score the studies and draw the map; see :func:`export_heatmap`.

    Raises
    ------
    InputError
        If no selected study has a complete trial, the metric does not exist or is a loss that references do not have.
    """
    from tuner.figures import captions
    from tuner.figures.against import against
    from tuner.figures.draws import merged
    from tuner.figures.heatmap import heatmap
    from tuner.figures.panels import choose_metric

    _of_one_loss(workspace, metric, references)
    beside = named(workspace, specs, references)
    # All weights together would fill the memory.
    evaluated = evaluate_all(workspace, stores, specs, scorer=scorer)
    found = [replace(one, parameters=None) for one in evaluated]
    found = set_against(workspace, stores, found, beside)
    rows = [one.row for one in found]
    units = [unit for one in found for unit in one.units]
    together: dict[tuple[str, str], tuple[dict[str, Any], dict[str, tuple[float, float]]]] = {}
    if stacked:
        from studies.results.stacked import evaluate_stack, stacks

        for stack in stacks(workspace, stores, specs):
            row, of_units, limits = evaluate_stack(workspace, stack)
            together[stack.spec.key.backbone, stack.spec.key.region] = row, limits
            rows.append(row)
            units += of_units
    basis = basis_of(workspace)
    shared = draws(workspace.experiment.backbone)
    chosen = choose_metric(rows, metric)
    compared = against(rows, chosen, basis.untrained)
    say(captions.joined(captions.scores(rows, chosen, basis), compared))
    figure = heatmap(
        merged(rows, shared),
        metric=metric,
        basis=basis,
        simulated=workspace.recording.simulated,
        references=merged([reference.row for reference in beside], shared),
        groups=workspace.areas,
        theme=theme,
    )
    return Heatmap(figure, rows, units, beside, found, together)
