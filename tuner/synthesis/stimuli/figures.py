"""Figures of the closed loop: predicted against measured, own against natural image, who responds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tuner.figures import style
from tuner.figures.captions import in_units
from tuner.figures.metrics import clean
from tuner.figures.tiles import tiles
from tuner.synthesis.stimuli.answers import Answers
from tuner.synthesis.stimuli.choice import KINDS
from tuner.synthesis.stimuli.manifest import Folder
from tuner.synthesis.stimuli.score import Scores
from tuner.synthesis.stimuli.summary import said

LABELS = {
    "mei": "own image",
    "natural_best": "best natural",
    "natural_worst": "worst natural",
    "mei_other": "other units'",
    "noise": "noise",
    "scrambled": "own, scrambled",
    "patch": "patch",
    "patch_scrambled": "patch, scrambled",
    "grey": "grey",
}
_MARKS = dict(zip(KINDS, "Dos^v<Pp*", strict=True))
MOST = 36
"""Units in a figure of tiles; the best predicted ones where there are more."""


def predicted_against_measured(
    folder: Folder,
    answers: Answers,
    scores: Scores,
    encoder: str,
    *,
    theme: style.ThemeName = "light",
) -> Figure:
    """Draw measured against predicted responses, a tile per unit and a mark per image; both axes of a tile are the same."""
    colours = style.theme_named(theme)
    rows = [row for row in scores.prediction if row["encoder"] == encoder]
    rows.sort(key=lambda row: -np.nan_to_num(row["test_correlation"], nan=-2.0))
    left_out = len(rows) - MOST
    rows = sorted(rows[:MOST], key=lambda row: int(row["unit"]))
    predicted, units = folder.predictions[encoder], folder.units[encoder]
    column_of = {int(unit): k for k, unit in enumerate(answers.units)}
    kinds = np.array([row["kind"] for row in folder.rows])
    targets = np.array([row["unit"] for row in folder.rows])

    def responses(unit: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of a unit to every image, predicted and measured."""
        column = int(np.flatnonzero(units == unit)[0])
        return predicted[:, column], scores.measured[:, column_of[unit]]

    ends = [_extent(*responses(int(row["unit"]))) for row in rows]

    def draw(axes: Axes, index: int) -> None:
        unit = int(rows[index]["unit"])
        x, y = responses(unit)
        own = targets == unit
        limits = ends[index]
        axes.plot(limits, limits, color=colours.muted, lw=0.6, ls=(0, (4, 3)), zorder=0)
        axes.plot(x[~own], y[~own], "o", ms=1.6, mew=0, color=colours.faint, zorder=1)
        for number, kind in enumerate(KINDS):
            part = (kinds == kind) & (own | (kind == "grey"))
            axes.plot(
                x[part],
                y[part],
                _MARKS[kind],
                ms=3.2,
                mew=0.3,
                mec=colours.paper,
                color=colours.series[number % len(colours.series)],
                zorder=2,
            )
        margin = 0.06 * (limits[1] - limits[0])
        axes.set(xlim=(limits[0] - margin, limits[1] + margin))
        axes.set(ylim=axes.get_xlim(), box_aspect=1)
        for spine in axes.spines.values():
            spine.set_color(colours.muted)
        axes.spines[["top", "right"]].set_visible(False)

    labels = [
        (
            clean(f"{row['unit']} {row['name']}"),
            f"r {row['test_correlation']:.2f} ({row['noise_ceiling']:.2f})"
            if np.isfinite(row["noise_ceiling"])
            else f"r {row['test_correlation']:.2f} (none)",
            f"{low:.3g} to {high:.3g}",
        )
        for row, (low, high) in zip(rows, ends, strict=True)
    ]
    sub = (
        "across: predicted, up: measured response, on the same scale "
        f"{in_units(folder.measured_in(encoder))} (below: from where to where); "
        "dashed: as predicted; pale dots: images for other units; correlation r over the images (its ceiling); "
        f"{len(scores.measured)} images, "
        f"{scores.repeats} repeat{'s' * (scores.repeats != 1)}"
    )
    made = any(row["kind"] == "mei" and row["study"] == encoder for row in folder.rows)
    sub += "; this encoder made images that are shown" if made else "; no image was made with it"
    if left_out > 0:
        sub += f"; the {MOST} best predicted of {MOST + left_out} units"
    figure, top = tiles(
        labels,
        draw,
        shape=(1, 1),
        title=f"Predicted and measured: {clean(encoder, 60)}",
        sub=style.subtitle(folder.about(encoder), sub, simulated=folder.simulated),
        theme=colours,
        foot=0.45,
    )
    present = [kind for kind in KINDS if (kinds == kind).any()]
    _legend(figure, present, top + 0.05, colours)
    return figure


def _extent(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Least and greatest of both."""
    both = np.concatenate([x, y])
    there = both[np.isfinite(both)]
    if not there.size:
        return 0.0, 1.0
    low, high = float(there.min()), float(there.max())
    return low, high if high > low else low + 1.0


def _legend(figure: Figure, kinds: Sequence[str], top: float, theme: style.Theme) -> None:
    width, height = figure.get_size_inches()
    step = 1.02
    across = max(1, int((width - 0.2) / step))
    for index, kind in enumerate(kinds):
        row, column = divmod(index, across)
        left, level = 0.15 + column * step, top + 0.16 * row
        figure.add_artist(
            Line2D(
                [left / width],
                [1 - (level + 0.05) / height],
                marker=_MARKS[kind],
                markersize=4,
                markeredgewidth=0,
                linestyle="",
                color=theme.series[KINDS.index(kind) % len(theme.series)],
            )
        )
        style.write(figure, left + 0.08, level, LABELS[kind], fontsize=style.SMALL)


def own_against_natural(
    folder: Folder, scores: Scores, study: str, *, theme: style.ThemeName = "light"
) -> Figure:
    """Draw each unit's response to its own image against that to its best natural image.

    Responses are given less the response to grey, in units of the standard deviation of the unit's
    responses over all images; bars are confidence intervals of the paired difference.
    """
    colours = style.theme_named(theme)
    rows = [row for row in scores.preference if row["study"] == study]
    x, y, low, high = (np.full(len(rows), np.nan) for _ in range(4))
    for k, row in enumerate(rows):
        spread = row["response_sd"]
        if row["difference"] is None or not spread > 0:
            continue
        base = row["response_grey"] if np.isfinite(row["response_grey"]) else 0.0
        x[k] = (row["response_natural_best"] - base) / spread
        y[k] = x[k] + row["difference"] / spread
        low[k], high[k] = (
            x[k] + row[name] / spread for name in ("difference_low", "difference_high")
        )
    there = np.isfinite(x) & np.isfinite(y)
    summary = next(row for row in scores.summary if row["study"] == study)
    repeats = f"bars: 95 % interval of own less natural over {scores.repeats} repeats (Student's t)"
    if scores.repeats < 2:
        repeats = "one response to each image, so no intervals"
    sub = style.subtitle(folder.about(study), said(summary), repeats, simulated=folder.simulated)
    heading = f"Own image and best natural image: {clean(study, 60)}"
    side, width = 2.55, style.COLUMN
    with style.styled(colours):
        top = style.head_height(heading, sub, width) + 0.12
        figure = style.new_figure(width, top + side + 0.5, colours)
        style.head(figure, heading, sub, colours)
        axes = style.place(figure, 0.6, top, side, side)
        ends = _ends(
            np.concatenate([x[there], y[there]]), np.concatenate([low[there], high[there]])
        )
        margin = 0.06 * max(ends[1] - ends[0], 1e-3)
        limits = (min(ends[0], 0.0) - margin, ends[1] + margin)
        axes.plot(limits, limits, color=colours.muted, lw=0.6, ls=(0, (4, 3)))
        axes.vlines(x, low, high, color=colours.series[0], lw=0.6, alpha=0.6)
        axes.plot(x, y, "o", ms=3, mew=0, color=colours.series[0])
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.locator_params(nbins=5)
        axes.set_xlabel("best natural image (sd over grey)")
        axes.set_ylabel("own image (sd over grey)")
    return figure


def _ends(points: NDArray[np.float64], limits: NDArray[np.float64]) -> tuple[float, float]:
    """Of an axis: all points, and what there is of their intervals within as much space again on either side."""
    if not points.size:
        return 0.0, 1.0
    least, most = float(points.min()), float(points.max())
    space = max(most - least, 1.0)
    seen = np.clip(limits[np.isfinite(limits)], least - space, most + space)
    return float(seen.min(initial=least)), float(seen.max(initial=most))


def who_responds(
    folder: Folder, scores: Scores, study: str, *, theme: style.ThemeName = "light"
) -> Figure | None:
    """Draw the units' responses to one another's images; None where there are fewer than two."""
    found = scores.selectivity.get((study, "mei"))
    if found is None:
        return None
    colours = style.theme_named(theme)
    n = len(found.units)
    names = folder.unit_names()
    labels = [clean(names.get(int(unit), str(unit)), 12) for unit in found.units]
    summary = next(row for row in scores.summary if row["study"] == study)
    natural = summary["selectivity_natural"]
    against = f", best natural images {natural:.2f}" if np.isfinite(natural) else ""
    sub = style.subtitle(
        folder.about(study),
        f"softmax share of the own unit {summary['selectivity']:.2f}{against}, "
        f"chance {summary['selectivity_chance']:.2f}",
        f"own unit responds most for {summary['most_driven_is_target']:.0%}",
        f"z: over the unit's responses to all images, means of {scores.repeats} repeats"
        if scores.repeats > 1
        else "z: over the unit's responses to all images, one each",
        simulated=folder.simulated,
    )
    heading = f"Who responds to whose image: {clean(study, 60)}"
    label = style.widest(labels, style.TINY) + 0.1
    cell = min(0.3, 3.6 / n)
    side = max(cell * n, 1.2)
    width = max(style.COLUMN, 0.35 + label + side + 0.75)
    with style.styled(colours):
        top = style.head_height(heading, sub, width) + 0.15
        figure = style.new_figure(width, top + side + label + 0.3, colours)
        style.head(figure, heading, sub, colours)
        left = 0.3 + label
        axes = style.place(figure, left, top, side, side)
        limit = float(np.nanmax(np.abs(found.z))) or 1.0
        image = axes.imshow(
            found.z, cmap=f"{style.DIVERGING}_r", vmin=-limit, vmax=limit, aspect="equal"
        )
        ticks = range(n) if cell >= 0.085 else range(0, n, int(np.ceil(0.085 / cell)))
        axes.set_xticks(list(ticks), [labels[k] for k in ticks], rotation=90, fontsize=style.TINY)
        axes.set_yticks(list(ticks), [labels[k] for k in ticks], fontsize=style.TINY)
        axes.tick_params(length=0, pad=2)
        axes.set_xlabel("unit", fontsize=style.SMALL)
        axes.set_ylabel("image made for", fontsize=style.SMALL)
        bar = style.place(figure, left + side + 0.12, top, 0.09, min(side, 1.4))
        figure.colorbar(image, cax=bar)
        bar.tick_params(length=1.5, labelsize=style.TINY)
        bar.set_title("z", fontsize=style.TINY)
    return figure
