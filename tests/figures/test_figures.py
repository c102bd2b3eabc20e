"""Every other figure: legible, honest about what it leaves out, the same bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.text import Text

from tests.figures.conftest import VGG, edges_with_ink, overlaps
from tuner.errors import InputError
from tuner.figures import style
from tuner.figures.best_layers import DECIDE, NEXT, ONE_CUT, BestLayer, best_layers
from tuner.figures.curves import learning_curves
from tuner.figures.maps import masks, receptive_fields
from tuner.figures.metrics import clean, short
from tuner.figures.panels import NO_LAYER
from tuner.figures.scatter import unit_scatter
from tuner.figures.search import importance, slices
from tuner.figures.sheets import sheet
from tuner.figures.trials import TrialCurve, best_trial, visible_range

rng = np.random.default_rng(0)


def texts(figure) -> str:
    """All words, with the lines that a title was broken into joined again."""
    return " ".join(artist.get_text() for artist in figure.findobj(Text))


def trials(count: int = 20) -> list[TrialCurve]:
    steps = np.arange(45, 901, 45)
    made = []
    for number in range(count):
        values = 1 - (0.2 + 0.02 * number) * (1 - np.exp(-steps / 200))
        cut = 8 if number % 3 == 0 else 20
        state = "pruned" if cut < 20 else "complete"
        made.append(TrialCurve(number, steps[:cut], values[:cut], state))
    return made


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_learning_curves(no_overlaps, theme: str) -> None:
    curves = trials()
    diverged = TrialCurve(20, [45, 90], [3.0, np.inf], "pruned")
    figure = learning_curves([*curves, diverged], title="b/l/V1/full", simulated=True, theme=theme)
    no_overlaps(figure)
    said = texts(figure)
    assert "13 complete, 8 pruned" in said
    assert "none pruned" in texts(learning_curves(curves[1:3]))
    assert "1 above the axis" in said
    assert "simulated recording" in said
    assert "trial 19: 0." in said
    # the best trial is named above, where its label hides no line
    assert not [t for t in figure.axes[0].texts if "19" in t.get_text()]
    assert figure.axes[0].get_ylim()[1] < 1.2


def test_best_trial_is_the_lowest_report_of_a_complete_one() -> None:
    curves = [
        TrialCurve(0, [1, 2], [0.5, 0.9]),
        TrialCurve(1, [1], [0.1], "pruned"),
        TrialCurve(2, [1, 2], [0.7, 0.5]),
        TrialCurve(3, [1], [np.nan]),
    ]
    best = best_trial(curves)
    assert best is not None
    assert best.number == 0
    assert best_trial(curves[1:2]) is None


def test_curves_of_a_search_that_only_diverged_still_draw(no_overlaps) -> None:
    curves = [TrialCurve(i, [45, 90], [2.0 + i, 5.0]) for i in range(3)]
    assert visible_range(curves)[1] > 1.5
    no_overlaps(learning_curves(curves))
    no_overlaps(learning_curves([]))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_slices(no_overlaps, count: int) -> None:
    names = ["sparsity", "smoothness", "group_sparsity", "learning_rate", "drop"][:count]
    parameters = {name: 10 ** rng.uniform(-7, -1, 40) for name in names}
    if count == 5:
        parameters["drop"] = rng.integers(20, 400, 40)
    values = rng.uniform(0.4, 0.7, 40)
    values[3], values[4] = np.inf, 50.0
    figure = slices(parameters, values, complete=rng.random(40) < 0.5, log=names, simulated=True)
    no_overlaps(figure)
    assert "2 above the axis" in texts(figure)
    with pytest.raises(ValueError, match="differ in length"):
        slices({"a": [1.0]}, values)


@pytest.mark.parametrize("decades", [0.3, 1.0, 2.0, 2.4])
@pytest.mark.parametrize("least", [1.2e-3, 1.2e-6])
def test_labels_of_a_short_logarithmic_axis_stand_apart(
    no_overlaps, decades: float, least: float
) -> None:
    rates = np.geomspace(least, least * 10**decades, 40)
    figure = slices(
        {"learning_rate": rates, "drop": rates},
        rates / least * 1e-3 + 0.4,
        log=("learning_rate", "drop"),
        width="single",
    )
    no_overlaps(figure)
    axes = figure.axes[0]
    marked = [
        tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
    ]
    assert marked
    assert "e-0" not in texts(figure)


@pytest.mark.parametrize("width", [None, "single", "double"])
def test_importance(no_overlaps, width) -> None:
    note = (
        "PED-ANOVA: how much each sets the best tenth of the trials (at least 5) apart; sums to 1"
    )
    figure = importance({"smoothness": 0.1, "learning_rate": 0.7}, note=note, width=width)
    no_overlaps(figure)
    assert note in texts(figure)
    assert texts(figure).index("learning_rate") < texts(figure).index("smoothness")


@pytest.mark.parametrize("count", [1, 5, 60])
def test_masks_and_receptive_fields(no_overlaps, count: int) -> None:
    labels = [f"{i} a long name of a unit" for i in range(count)]
    maps = rng.random((count, 7, 9))
    maps[0] = 0
    no_overlaps(masks(maps, labels, simulated=True))
    five = np.tile([4.0, 3.0, 2.0, 1.0, 30.0], (count, 1))
    figure = receptive_fields(maps - 0.5, labels, ellipses=five, truth=five + 1)
    no_overlaps(figure)
    assert len(figure.findobj(Ellipse)) == 2 * count
    with pytest.raises(ValueError, match="labels"):
        masks(maps, [*labels, "one more"])


@pytest.mark.parametrize("width", ["single", "double"])
def test_figures_are_as_wide_as_a_column(no_overlaps, width) -> None:
    entries = [BestLayer(str(i), "full", VGG[i], 0.6, 0.5, 0.7, {VGG[i]: 1.0}) for i in range(8)]
    parameters = {name: rng.uniform(0.1, 1, 20) for name in ("a", "b", "c", "d", "e")}
    labels = [f"unit {i}" for i in range(40)]
    for figure in (
        learning_curves(trials(), width=width),
        slices(parameters, rng.random(20), log=["b"], width=width),
        best_layers(entries, VGG, width=width),
        masks(rng.random((40, 7, 7)), labels, width=width),
    ):
        no_overlaps(figure)
        millimetres = figure.get_size_inches()[0] * 25.4
        assert millimetres == pytest.approx({"single": 85, "double": 180}[width])


def test_masks_with_fields_in_cells(no_overlaps) -> None:
    five = np.array([[2.0, 3.0, 1.5, 1.0, 0.0], [np.nan] * 5])
    figure = masks(rng.random((2, 7, 9)), ["a", "b"], ellipses=five)
    no_overlaps(figure)
    (ellipse,) = figure.findobj(Ellipse)
    assert tuple(ellipse.center) == (2.0, 3.0)
    assert "Gaussian fitted to the map" in texts(figure)
    assert "receptive field" not in texts(masks(rng.random((2, 7, 9)), ["a", "b"]))


def test_a_sliver_of_a_field_is_flagged() -> None:
    five = np.array([[3.0, 3.0, 2.0, 1.0, 0.0], [3.0, 3.0, 2.0, 0.1, 0.0]])
    figure = masks(np.ones((2, 7, 7)), ["a", "b"], ellipses=five)
    lines = [axes.patches[-1].get_linestyle() for axes in figure.axes]
    assert lines[0] != lines[1]
    assert "dashed: 1 sliver" in texts(figure)
    assert "sliver" not in texts(masks(np.ones((1, 7, 7)), ["a"], ellipses=five[:1]))


def test_a_line_that_leaves_the_map_is_not_drawn() -> None:
    five = np.array([[3.0, 3.0, 2.0, 1.0, 0.0], [3.0, 9.0, 20.0, 9.0, 30.0], [np.nan] * 5])
    figure = masks(np.ones((3, 7, 7)), ["a", "b", "c"], what="masks", ellipses=five)
    assert len(figure.findobj(Ellipse)) == 1
    written = texts(figure)
    assert "masks on 7" in written
    assert "no line in 1 of 3: most of it would lie outside" in written
    assert np.isfinite(five[1]).all()
    assert "one sd" not in texts(masks(np.ones((1, 7, 7)), ["b"], ellipses=five[1:2]))


def test_receptive_field_angle_is_as_seen() -> None:
    figure = receptive_fields(np.ones((1, 9, 9)), ["u"], ellipses=[[4, 4, 3, 1, 45.0]])
    (ellipse,) = figure.findobj(Ellipse)
    axes = figure.axes[0]
    tip = axes.transData.transform(ellipse.get_co_vertices() + ellipse.get_vertices())
    centre = axes.transData.transform((4, 4))
    far = max(tip - centre, key=lambda point: abs(point).sum())
    assert far[0] * far[1] > 0  # up to the right, or down to the left, on the page


@pytest.mark.parametrize("count", [1, 3, 43])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_sheet(no_overlaps, count: int, theme: str) -> None:
    images = rng.random((count, 16, 16, 3))
    labels = [f"<script>{i}$\\frac" for i in range(count)]
    figure = sheet(
        images, labels, notes=["1.23"] * count, sub="seed 0", simulated=True, theme=theme
    )
    no_overlaps(figure)
    assert len(figure.axes) == count


def test_sheet_shows_images_as_they_are() -> None:
    images = np.full((1, 4, 4, 3), 0.25)
    shown = sheet(images, ["u"]).axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown, images[0])
    for wrong in (images + 1, np.full_like(images, np.nan), images[..., 0]):
        with pytest.raises(ValueError, match="images must"):
            sheet(wrong, ["u"])


def test_scatter(no_overlaps) -> None:
    x = rng.random(90)
    y = x + 0.1
    y[5] = np.nan
    regions = [f"region {i % 7}" for i in range(90)]
    figure = unit_scatter(x, y, names=("full", "factorized"), regions=regions, simulated=True)
    no_overlaps(figure)
    said = texts(figure)
    assert "89 units" in said
    assert "1 undefined" in said
    assert "better for 89 (100%, 95% interval 96% to 100%)" in said
    assert "optimistic" in texts(
        unit_scatter(x, y, names=("a", "b"), metric="validation_correlation")
    )
    worse = unit_scatter(x, y, names=("a", "b"), metric="validation_loss")
    assert "b better for 0 (0%" in texts(worse)
    assert "surely" not in said + texts(worse)
    sure = unit_scatter(x, y, names=("a", "b"), surely=(12, 3))
    assert "by validation loss surely better for 12, surely worse for 3" in texts(sure)
    with pytest.raises(InputError, match="valid"):
        unit_scatter(x, y, names=("a", "b"), metric="nothing")


@pytest.mark.parametrize(
    "regions", [["V1", "V4", "IT"], [str(i) for i in range(15)], ["a long region"]]
)
@pytest.mark.parametrize("metric", ["test_correlation", "feve", "validation_loss"])
def test_best_layers(no_overlaps, regions, metric: str) -> None:
    entries = [
        BestLayer(region, readout, VGG[i], 0.6, 0.5, np.nan, {VGG[i]: 0.7, VGG[i + 1]: 0.3}, 0.9)
        for i, region in enumerate(regions)
        for readout in ("full", "factorized")
    ]
    figure = best_layers(entries, VGG, metric=metric, simulated=True)
    no_overlaps(figure)
    assert ("ceiling" in texts(figure)) == (metric == "test_correlation")
    with pytest.raises(ValueError, match="not in layers"):
        best_layers(entries, VGG[3:])
    assert "none:" not in texts(figure)
    noise = [BestLayer("noise", readout, NO_LAYER, np.nan) for readout in ("full", "factorized")]
    figure = best_layers([*entries, *noise], VGG, metric=metric, simulated=True)
    no_overlaps(figure)
    assert "none: no fit is surely better than predicting the mean" in texts(figure)
    assert texts(figure).count("none") == 3  # and one in the place of each layer


def test_how_far_the_next_layer_is_behind(no_overlaps) -> None:
    """Not drawn as a score, and dots have a key of their sizes."""
    shares = {VGG[1]: 0.6, VGG[2]: 0.4}
    entries = [BestLayer("V4", "full", VGG[1], 0.02, -0.01, 0.05, shares, 0.9)]
    figure = best_layers(entries, VGG, metric=NEXT)
    no_overlaps(figure)
    above = figure.axes[0]
    assert "loss" in above.get_ylabel()
    assert above.get_ylim()[0] < 0
    assert any(set(line.get_ydata()) == {0.0} for line in above.lines)  # what bars are held against
    assert "a bar that reaches 0: undecided" in texts(figure)
    assert "ceiling" not in texts(figure)
    for shown in (figure, best_layers(entries, VGG)):
        assert "50%" in texts(shown)
        small, middle, large = (
            dot.get_markersize() for dot in shown.artists if isinstance(dot, Line2D)
        )
        assert large / small == pytest.approx(10**0.5)
        assert large / middle == pytest.approx(2**0.5)
    assert "50%" not in texts(best_layers([BestLayer("V4", "full", VGG[1], 0.5)], VGG))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(
    ("metric", "value", "low", "high"),
    [
        (NEXT, 0.031, -0.015, 0.077),
        (NEXT, 0.2, 0.1, 0.9),
        ("feve", 0.4, -0.1, 0.62),
        ("test_correlation", 0.031, -0.012, 0.07),
        ("validation_loss", 0.41, 0.402, 0.42),
    ],
)
def test_what_stands_beside_the_axis_has_room(
    no_overlaps, theme, width, metric, value: float, low: float, high: float
) -> None:
    """However short the layers' names are."""
    entries = [BestLayer("B", "smooth", "a", value, low, high, {"a": 0.9, "b": 0.1})]
    no_overlaps(best_layers(entries, ["a", "b"], metric=metric, theme=theme, width=width))


def test_shares_of_draws_of_one_cut_are_not_taken_for_sureness() -> None:
    entries = [BestLayer("B", "smooth", "a", 0.4, 0.3, 0.5, {"a": 1.0})]
    one, several = (texts(best_layers(entries, ["a", "b"], metric=m)) for m in ("feve", NEXT))
    assert ONE_CUT in one
    assert DECIDE not in one
    assert DECIDE in several
    assert ONE_CUT not in several
    assert ONE_CUT not in texts(best_layers([BestLayer("B", "full", "a", 0.4)], ["a", "b"]))


def test_regions_of_an_area_stand_together_under_its_name(no_overlaps) -> None:
    entries = [BestLayer(region, "full", VGG[1], 0.5) for region in ("1", "3", "2", "4")]
    groups = {"1": "V4", "2": "V4", "3": "IT", "4": "IT"}
    figure = best_layers(entries, VGG, groups=groups)
    no_overlaps(figure)
    above, below = figure.axes
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "2", "3", "4"]
    named = {text.get_text(): text.get_position()[0] for text in above.texts}
    assert named == {"V4": 0.5, "IT": 2.5}
    own = best_layers(entries, VGG, groups={region: region for region in groups})
    assert not own.axes[0].texts


def test_saved_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from tuner.figures.style import save\n"
        "from tuner.figures.curves import learning_curves\n"
        "from tuner.figures.trials import TrialCurve\n"
        "c = [TrialCurve(i, [1, 2, 3], [1, .8, .7 + i / 10]) for i in range(5)]\n"
        "save(learning_curves(c), sys.argv[1])\n"
    )
    for name, seed in (("one.v1", "1"), ("two.v1", "2")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": ""}
        environment.pop("SOURCE_DATE_EPOCH")
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], check=True, env=environment
        )
    for kind in ("png", "svg"):
        one, two = (tmp_path / f"{name}.v1.{kind}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert len(one.read_bytes()) > 1000


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    png, svg = style.save(learning_curves(trials(3)), tmp_path / "a.b")
    assert (png.name, svg.name) == ("a.b.png", "a.b.svg")
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or "pyplot" not in style.__dict__


def test_names_in_any_script_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save(sheet(np.zeros((1, 4, 4, 3)), ["視覚野\n\x07"]), tmp_path / "a")


def test_the_overlap_check_sees_overlaps() -> None:
    figure = style.new_figure(2, 1, style.theme_named("light"))
    figure.text(0.1, 0.5, "one text")
    figure.text(0.15, 0.5, "another")
    figure.text(0.95, 0.1, "cut off")
    assert overlaps(figure) == [("one text", "another"), ("cut off", "(page)")]
    assert edges_with_ink(figure) == ["right"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.834, ".83"),
        (1, "1.00"),
        (-0.126, "\N{MINUS SIGN}.13"),
        (-0.001, ".00"),
        (12.4, "12"),
        (9.999, "10"),
        (1e9, ">999"),
        (np.nan, "\N{EN DASH}"),
        (np.inf, "\N{EN DASH}"),
    ],
)
def test_numbers_are_short(value: float, written: str) -> None:
    assert short(value) == written


def test_long_names_keep_both_ends() -> None:
    assert clean("a" * 30 + "b" * 30, 11) == "aaaaa\N{HORIZONTAL ELLIPSIS}bbbbb"
    assert clean("short") == "short"
    assert "\n" not in clean("a\nb")
