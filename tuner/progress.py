"""How long tasks say how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""

Item = TypeVar("Item")


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
