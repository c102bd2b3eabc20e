"""Network against region, and draws of random weights as one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.figures.conftest import study_rows
from tuner.figures.captions import Basis
from tuner.figures.draws import BANDS, merged
from tuner.figures.heatmap import heatmap
from tuner.figures.metrics import METRICS
from tuner.figures.networks import networks
from tuner.figures.panels import panels

NoOverlaps = Callable[[Figure], None]


def network_rows(names: list[str], regions: list[str], seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for number, name in enumerate(names):
        kind = "network"
        if name in ("pixels", "gabor"):
            kind = "baseline"
        elif name.startswith("random"):
            kind = "untrained"
        for region in regions:
            value = {"network": 0.6, "baseline": 0.2, "untrained": 0.3}[kind]
            value += rng.normal(0, 0.05)
            rows.append(
                {
                    "network": name,
                    "kind": kind,
                    "region": region,
                    "depth": None if kind == "baseline" else number % 5 / 4,
                    "test_correlation": value,
                    "test_correlation_low": value - 0.04,
                    "test_correlation_high": value + 0.04,
                    "stacked_test_correlation": value + 0.05,
                }
            )
    return rows


@pytest.mark.parametrize(
    ("count", "regions"), [(1, ["V1"]), (12, ["V1", "V4", "IT"]), (30, [f"a{i}" for i in range(9)])]
)
def test_all_that_is_written_can_be_read(
    count: int, regions: list[str], no_overlaps: NoOverlaps
) -> None:
    names = [f"timm/vit_small_patch16_224.augreg_in21k_{i}" for i in range(count)]
    rows = network_rows([*names, "pixels", "gabor", "random-1", "random-2"], regions)
    figure = networks(rows, basis=Basis(n_test=200, n_repeats=4), simulated=True)
    no_overlaps(figure)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "band: 2 untrained networks" in texts
    assert "dashed line: gabor" in texts
    assert "cross" not in texts


def test_one_untrained_network_is_a_line_and_its_interval() -> None:
    (row,) = (r for r in network_rows(["net", "random"], ["V1"]) if r["network"] == "random")
    figure = networks([row | {"network": "net", "kind": "network"}, row])
    (band,) = figure.axes[0].patches
    ends = (row["test_correlation_low"], row["test_correlation_high"])
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(ends)
    written = " ".join(text.get_text() for text in figure.texts)
    assert "grey line: the untrained network, band: its interval" in written
    alone = networks([{k: v for k, v in row.items() if k[-4:] not in ("_low", "high")}])
    assert "its interval" not in " ".join(text.get_text() for text in alone.texts)


def test_a_score_is_called_as_in_the_heatmap(no_overlaps: NoOverlaps) -> None:
    rows = [
        row | {"feve": row["test_correlation"]} for row in network_rows(["a", "b"], ["V1", "IT"])
    ]
    figure = networks(rows, metric="feve")
    no_overlaps(figure)
    said = " ".join(figure.axes[0].get_xlabel().split())
    assert said == METRICS["feve"].label


def test_arrays_have_the_names_of_their_areas(no_overlaps: NoOverlaps) -> None:
    groups = {"1": "V4", "2": "IT", "3": "V4"}
    figure = networks(network_rows(["a", "b"], ["1", "2", "3"]), groups=groups)
    no_overlaps(figure)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert titles == ["1 \N{MIDDLE DOT} V4", "3 \N{MIDDLE DOT} V4", "2 \N{MIDDLE DOT} IT"]


def test_a_fit_that_failed_is_no_dot() -> None:
    rows = network_rows(["a", "b"], ["V1"])
    rows[1]["fit_failed"] = True
    figure = networks(rows)
    assert [line.get_marker() for line in figure.axes[0].lines if len(line.get_xdata()) == 1] == [
        *("D", "o", "D", "x"),
    ]
    assert "cross: not surely better" in " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("kind", ["baseline", "untrained"])
def test_a_line_of_a_fit_that_failed_is_crossed(kind: str, no_overlaps: NoOverlaps) -> None:
    """The heatmap hatches it; here it was a line like any other."""
    rows = network_rows(["a", "pixels", "gabor", "random-1"], ["V1", "IT"])
    mine = next(row for row in rows if row["kind"] == kind and row["region"] == "IT")
    mine["fit_failed"] = True
    figure = networks(rows)
    no_overlaps(figure)
    crosses = [
        [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"]
        for axes in figure.axes[:2]
    ]
    assert crosses == [[], [mine["test_correlation"]]]
    assert "cross: not surely better" in " ".join(text.get_text() for text in figure.texts)


def test_networks_stand_in_the_order_of_their_scores() -> None:
    rows = network_rows(["a", "b", "c"], ["V1", "IT"])
    for row in rows:
        row["test_correlation"] = {"a": 0.2, "b": 0.6, "c": 0.4}[row["network"]]
    axes = networks(rows).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "c", "a"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    # in the order of rows: a stands lowest
    assert [(float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in dots] == [
        (0.2, 2.0),
        (0.6, 0.0),
        (0.4, 1.0),
    ]


def test_the_band_reaches_from_the_least_to_the_greatest_draw() -> None:
    rows = network_rows(["a", "random-1", "random-2", "random-3"], ["V1"])
    for row, value in zip(rows, (0.5, 0.1, 0.3, 0.2), strict=True):
        row["test_correlation"] = value
    (band,) = networks(rows).axes[0].patches
    assert band.get_x() == pytest.approx(0.1)
    assert band.get_x() + band.get_width() == pytest.approx(0.3)


def test_draws_are_one_network_with_a_band(no_overlaps: NoOverlaps) -> None:
    rows = study_rows({"net": ["a", "b"], "r-1": ["a", "b"], "r-2": ["a", "b"]}, ["V1", "IT"])
    together = merged(rows, {"r-1": "r", "r-2": "r"})
    assert [line[0].backbone for line in panels(together)] == ["net", "r, 2 draws"]
    assert len(together) == len(rows) * 2 // 3
    for one in together:
        if one["backbone"] != "r, 2 draws":
            continue
        own = [
            row["test_correlation"]
            for row in rows
            if row["backbone"] != "net"
            and all(row[key] == one[key] for key in ("layer", "region", "readout"))
        ]
        assert one["test_correlation"] == pytest.approx(np.mean(own))
        assert one[BANDS]["test_correlation"] == (min(own), max(own))
    drawn = heatmap(together, basis=Basis(weights={"r, 2 draws": "random"}))
    no_overlaps(drawn)
    bars = [line for axes in drawn.axes for line in axes.lines if line.get_linewidth() == 1.2]
    assert len(bars) == 8 + 1  # cells of two layers, regions and readouts; the legend's


def test_a_draw_that_failed_or_has_not_run_does_not_hide_the_others() -> None:
    rows = study_rows({"r-1": ["a"], "r-2": ["a"]}, ["V1"], ["full"])
    rows[0] |= {"fit_failed": True}
    (one,) = merged(rows, {"r-1": "r", "r-2": "r"})
    assert one["fit_failed"] is False
    rows[1] |= {"fit_failed": True}
    assert merged(rows, {"r-1": "r", "r-2": "r"})[0]["fit_failed"] is True
    waiting = [
        dict.fromkeys(rows[0], None) | {k: rows[0][k] for k in ("layer", "region", "readout")}
    ]
    waiting[0] |= {"backbone": "r-2", "layer_index": 0}
    (one,) = merged([rows[0] | {"fit_failed": False}, *waiting], {"r-1": "r", "r-2": "r"})
    assert one["validation_loss"] == rows[0]["validation_loss"]
