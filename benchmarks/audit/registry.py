"""What the audit found: a row per defect, measured by one function for each of the two simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DIFFICULTIES = ("easy", "hard")

Measure = Callable[[str], str]
"""A figure now, under a difficulty of the simulation."""


@dataclass(frozen=True)
class Defect:
    """What was wrong, its figure before, and how the one now is measured."""

    number: int
    what: str
    before: str
    measure: Measure


REGISTRY: list[Defect] = []


def defect(number: int, what: str, before: str) -> Callable[[Measure], Measure]:
    """Register the function that measures a defect's figure now."""

    def add(measure: Measure) -> Measure:
        REGISTRY.append(Defect(number, what, before, measure))
        return measure

    return add
