"""What was measured of each combination, and how it is kept between runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.reference import Reference

WITHIN = 1.01

Key = tuple[str, str, int]
"""Scene, study, seed."""


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes
    ----------
    features
        Features of its layer.
    seed
        What settings were drawn with.
    reference, again
        The reference, and once more with other settings and batches, where asked for: how far apart two of them end.
    cold, together
        The search of the study alone, and with all others of the scene.
    winners
        What either ended with.
    default, default_winner
        As together, with the defaults of ``training.folds`` and ``training.start``, where asked for.
    smooth
        Validation loss of the closed form.
    """

    scene: str
    study: str
    features: int
    seed: int
    reference: Reference
    again: Reference | None
    cold: Course
    together: Course
    winners: tuple[Winner, Winner]
    default: Course | None
    default_winner: Winner | None
    smooth: float


def ratios(row: Row, which: str) -> tuple[float, float]:
    """How many times fewer seconds and multiply-adds until within 1 %; not reached: twice the whole search."""
    course: Course = getattr(row, which)
    reached = course.reached(WITHIN * row.reference.value)
    seconds, macs = reached or (2 * course.seconds, 2 * course.macs)
    return row.reference.seconds / seconds, row.reference.macs / macs


class Work:
    """What is measured, and a file that keeps it: a run that was stopped goes on, and references are not run again.

    Parameters
    ----------
    file
        What was measured before is read from it; None: nothing is kept.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rows: dict[Key, Row] = {}
        self._references: dict[Key, Reference] = {}
        if file is not None and file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            self._references = {tuple(key): Reference(**one) for key, one in found["references"]}
            self._rows = {(r.scene, r.study, r.seed): r for r in map(_row, found["rows"])}

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return list(self._rows.values())

    def reference(self, key: Key, run: Callable[[], Reference]) -> Reference:
        """A reference, run where it is not known."""
        if key not in self._references:
            self._references[key] = run()
            self._write()
        return self._references[key]

    def add(self, row: Row) -> None:
        """Keep a row, in place of one of the same combination and seed."""
        self._rows[row.scene, row.study, row.seed] = row
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        references = [[key, asdict(one)] for key, one in self._references.items()]
        found = {"references": references, "rows": [asdict(one) for one in self.rows]}
        self._file.write_text(json.dumps(found), encoding="utf-8")


def _row(one: dict[str, Any]) -> Row:
    again, default, winner = one["again"], one["default"], one["default_winner"]
    return Row(
        **one
        | {"reference": Reference(**one["reference"])}
        | {"again": None if again is None else Reference(**again)}
        | {which: _course(one[which]) for which in ("cold", "together")}
        | {"default": None if default is None else _course(default)}
        | {"winners": tuple(Winner(**end) for end in one["winners"])}
        | {"default_winner": None if winner is None else Winner(**winner)}
    )


def _course(one: dict[str, Any]) -> Course:
    return Course(**one | {"points": [tuple(point) for point in one["points"]]})
