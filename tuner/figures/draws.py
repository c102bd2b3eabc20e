"""Several draws of random weights shown as one network: the mean, and the band between the least and the greatest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.figures.metrics import METRICS, number
from tuner.figures.panels import Row, failed, pending
from tuner.figures.tables import LINES

BANDS = "bands"
"""Entry of a merged row: column to least and greatest value over the draws."""

_MEANS = (
    *METRICS,
    *("test_correlation_normalized_median", "feve_median", "noise_ceiling"),
    *("n_trials", "n_units", "n_units_with_ceiling", "n_units_gated"),
)


def label(name: str, draws: int) -> str:
    """What the draws of a network are called together."""
    return f"{name}, {draws} draws"


def merged(rows: Sequence[Row], draws: Mapping[str, str]) -> list[Row]:
    """Put one row in the place of those of the draws of a network, in the place of the first.

    Parameters
    ----------
    rows
        Of the heatmap table.
    draws
        Backbone to the name that it and other draws share; others stand for themselves.

    Returns
    -------
    list of rows
        A merged one has the mean over draws in every score, is a failed fit where all draws are, and has under
        :data:`BANDS` the least and the greatest of each score.

    Examples
    --------
    >>> row = {"layer": "a", "layer_index": 0, "region": "V1", "readout": "full", "fit_failed": False}
    >>> ours = [row | {"backbone": f"net-{n}", "validation_loss": n / 10} for n in (1, 3)]
    >>> (one,) = merged(ours, {"net-1": "net", "net-3": "net"})
    >>> one["backbone"], one["validation_loss"], one[BANDS]["validation_loss"]
    ('net, 2 draws', 0.2, (0.1, 0.3))
    """
    counts = {name: len([d for d in draws.values() if d == name]) for name in draws.values()}
    together: dict[tuple[str, str, str, str], list[Row]] = {}
    out: list[tuple[str, str, str, str] | Row] = []
    for row in rows:
        name = draws.get(str(row["backbone"]))
        if name is None:
            out.append(row)
            continue
        key = (name, str(row["layer"]), str(row["region"]), str(row["readout"]))
        if key not in together:
            out.append(key)
        together.setdefault(key, []).append(row)
    return [
        _one(label(entry[0], counts[entry[0]]), together[entry])
        if isinstance(entry, tuple)
        else entry
        for entry in out
    ]


def _one(name: str, rows: Sequence[Row]) -> Row:
    done = [row for row in rows if not pending(row)]
    one: dict[str, Any] = {**rows[0], "backbone": name, "below_smooth": None, "note": ""}
    one |= {f"against_{line}": None for line in LINES}
    one["fit_failed"] = bool(done) and all(failed(row) for row in done)
    bands = {}
    for column in _MEANS:
        values = [number(row.get(column)) for row in done]
        finite = [value for value in values if not math.isnan(value)]
        one[column] = math.fsum(finite) / len(finite) if finite else None
        if finite:
            bands[column] = (min(finite), max(finite))
    return one | {BANDS: bands}
