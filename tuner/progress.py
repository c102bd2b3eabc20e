"""How long tasks say how far they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""

Item = TypeVar("Item")
Part = TypeVar("Part", bound=Hashable)


def nobody(what: str, done: int, total: int) -> None:
    """Take how far a task is, and tell nobody."""


def counted(items: Sequence[Item], what: str, progress: Progress) -> Iterator[Item]:
    """Go through items, and say after each of them how many are done.

    Parameters
    ----------
    items
        What is worked on, one by one.
    what
        Name of the task.
    progress
        Whom it is said to.
    """
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, len(items))


class PerCent(int):
    """What there is of a task that is not counted but told in per cent: then ``40 %`` is shown, not ``40/100``."""


WHOLE = PerCent(100)


class Weighed(Generic[Part]):
    """How far a task of unequal parts is, in per cent of the time that they were expected to take: so what is left is right.

    Parameters
    ----------
    what
        Name of the task.
    expected
        Each part, and the time that it is expected to take.
    progress
        Whom it is said to.

    Examples
    --------
    >>> task = Weighed("fitting", {"start": 3.0, "rest": 1.0}, lambda what, done, total: print(done))
    0
    >>> task.part("start")(1, 2)
    37
    >>> task.part("start")(2, 2)
    75
    >>> task.end()
    100
    """

    def __init__(self, what: str, expected: Mapping[Part, float], progress: Progress) -> None:
        self._what, self._expected, self._progress = what, dict(expected), progress
        self._done: dict[Part, float] = dict.fromkeys(expected, 0.0)
        self._shown = -1
        self._say(0)

    def part(self, part: Part) -> Callable[[int, int], None]:
        """What a part calls with how much of it is done, and how much there is."""

        def tell(done: int, total: int) -> None:
            self._done[part] = self._expected[part] * done / max(1, total)
            share = sum(self._done.values()) / (sum(self._expected.values()) or 1.0)
            self._say(min(99, int(100 * share)))

        return tell

    def end(self) -> None:
        """Say that all is done."""
        self._say(100)

    def _say(self, percent: int) -> None:
        if percent > self._shown:
            self._shown = percent
            self._progress(self._what, percent, WHOLE)


def about(seconds: float) -> str:
    """Write a duration as roughly as it is known.

    Examples
    --------
    >>> about(0.4), about(42), about(430), about(9000)
    ('a moment', 'about 40 s', 'about 7 min', 'about 2.5 h')
    """
    if seconds < 5:
        return "a moment"
    if seconds < 90:
        return f"about {round(seconds, -1 if seconds > 15 else 0):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
