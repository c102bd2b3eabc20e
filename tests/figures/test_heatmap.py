"""The heatmap: what it shows, what it must not, and that it can be read at any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

from tests.figures.conftest import AREAS, ARRAYS, INCEPTION, VGG, study_rows
from tuner.errors import InputError
from tuner.figures import style
from tuner.figures.cells import CORNER
from tuner.figures.heatmap import heatmap
from tuner.figures.panels import best_layers, choose_metric, panels, region_order, scale

SMALL = {"lite": ["_blocks.0", "_blocks.2", "_blocks.4"]}
REGIONS = ["V1", "V4", "IT"]


def texts(figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(Text) if artist.get_text()]


def hatched(figure) -> list[Rectangle]:
    # the legend's own sample is one inch-wide axes of unit size, at the end
    return [box for box in figure.findobj(Rectangle) if box.get_hatch()]


@pytest.mark.parametrize(("theme", "metric"), [("light", None), ("dark", "validation_loss")])
def test_full_size_is_legible(no_overlaps, theme, metric) -> None:
    rows = study_rows({"vgg19": VGG, "inceptionv1": INCEPTION}, ARRAYS, failing=0.03)
    assert len(rows) == 840
    figure = heatmap(rows, groups=AREAS, theme=theme, metric=metric)
    no_overlaps(figure)
    width, height = figure.get_size_inches()
    assert width < 12
    assert height < 9
    assert min(t.get_fontsize() for t in figure.findobj(Text)) >= 5.5


@pytest.mark.parametrize("regions", [["V1"], REGIONS, ["primary visual cortex", "$x$", "<script>"]])
@pytest.mark.parametrize("readouts", [("full",), ("full", "factorized")])
def test_small_ones_are_legible(no_overlaps, regions, readouts) -> None:
    rows = study_rows({"a backbone with a long alias": ["_blocks.0"]}, regions, readouts)
    figure = heatmap(rows, simulated=True)
    no_overlaps(figure)
    assert any("simulated recording" in text for text in texts(figure))


def test_simulated_is_said_only_where_it_is() -> None:
    rows = study_rows(SMALL, REGIONS)
    assert not any("simulated" in text for text in texts(heatmap(rows)))


def test_values_are_written_and_ceilings_stand_beside() -> None:
    rows = study_rows(SMALL, REGIONS, ("full",))
    written = texts(heatmap(rows))
    for row in rows:
        assert f"{row['test_correlation']:.2f}"[1:] in written
    assert written.count("ceiling") == 1
    assert {".90", ".88", ".86"} <= set(written)


def test_without_test_images_the_figure_says_what_it_is_worth() -> None:
    rows = study_rows(SMALL, REGIONS, test=False)
    written = " ".join(texts(heatmap(rows)))
    assert "validation, selected on, optimistic" in written
    assert "no test set" in written
    assert "ceiling" not in written
    with_test = " ".join(texts(heatmap(study_rows(SMALL, REGIONS))))
    assert "optimistic" not in with_test


def test_failed_fits_are_hatched_and_have_a_number_without_colour() -> None:
    rows = study_rows(SMALL, REGIONS, ("full",))
    rows[4]["fit_failed"] = True
    rows[4]["test_correlation"] = 0.999
    figure = heatmap(rows)
    assert len(hatched(figure)) == 2  # the cell and the legend's sample
    assert "1.00" in texts(figure)
    face = [p.get_facecolor() for p in hatched(figure)]
    assert face == [to_rgba(style.theme_named("light").empty)] * 2
    assert "not surely better than predicting the mean (held-out" in " ".join(texts(figure))
    assert not hatched(heatmap(study_rows(SMALL, REGIONS)))


def test_studies_below_their_closed_form_have_a_corner(no_overlaps) -> None:
    rows = study_rows(SMALL, REGIONS, ("full", "smooth"))
    legend = "higher validation loss than the closed form (smooth) of the same layer and region"
    assert legend not in " ".join(texts(heatmap(rows)))
    for place, value in enumerate((True, "true", False, "", True)):
        rows[place]["below_smooth"] = value
    rows[4]["fit_failed"] = True  # hatched, and no more is said of it
    figure = heatmap(rows)
    no_overlaps(figure)
    assert legend in " ".join(texts(figure))
    marks = [p for p in figure.findobj(Polygon) if p.get_xy().shape == (4, 2)]
    assert len(marks) == 3  # two cells and the legend's sample
    for mark in marks:  # all of one size, whatever the cell's
        corners = mark.get_transform().transform(mark.get_xy()) / figure.dpi
        assert np.ptp(corners, axis=0) == pytest.approx([CORNER, CORNER], rel=1e-6)


def test_a_study_without_a_fit_is_empty_and_explained() -> None:
    rows = study_rows(SMALL, REGIONS, ("full",))
    kept = texts(heatmap(rows))
    rows[3] |= {"validation_loss": None, "test_correlation": None, "n_trials": 0}
    assert "no finished fit" not in kept
    assert "no finished fit" in texts(heatmap(rows))
    assert "no finished fit" in texts(heatmap(study_rows(SMALL, REGIONS, ("full",))[:-1]))


def test_only_places_that_can_hold_a_fit_are_drawn(no_overlaps) -> None:
    """A stack is of no layer and the best of nothing; a closed form beside the studies is not awaited."""
    rows = study_rows(SMALL, REGIONS)
    stacks = [
        row | {"layer": "stacked", "layer_index": 9, "readout": "stacked"}
        for row in study_rows(SMALL, REGIONS, ("full",))[:3]
    ]
    ridge = [row | {"readout": "ridge"} for row in rows[:2]]
    figure = heatmap([*rows, *stacks], references=ridge)
    no_overlaps(figure)
    assert "no finished fit" not in texts(figure)
    (line,) = panels([*rows, *stacks], ridge)
    assert {panel.readout: len(panel.places) for panel in line} == {
        "full": 9,
        "factorized": 9,
        "stacked": 3,
        "ridge": 2,
    }
    assert not next(panel.best for panel in line if panel.readout == "stacked")
    awaited = [*rows[:-1], *stacks]
    assert "no finished fit" in texts(heatmap(awaited, references=ridge))


def test_an_undefined_score_is_a_dash_and_explained() -> None:
    rows = study_rows(SMALL, REGIONS, ("full",))
    rows[0]["test_correlation"] = math.nan
    written = texts(heatmap(rows))
    assert "\N{EN DASH}" in written
    assert any("undefined" in text for text in written)


def test_best_layer_is_by_validation_loss_among_fits_that_did_not_fail() -> None:
    rows = study_rows(SMALL, ["V1"], ("full",))
    for row, loss, score in zip(rows, (0.5, 0.4, 0.3), (0.9, 0.1, 0.2), strict=True):
        row["validation_loss"], row["test_correlation"] = loss, score
    assert best_layers(rows) == {"V1": "_blocks.4"}
    rows[2]["fit_failed"] = True
    assert best_layers(rows) == {"V1": "_blocks.2"}
    rows[1]["validation_loss"] = 0.5
    assert best_layers(rows[::-1]) == {"V1": "_blocks.0"}  # a tie goes to the shallower
    assert best_layers([row | {"validation_loss": None} for row in rows]) == {}
    assert best_layers([row | {"fit_failed": True} for row in rows]) == {}  # of noise none is best


def test_panels_share_layers_in_depth_order_and_one_scale() -> None:
    rows = study_rows(SMALL, REGIONS)
    shuffled = rows[::-1]
    grid = panels(shuffled)
    assert [[panel.readout for panel in line] for line in grid] == [["factorized", "full"]]
    assert grid[0][0].layers == ("_blocks.0", "_blocks.2", "_blocks.4")
    metric = choose_metric(rows, None)
    highest = max([row["test_correlation"] for row in rows] + [0.9])
    assert scale(rows, metric, ceiling=True) == (0.0, math.ceil(highest * 10) / 10)
    assert scale(rows, choose_metric(rows, "validation_loss"), ceiling=False)[1] == 1.0


def test_regions_of_an_area_stand_together() -> None:
    rows = study_rows(SMALL, ["1", "9", "2"])
    assert region_order(rows, {"1": "V1", "2": "V1", "9": "V4"}) == ("1", "2", "9")
    assert region_order(rows) == ("1", "9", "2")


def test_references_are_panels_of_their_own() -> None:
    rows = study_rows(SMALL, REGIONS)
    ridge = study_rows(SMALL, REGIONS, ("ridge",))
    written = texts(heatmap(rows, references=ridge))
    assert "lite \N{MIDDLE DOT} ridge" in written


def test_a_panel_of_nothing_is_left_out_and_of_one_region_is_no_wider_than_its_names(
    no_overlaps,
) -> None:
    both = {"a network with a name": ["a", "b"], "another one of a name": ["a", "b"]}
    rows = study_rows(both, ["V4"])
    beside = [row | {"readout": "ridge (random weights)"} for row in rows[:2]]
    figure = heatmap(rows, references=beside)
    no_overlaps(figure)
    assert texts(figure).count("ridge (random weights)") == 1  # not beside the other network
    assert "no finished fit" not in texts(figure)
    assert texts(figure).count("a network with a name") == 3  # over the readout, not beside it
    assert figure.get_size_inches()[0] < 6.5
    assert "beside: ridge, in closed form on the same networks" in " ".join(texts(figure))


def test_unknown_metric_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match="test_correlation_normalized"):
        heatmap(study_rows(SMALL, REGIONS), metric="r")
    with pytest.raises(ValueError, match="no studies"):
        heatmap([])


def test_a_layer_that_stands_alone_is_not_called_the_best() -> None:
    rows = study_rows(SMALL, REGIONS)
    said = "best of the layers shown, by validation loss"
    assert said in texts(heatmap(rows))
    alone = [row for row in rows if row["layer"] == "_blocks.2"]
    assert all(not panel.best for line in panels(alone) for panel in line)
    assert said not in texts(heatmap(alone))
