"""Many small pictures on one page, each under its label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.figures import style
from tuner.figures.metrics import clean

MARGIN = 0.1
GAP = 0.08
CAPTION = 0.13


def fit_caption(text: str, width: float, size: float = style.TINY) -> str:
    """Return a caption that fits a width in inches, its middle cut where it is too long."""
    short = clean(text, 60)
    limit = len(short)
    while limit > 3 and style.text_width(short, size) > width:
        limit -= 1
        short = clean(text, limit)
    return short


def tiles(
    labels: Sequence[Sequence[str]],
    draw: Callable[[Axes, int], None],
    *,
    shape: tuple[int, int],
    title: str,
    sub: str,
    theme: style.Theme,
    columns: int | None = None,
    foot: float = 0.0,
    width: style.WidthName | None = None,
) -> tuple[Figure, float]:
    """Lay out one tile per label and draw each.

    Parameters
    ----------
    labels
        Lines of text under each tile.
    draw
        Called with the axes and the index of each tile.
    shape
        Height and width of a picture, in any unit: sets the tiles' aspect.
    title, sub
        Title of the page, and the line below it.
    theme
        ``"light"`` or ``"dark"``.
    columns
        Tiles side by side; None: as many as make a page that is not too tall.
    foot
        Inches left free below.
    width
        ``"single"`` or ``"double"`` column of a journal; None: as the number of tiles asks for.

    Returns
    -------
    figure, top
        And where, in inches from the top, the free space begins.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    if not labels:
        raise ValueError("no pictures to draw")
    count = len(labels)
    least, most = {None: (4, 12), "single": (4, 5), "double": (6, 12)}[width]
    across = columns or min(count, max(least, math.ceil(math.sqrt(count * 1.3))), most)
    wide = style.width_named(width, style.COLUMN if across <= 4 else style.PAGE)
    side = min((wide - 2 * MARGIN - GAP * (across - 1)) / across, 1.2)
    tall = side * shape[0] / shape[1]
    captions = max(len(lines) for lines in labels) * CAPTION
    rows = math.ceil(count / across)
    with style.styled(theme):
        top = style.head_height(title, sub, wide, MARGIN) + 0.1
        used = rows * (tall + captions + GAP)
        figure = style.new_figure(wide, top + used + foot + 0.05, theme)
        style.head(figure, title, sub, theme, MARGIN)
        for index, lines in enumerate(labels):
            row, column = divmod(index, across)
            left = MARGIN + column * (side + GAP)
            level = top + row * (tall + captions + GAP)
            axes = style.place(figure, left, level, side, tall)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(visible=True, color=theme.faint, linewidth=0.5)
            draw(axes, index)
            for number, line in enumerate(lines):
                style.write(
                    figure,
                    left + side / 2,
                    level + tall + 0.025 + number * CAPTION,
                    fit_caption(line, side),
                    ha="center",
                    fontsize=style.TINY,
                    color=theme.ink if number == 0 else theme.muted,
                )
    return figure, top + used
