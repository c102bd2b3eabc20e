"""How sure the choice of a layer is, shown: a table, a figure for each backbone, a sentence for each choice.

What other cuts say is computed in :mod:`studies.results.resplit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.database.stores import Stores
from studies.grid import Spec, cohorts
from studies.results.encoders import best_studies
from studies.results.kept_cuts import kept_at
from studies.results.resplit import COLUMNS, resplit
from studies.results.scores import Evaluated
from studies.search.forecast_cuts import Parts, expected_on_other_cuts
from studies.workspace import Workspace
from tuner.figures.panels import NOT_TOLD, failed
from tuner.progress import about

if TYPE_CHECKING:
    from tuner.figures.captions import Basis

Row = dict[str, Any]

LONG = 60.0
"""Seconds beyond which a quicker way is named."""

MOST = 12
"""Sentences that are printed; the table has all."""


def announced(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    cuts: int,
    say: Callable[[str], None],
) -> Parts:
    """Say how long fitting on other cuts will take, and return it part by part; empty where it is kept from before."""
    best = best_studies(workspace, stores, specs)
    ready = [one.spec for one in best]
    if kept_at(workspace, [(one.spec, one.summary) for one in best], cuts).is_file():
        say(f"on {cuts} other cut{'s' * (cuts != 1)}: as fitted before")
        return {}
    expected = expected_on_other_cuts(workspace, ready, cuts)
    fits = cuts * len(cohorts(ready))
    seconds = sum(part.value for part in expected.values())
    some = f"{fits} fit{'s' * (fits != 1)} of {len(ready)} stud{'y' if len(ready) == 1 else 'ies'}"
    quicker = len({spec.closed_form for spec in ready}) > 1 and seconds > LONG
    few = ", --readout smooth alone is quicker" if quicker else ""
    say(f"on {cuts} other cut{'s' * (cuts != 1)}: {some}, {about(seconds)}{few}")
    return expected


def on_other_cuts(
    workspace: Workspace,
    stores: Stores,
    specs: Sequence[Spec],
    cuts: int,
    found: Sequence[Evaluated],
    expected: Parts,
) -> list[Row]:
    """Fit the best settings on other cuts, see :func:`studies.results.resplit.resplit`.

    Parameters
    ----------
    cuts
        How many.
    found
        The same studies, scored: one whose fit failed is not chosen.
    expected
        From :func:`announced`.
    """
    failures = [one.spec.name for one in found if failed(one.row)]
    return resplit(workspace, stores, specs, cuts, failures, expected)


def choices(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Backbone, region and readout to the rows of the layers that compete there."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["backbone"], row["region"], row["readout"]), []).append(row)
    return found


def contenders(rivals: Iterable[Row]) -> list[Row]:
    """Layers that are not surely worse than the chosen one, the nearest first.

    Where all are, the one that comes nearest to it; empty where there are no intervals.

    Examples
    --------
    >>> wide = {"chosen": False, "layer": "b", "difference": 0.04, "difference_low": 0.01}
    >>> near = {"chosen": False, "layer": "c", "difference": 0.03, "difference_low": 0.02}
    >>> [row["layer"] for row in contenders([wide, near])]
    ['c']
    >>> [row["layer"] for row in contenders([wide | {"difference_low": -0.01}, near])]
    ['b']
    """
    limited = [r for r in rivals if not r["chosen"] and np.isfinite(r["difference_low"])]
    open_ = sorted((r for r in limited if r["difference_low"] <= 0), key=lambda r: r["difference"])
    return open_ or sorted(limited, key=lambda row: float(row["difference"]))[:1]


def sentences(rows: Sequence[Row]) -> list[str]:
    """Say of each choice whether it is sure, and against which layer.

    Parameters
    ----------
    rows
        From :func:`studies.results.resplit.resplit`.

    Examples
    --------
    >>> row = {"backbone": "net", "region": "V4", "readout": "full", "cuts": 5}
    >>> chosen = row | {"layer": "a", "chosen": True, "difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    >>> other = row | {"layer": "b", "chosen": False, "difference": 0.02, "difference_low": -0.02, "difference_high": 0.06}
    >>> print(*sentences([chosen, other]))
    net/V4/full: undecided between a and b; loss of b less that of a .020 [-.020, .060] on 5 other cuts
    >>> print(*sentences([chosen, other | {"difference_low": 0.01, "difference_high": 0.03}]))
    net/V4/full: a is surely the best of the 2 layers; loss of b less that of a .020 [.010, .030] on 5 other cuts
    >>> print(*sentences([chosen | {"chosen": False}, other]))
    net/V4/full: no fit is surely better than predicting the mean
    """
    out = []
    for (backbone, region, readout), rivals in choices(rows).items():
        best = next((row for row in rivals if row["chosen"]), None)
        others = contenders(rivals)
        if best is None:
            out.append(f"{backbone}/{region}/{readout}: {NOT_TOLD}")
            continue
        if not others:
            continue
        other, layer = others[0], best["layer"]
        said = f"{layer} is surely the best of the {len(rivals)} layers"
        if other["difference_low"] <= 0:
            *names, last = [layer, *(row["layer"] for row in others)]
            said = f"undecided between {', '.join(names)} and {last}"
        out.append(
            f"{backbone}/{region}/{readout}: {said}; loss of {other['layer']} less that of {layer} "
            f"{_three(other['difference'])} [{_three(other['difference_low'])}, "
            f"{_three(other['difference_high'])}] on {best['cuts']} other cut{'s' * (best['cuts'] != 1)}"
        )
    if len(out) > MOST:
        left = len(out) - MOST
        return [*out[:MOST], f"and {left} more choices of a layer: see resplit.csv"]
    return out


def _three(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def write_resplit(
    rows: Sequence[Row],
    found: Sequence[Evaluated],
    out: Path,
    *,
    basis: Basis,
    groups: Mapping[str, str] | None,
    simulated: bool,
) -> list[Path]:
    """Write ``resplit.csv`` and a figure per backbone.

    Parameters
    ----------
    rows
        From :func:`studies.results.resplit.resplit`.
    found
        The same studies, for what their losses are over.
    basis
        What the scores rest on.
    groups
        Region to area, where regions are something finer.
    simulated
        Whether the recording is.
    """
    from tuner.figures import captions
    from tuner.figures.best_layers import NEXT, BestLayer, best_layers
    from tuner.figures.panels import NO_LAYER
    from tuner.figures.style import save
    from tuner.figures.tables import write_csv

    paths = [write_csv(rows, COLUMNS, out / "resplit.csv")]
    backbones = dict.fromkeys(row["backbone"] for row in rows)
    for backbone in backbones:
        mine = [row for row in rows if row["backbone"] == backbone]
        cuts = max(row["cuts"] for row in mine)
        order = sorted({(row["layer_index"], row["layer"]) for row in mine})
        entries = []
        for (_, region, readout), rivals in choices(mine).items():
            best = next((row["layer"] for row in rivals if row["chosen"]), None)
            others = contenders(rivals)
            entries.append(
                BestLayer(
                    region,
                    readout,
                    NO_LAYER if best is None else best,
                    *_gap(others if best is not None else ()),
                    probabilities={rival["layer"]: rival["best_in_draws"] for rival in rivals},
                )
            )
        if all(entry.layer == NO_LAYER for entry in entries):
            continue
        shown = [one.row for one in found if one.spec.key.backbone == backbone]
        figure = best_layers(
            entries,
            [layer for _, layer in order],
            metric=NEXT,
            title=f"How sure is the best layer? On {cuts} other cut{'s' * (cuts != 1)}",
            about=captions.on_other_cuts(shown, basis, cuts),
            bars="95 % interval over cuts, images and units, for all layers of a region together",
            drawn="the cuts, their images and units",
            groups=groups,
            simulated=simulated,
        )
        stem = "best_layers" if len(backbones) == 1 else f"best_layers_{backbone}"
        paths += save(figure, out / stem.replace("/", "-"))
    return paths


def _gap(others: Sequence[Row]) -> tuple[float, float, float]:
    """How far the nearest other layer is from the best one, with limits."""
    if not others:
        return np.nan, np.nan, np.nan
    return others[0]["difference"], others[0]["difference_low"], others[0]["difference_high"]
