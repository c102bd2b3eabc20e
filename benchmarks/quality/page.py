"""The page that says what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.machine import describe
from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.reference import Reference
from benchmarks.quality.rows import WITHIN, Row, ratios

BOTH = ("cold", "together")


def named(row: Row) -> list[str]:
    """Scene and combination."""
    return [row.scene, "/".join(row.study.split("/")[1:])]


def until(row: Row) -> str:
    """A row of the first table: seconds until it is as good."""
    cells = [*named(row), f"{row.features:,}"]
    cells += [f"{row.reference.value:.4f}", f"{row.reference.seconds:.1f}"]
    for which in BOTH:
        course: Course = getattr(row, which)
        reached = course.reached(WITHIN * row.reference.value)
        times, products = ratios(row, which)
        cells.append("not reached" if reached is None else f"{reached[0]:.2f}")
        cells += [f"{times:.0f}", f"{products:.0f}", f"{course.seconds:.1f}"]
    return _line(cells)


def end(row: Row) -> str:
    """A row of the second table: where it ends, over the reference."""
    cells = named(row)
    for one in (row.again, *row.winners):
        if one is None:
            cells += ["", ""]
            continue
        cells += [f"{one.value / row.reference.value:.3f}", f"{one.test / row.reference.test:.3f}"]
    cells.append("" if row.default is None else f"{row.default.seconds:.1f}")
    ended = row.default_winner
    cells.append("" if ended is None else f"{ended.test / row.reference.test:.3f}")
    cells.append(f"{row.smooth / row.reference.value:.3f}")
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def page(rows: Sequence[Row], command: str, trials: int, steps: int, start: str) -> str:
    """All of it as Markdown."""
    seeds = ", ".join(dict.fromkeys(str(row.seed) for row in rows))
    return "\n".join(
        [
            "# Work to a reference's quality",
            "",
            describe(command),
            "",
            f"The reference: {trials} random trials of {steps} steps by an autograd loop on cached features as they come, "
            f"one after another, on one cut; settings drawn at run time, seeds {seeds}. The contender: the search as "
            f'shipped, {trials} trials, on the same cut (`training.folds = 1`, `training.start = "{start}"`), `cold`: the '
            "study by itself; `together`: all studies of the scene, time shared among those of a round.",
            "",
            "## Seconds until it is as good",
            "",
            "*CPU s*: until the contender's validation loss is within 1 % of the reference's; *s ×* and *MAC ×*: how many "
            "times less than the reference in all (not reached: than twice the whole search); *all*: CPU seconds of the "
            "whole search.",
            "",
            "| scene | combination | features | reference | CPU s | cold CPU s | s × | MAC × | all | together CPU s | "
            "s × | MAC × | all |",
            "|---" * 13 + "|",
            *map(until, rows),
            "",
            *_times(rows),
            "",
            "## Where it ends",
            "",
            "Validation and test loss of the best trial over the reference's. `again`: the reference once more, with other "
            "settings and other batches, which says how far apart two equally good searches end. `default`: all studies of "
            "the scene with the defaults of `training.folds` (five, whose validation losses are over other images and not "
            "compared) and `training.start` (where each unit looks is found first), and the CPU seconds of the whole "
            "search. `smooth`: the closed form's validation loss.",
            "",
            "| scene | combination | again end | test | cold end | test | together end | test | default CPU s | test | "
            "smooth |",
            "|---" * 11 + "|",
            *map(end, rows),
            "",
            *_ends(rows),
            "",
        ]
    )


def _times(rows: Sequence[Row]) -> list[str]:
    lines = ["| over all | cold | together |", "|---|---|---|"]
    titles = ("CPU seconds, times less, median", "multiply-adds, times less, median")
    for part, title in enumerate(titles):
        found = [statistics.median(ratios(r, w)[part] for r in rows) for w in BOTH]
        lines.append(_line([title, *(f"{one:.1f}" for one in found)]))
    for size in sorted({r.features for r in rows}):
        mine = [r for r in rows if r.features == size]
        found = [statistics.median(ratios(r, w)[0] for r in mine) for w in BOTH]
        title = f"CPU seconds, times less, at {size:,} features"
        lines.append(_line([title, *(f"{one:.1f}" for one in found)]))
    goal = [
        sum(getattr(r, w).reached(WITHIN * r.reference.value) is not None for r in rows)
        for w in BOTH
    ]
    lines.append(_line(["reached", *(f"{one} of {len(rows)}" for one in goal)]))
    return lines


def _ends(rows: Sequence[Row]) -> list[str]:
    """What is over all of the ends; the default's validation losses are over other images."""
    lines = ["| over all | again | cold | together | default |", "|---|---|---|---|---|"]
    ways: list[Callable[[Row], Reference | Winner | None]] = [
        lambda row: row.again,
        lambda row: row.winners[0],
        lambda row: row.winners[1],
        lambda row: row.default_winner,
    ]
    both = [row for row in rows if row.again is not None]
    for part, mine in (("value", ways[:3]), ("test", ways)):
        title = "validation" if part == "value" else "test"
        cells = [_worst([_over(row, way(row), part) for row in rows]) for way in mine]
        lines.append(
            _line([f"worst end, {title}; more than 2 % above", *cells, *[""] * (4 - len(mine))])
        )
        if both:
            cells = [_worst([_over(r, way(r), part, r.again) for r in both]) for way in mine[1:]]
            title = f"the same of {len(both)}, above the worse of the two references"
            lines.append(_line([title, "", *cells, *[""] * (4 - len(mine))]))
    middle = []
    for way in ways:
        known = [1 + over for row in rows if (over := _over(row, way(row), "test")) is not None]
        middle.append(f"{statistics.median(known):.3f}" if known else "")
    lines.append(_line(["test, median", *middle]))
    apart = []
    for way in ways[1:]:
        winners = [one for row in rows if isinstance(one := way(row), Winner)]
        far = [abs(one.alone / one.value - 1) for one in winners]
        apart.append(f"{max(far):.1e}" if far else "")
    return [*lines, _line(["the winner retrained alone differs by at most", "", *apart])]


def _over(
    row: Row, found: Reference | Winner | None, part: str, other: Reference | None = None
) -> float | None:
    """By how much a loss is above that of the reference, or of the worse of two, relative to it."""
    if found is None:
        return None
    known = [getattr(one, part) for one in (row.reference, other) if one is not None]
    return float(getattr(found, part) / max(known) - 1)


def _worst(over: Sequence[float | None]) -> str:
    known = [one for one in over if one is not None]
    if not known:
        return ""
    return f"{max(known):+.1%}; {sum(one > 0.02 for one in known)} of {len(known)}"
