"""The figure of a recording's units."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from tests.figures.conftest import edges_with_ink
from tuner.figures import style
from tuner.figures.recordings import reliability_strips


def example(n_regions: int = 3, n_units: int = 40):
    rng = np.random.default_rng(0)
    regions = [f"V{index}" for index in range(n_regions) for _ in range(n_units)]
    reliability = rng.uniform(-0.1, 0.9, len(regions))
    ceiling = np.sqrt(np.clip(reliability, 0.01, None))
    return regions, reliability, ceiling


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_every_unit_is_a_point_and_every_region_a_row():
    regions, reliability, ceiling = example()
    ceiling[:5] = np.nan
    figure = reliability_strips(regions, reliability, ceiling, title="mine")
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() == "o"]
    drawn = np.concatenate([line.get_xdata() for line in points])
    np.testing.assert_allclose(np.sort(drawn), np.sort(np.concatenate([reliability, ceiling[5:]])))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["V0", "V1", "V2"]
    assert "40 units,\n35 with ceiling" in texts(figure)
    assert "40 units" in texts(figure)


def test_the_bars_are_medians():
    regions, reliability, ceiling = example(1)
    figure = reliability_strips(regions, reliability, ceiling, title="mine")
    bars = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() != "o"]
    np.testing.assert_allclose(bars, [np.median(reliability), np.median(ceiling)])


def test_arrays_are_named_with_their_areas():
    regions, reliability, ceiling = example(2)
    areas = ["V1"] * 40 + ["V4"] * 20 + ["IT"] * 20  # the second array lies in two
    figure = reliability_strips(regions, reliability, ceiling, areas=areas, title="mine")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["V0 \N{MIDDLE DOT} V1", "V1"]
    own = reliability_strips(regions, reliability, ceiling, areas=regions, title="mine")
    assert [label.get_text() for label in own.axes[0].get_yticklabels()] == ["V0", "V1"]


def test_points_stay_in_their_row_and_spread_where_they_crowd():
    values = np.r_[np.full(400, 0.5), 0.9]
    figure = reliability_strips(["V1"] * 401, values, np.full(401, np.nan), title="mine")
    (points,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    place = np.asarray(points.get_ydata()) + 0.2  # of the upper row
    assert np.abs(place).max() <= 0.17
    assert np.ptp(place[:400]) > 0.3
    assert place[400] == pytest.approx(0)


def test_simulated_is_said():
    assert any(
        "simulated" in t.lower()
        for t in texts(reliability_strips(*example(), title="x", simulated=True))
    )
    assert not any(
        "simulated" in t.lower() for t in texts(reliability_strips(*example(), title="x"))
    )


@pytest.mark.parametrize(("n_regions", "theme"), [(1, "light"), (16, "dark")])
def test_nothing_is_cut_off(n_regions, theme):
    regions, reliability, ceiling = example(n_regions)
    regions = [f"a long name of a region {name}" for name in regions]
    figure = reliability_strips(
        regions, reliability, ceiling, title="a $title_ of_ some length " * 3, theme=theme
    )
    figure.canvas.draw()
    assert edges_with_ink(figure) == []


def test_the_same_bytes_every_time():
    first, second = (
        style.render(reliability_strips(*example(), title="x"), "png") for _ in range(2)
    )
    assert first == second


def test_units_without_anything_defined():
    figure = reliability_strips(["V1"], [np.nan], [np.nan], title="x")
    assert "1 units,\n0 with ceiling" in texts(figure)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="not of the same units"):
        reliability_strips(["V1"], [0.1, 0.2], [0.1], title="x")
