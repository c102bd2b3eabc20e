"""Draw what ``docs/benchmarks/real.md`` lists: how each way does on recorded cortex, against the closed form.

``python -m benchmarks.real.figure docs/benchmarks/real.md -o docs/images/real-v4.png``
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tuner.figures import style

SECTION = "As shipped"
CELL = re.compile(r"(\d\.\d+) \(([+-]\d\.\d+) ± (\d\.\d+)\)")

Found = dict[str, dict[str, dict[str, tuple[float, float]]]]
"""Session to way to layer to the difference to the closed form, and its standard error. No layer is chosen by it."""

MARKS = "os^D"


def read(page: Path) -> tuple[Found, dict[str, int]]:
    """Every way and layer of each session in the section of what is shipped, and the units of each session."""
    text = page.read_text(encoding="utf-8")
    section = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if SECTION in part)
    found: Found = {}
    units: dict[str, int] = {}
    for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        session = part.split("\n", 1)[0].strip()
        units[session] = int(re.findall(r"(\d+) units", part)[0])
        lines = [[cell.strip() for cell in line.split("|")] for line in part.splitlines()]
        table = [line for line in lines if len(line) > 3]
        for line in table:
            for layer, cell in zip(table[0], line, strict=True):
                if match := CELL.match(cell):
                    of_way = found.setdefault(session, {}).setdefault(line[1], {})
                    of_way[layer] = (float(match[2]), float(match[3]))
    return found, units


def draw(found: Found, units: dict[str, int], out: Path) -> None:
    """Write the figure."""
    theme = style.theme_named("light")
    title = "Recorded macaque V4: what comes on top of the closed form smooth"
    sub = (
        "difference in test correlation to smooth at the same layer, stacked: at the best one; mean over the units of a "
        "session with its standard error; responses are means over repeats, so no ceilings; EfficientNet-Lite0 at 112 px, "
        "imagenet weights, 24 trials; recordings of Cowley et al. 2023"
    )
    ways = list(dict.fromkeys(way for session in found.values() for way in session))
    names = {"stacked": "all together\n(stacked)", "located": "start of searches\n(located)"}
    layers = sorted(
        {layer for of in found.values() for way in ("full", "factorized") for layer in of[way]},
        key=lambda layer: int(layer.rsplit(".", 1)[1]),
    )
    shapes = dict(zip(layers, ("circles", "squares", "triangles", "diamonds"), strict=False))
    sub += "; " + ", ".join(f"{shape}: {layer}" for layer, shape in shapes.items())
    with style.styled(theme):
        top = style.head_height(title, sub, style.COLUMN) + 0.25
        tall = 0.42 * len(ways)
        figure = style.new_figure(style.COLUMN, top + tall + 0.42, theme)
        style.head(figure, title, sub, theme)
        axes = style.place(figure, 0.85, top, style.COLUMN - 0.95, tall)
        axes.axvline(0, color=theme.muted, lw=0.6, ls=(0, (4, 3)))
        left = 0.1
        for number, (session, of) in enumerate(found.items()):
            colour = theme.series[number]
            for place, way in enumerate(ways):
                for index, (layer, (difference, error)) in enumerate(of[way].items()):
                    level = place + 0.24 * (number - (len(found) - 1) / 2) + 0.09 * index
                    mark = MARKS[layers.index(layer)] if layer in layers else "*"
                    axes.errorbar(
                        difference, level, xerr=error, fmt=mark, ms=3, lw=0.8, color=colour
                    )
            text = f"{session} ({units[session]} units)"
            style.write(
                figure, left, top - 0.16, text, fontsize=style.TINY, color=colour, fontweight="bold"
            )
            left += style.text_width(text, style.TINY) * 1.15 + 0.1
        axes.set_yticks(range(len(ways)), [names.get(way, way) for way in ways])
        axes.set_ylim(len(ways) - 0.5, -0.5)
        axes.set_xlabel("difference in test correlation")
        style.save_as(figure, out)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    draw(*read(given.page), given.out)


if __name__ == "__main__":
    main()
