"""Sizes, fonts and colours of every figure, and how one becomes files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from tuner.atomic import write_bytes
from tuner.figures.metrics import MINUS, SIMULATED

ThemeName = Literal["light", "dark"]
WidthName = Literal["single", "double"]

COLUMN = 85 / 25.4
"""Width of a journal's column, inches."""
PAGE = 180 / 25.4
"""Width of two columns, inches."""
WIDTHS: dict[str, float] = {"single": COLUMN, "double": PAGE}

TINY, SMALL, NORMAL, LARGE = 5.5, 6.5, 7.0, 8.5  # points
SEQUENTIAL = "viridis"  # even in lightness, so it survives colour blindness and grey print
DIVERGING = "PuOr"
DPI = 300


@dataclass(frozen=True)
class Theme:
    """Colours of one appearance; the categorical ones are Okabe and Ito's."""

    paper: str
    ink: str
    muted: str
    faint: str
    empty: str
    accent: str
    series: tuple[str, ...]


THEMES: dict[str, Theme] = {
    "light": Theme(
        paper="#ffffff",
        ink="#1a1a1a",
        muted="#5c6066",
        faint="#d5d8dc",
        empty="#f1f2f4",
        accent="#c7402d",
        series=("#0072b2", "#d55e00", "#009e73", "#a0527f", "#8a6d00", "#3b7ea1", "#444444"),
    ),
    "dark": Theme(
        paper="#14171c",
        ink="#eceef1",
        muted="#a3a9b2",
        faint="#3a4049",
        empty="#20242b",
        accent="#ff8a66",
        series=("#56b4e9", "#e69f00", "#2fc79a", "#e59ac4", "#f0e442", "#8fc7e8", "#bbbbbb"),
    ),
}


def theme_named(name: ThemeName) -> Theme:
    """Return a theme by name."""
    return THEMES[name]


def width_named(name: WidthName | None, default: float) -> float:
    """Return a width in inches by name, or the one that a figure's content asks for."""
    return default if name is None else WIDTHS[name]


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Draw with this look; nothing of it stays behind."""
    settings: dict[str, Any] = {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
        "font.size": NORMAL,
        "axes.titlesize": NORMAL,
        "axes.labelsize": NORMAL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.paper,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
    }
    with mpl.rc_context(settings):  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """Return an empty figure of this size in inches, with a canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes by inches from the figure's top left corner."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / total_width,
            1.0 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
    )


def write(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    """Put text by inches from the figure's top left corner; ``top`` is its upper edge."""
    width, height = figure.get_size_inches()
    options.setdefault("va", "top")
    figure.text(left / width, 1.0 - top / height, text, parse_math=False, **options)


def text_width(text: str, size: float) -> float:
    """Width of a line of text in inches."""
    if not text:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph the font lacks still has a width
        font = FontProperties(family="DejaVu Sans", size=size)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.02 * float(width) / 72.0 + 0.01  # renderers differ by as much


def widest(texts: Any, size: float) -> float:
    """Width in inches of the longest of some texts; 0 for none."""
    return max((text_width(text, size) for text in texts), default=0.0)


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break text into lines of at most this width in inches; no line begins with a dot between parts or a per cent sign."""
    lines: list[str] = []
    words: list[str] = []
    for word in text.split():
        if word in ("\N{MIDDLE DOT}", "%") and words:
            words[-1] += f" {word}"
        else:
            words.append(word)
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def subtitle(*parts: str, simulated: bool) -> str:
    """Join the parts of a subtitle; what is simulated says so first."""
    return " \N{MIDDLE DOT} ".join(
        part for part in ((SIMULATED if simulated else ""), *parts) if part
    )


def head(figure: Figure, title: str, sub: str, theme: Theme, left: float = 0.1) -> float:
    """Write a title and a subtitle, broken to the figure's width; return inches used."""
    width = float(figure.get_size_inches()[0]) - 2 * left
    top = 0.1
    for text, size, colour, weight in (
        (title, LARGE, theme.ink, "bold"),
        (sub, SMALL, theme.muted, "normal"),
    ):
        # bold runs wider than the regular face that is measured
        for line in wrap(text, width / (1.12 if weight == "bold" else 1.0), size):
            write(figure, left, top, line, fontsize=size, color=colour, fontweight=weight)
            top += size * 1.35 / 72
    return top


def head_height(title: str, sub: str, width: float, left: float = 0.1) -> float:
    """Inches that :func:`head` will use in a figure of this width."""
    inner = width - 2 * left
    lines = len(wrap(title, inner / 1.12, LARGE)) * LARGE + len(wrap(sub, inner, SMALL)) * SMALL
    return 0.1 + lines * 1.35 / 72


def room_for_ticks(low: float, high: float) -> float:
    """Inches left of an axis for its label and its numbers, which have more decimals the less they differ."""
    decimals = 1 - math.floor(math.log10((high - low) / 2)) if high > low else 2
    minus = text_width(MINUS, SMALL) if low < 0 else 0.0
    return 0.5 + max(decimals - 2, 0) * text_width("0", SMALL) + minus


def on_colour(rgb: tuple[float, ...]) -> str:
    """Black or white, whichever reads better on a colour (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def render(figure: Figure, kind: Literal["png", "svg"], *, dpi: int = DPI) -> bytes:
    """Return a figure as a file's bytes, the same for the same figure at any time."""
    buffer = io.BytesIO()
    # Without a fixed salt the SVG's ids are random; dates and versions would change it too.
    # Hinted letters are wider at some resolutions than at others: lines would outgrow their room.
    steady = mpl.rc_context(
        {"svg.hashsalt": "tuner", "svg.fonttype": "path", "text.hinting": "no_hinting"}
    )
    metadata: dict[str, Any] = (
        {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    )
    with steady, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(
            buffer,
            format=kind,
            dpi=dpi if kind == "png" else 72,
            facecolor=figure.get_facecolor(),
            metadata=metadata,
        )
    return buffer.getvalue()


def save_as(figure: Figure, path: Path, *, dpi: int = DPI) -> Path:
    """Write a figure as a file of the kind that its suffix says, ``.png`` or ``.svg``."""
    kind: Literal["png", "svg"] = "svg" if path.suffix.lower() == ".svg" else "png"
    return write_bytes(path, render(figure, kind, dpi=dpi))


def save(figure: Figure, stem: Path | str, *, dpi: int = DPI) -> tuple[Path, Path]:
    """Write a figure as ``<stem>.png`` and ``<stem>.svg``.

    Parameters
    ----------
    figure
        The figure that is written.
    stem
        Path without a suffix; a dot in it is kept.
    dpi
        Resolution of the PNG, dots per inch.

    Returns
    -------
    png, svg
        The two paths. Equal figures give equal bytes.
    """
    stem = Path(stem)
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    return save_as(figure, png, dpi=dpi), save_as(figure, svg)
