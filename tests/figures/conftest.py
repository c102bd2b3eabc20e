"""Fixtures of the figures: tables of studies, and a check that no text is cut or covered."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Find texts that touch one another or leave the page: a check that figures are held by.

    Returns
    -------
    list of tuple
        Pairs of texts that overlap; the second is ``"(page)"`` for one that is cut off.
    """
    with mpl.rc_context({"text.hinting": "no_hinting"}):  # as files are written
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    unused = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for drawn in [set(axis._update_ticks()) if axes.axison else set()]
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        if tick not in drawn
        for label in (tick.label1, tick.label2)
    }
    names: list[str] = []
    boxes: list[tuple[float, ...]] = []
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if artist in unused or not artist.get_visible() or not artist.get_text().strip():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names.append(artist.get_text())
            boxes.append(artist.get_window_extent(renderer).extents)
    left, bottom, right, top = np.array(boxes).reshape(-1, 4).T
    out = (left < page.x0) | (bottom < page.y0) | (right > page.x1) | (top > page.y1)
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    down = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
    height = np.minimum.outer(top - bottom, top - bottom)
    # a text's box has room for ascenders and descenders that its letters may not use
    touching = np.triu((across > 0.5) & (down > 0.35 * height), 1)
    pairs = [(names[i], names[j]) for i, j in np.argwhere(touching)]
    return pairs + [(names[i], "(page)") for i in np.flatnonzero(out)]


def edges_with_ink(figure: Figure) -> list[str]:
    """Edges of a figure that was drawn whose outermost row or column of pixels is not all paper."""
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    paper = np.rint(255 * np.array(figure.get_facecolor()[:3]))
    edges = {"left": pixels[:, 0], "right": pixels[:, -1], "top": pixels[0], "bottom": pixels[-1]}
    return [name for name, line in edges.items() if np.abs(line - paper).max() > 1]


@pytest.fixture
def no_overlaps() -> Callable[[Figure], None]:
    """Return a check that no text of a figure is cut off or covers another, and nothing reaches its edge."""

    def check(figure: Figure) -> None:
        assert overlaps(figure) == []
        assert edges_with_ink(figure) == []

    return check


def study_rows(
    backbones: dict[str, Sequence[str]],
    regions: Sequence[str],
    readouts: Sequence[str] = ("full", "factorized"),
    *,
    test: bool = True,
    failing: float = 0.0,
    seed: int = 0,
) -> list[dict]:
    """Return a heatmap table in which the best layer deepens from the first region to the last."""
    rng = np.random.default_rng(seed)
    rows = []
    for backbone, layers in backbones.items():
        for readout in readouts:
            for index, layer in enumerate(layers):
                for column, region in enumerate(regions):
                    wanted = (column + 0.5) / len(regions) * len(layers)
                    score = 0.8 * np.exp(-(((index - wanted) / (0.5 * len(layers))) ** 2))
                    score += rng.normal(0, 0.02)
                    bad = bool(rng.random() < failing)
                    ceiling = 0.9 - 0.02 * column
                    rows.append(
                        {
                            "backbone": backbone,
                            "layer": layer,
                            "layer_index": index,
                            "region": region,
                            "readout": readout,
                            "n_units": 30,
                            "n_trials": 50,
                            "validation_loss": 1.02 if bad else 1 - score**2,
                            "validation_correlation": score,
                            "test_correlation": score if test else None,
                            "test_correlation_normalized": score / ceiling if test else None,
                            "feve": score**2 - 0.1 if test else None,
                            "noise_ceiling": ceiling if test else None,
                            "n_units_with_ceiling": 28 if test else None,
                            "fit_failed": bad,
                        }
                    )
    return rows


VGG = [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)]
INCEPTION = [f"mixed{i}" for i in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
INCEPTION = ["conv2d0", "conv2d1", "conv2d2", *INCEPTION]
ARRAYS = [str(i) for i in range(1, 17) if i != 6]
AREAS = {a: "V1" if int(a) < 9 else "V4" if int(a) < 13 else "IT" for a in ARRAYS}
