"""How far a long task is: bars on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from cli.options import settings
from tuner.progress import PerCent

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY = 5.0
"""Seconds between two lines where bars cannot be drawn."""


@dataclass
class Pace:
    """The rate of one task, from when it was first heard of.

    What was done before that (a task that is taken up again) does not count towards the rate.
    """

    start: float
    before: int
    done: int = 0
    total: int = 0
    now: float = field(default=0.0)

    @property
    def rate(self) -> float | None:
        """Items a second; None before anything is known."""
        elapsed = self.now - self.start
        moved = self.done - self.before
        return moved / elapsed if elapsed > 0 and moved > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds to go; None before anything is known."""
        rate = self.rate
        return None if rate is None else max(self.total - self.done, 0) / rate

    def describe(self) -> str:
        """Write rate and time left: ``2.1/s, 2:13 left``; of what is not counted the time alone."""
        if self.rate is None or self.left is None:
            return ""
        left = f"{duration_text(self.left)} left"
        return left if isinstance(self.total, PerCent) else f"{rate_text(self.rate)}, {left}"

    @property
    def much(self) -> str:
        """How much is done: ``12/60``, or ``20 %`` of what is not counted."""
        return f"{self.done} %" if isinstance(self.total, PerCent) else f"{self.done}/{self.total}"


def rate_text(rate: float) -> str:
    """Write items a second in the unit that has a digit before the point.

    Examples
    --------
    >>> rate_text(2.13), rate_text(0.05)
    ('2.1/s', '3.0/min')
    """
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next((unit for unit, seconds in units.items() if rate * seconds >= 1), "h")
    number = rate * units[unit]
    return f"{number:.0f}/{unit}" if number >= 10 else f"{number:.1f}/{unit}"


def duration_text(seconds: float) -> str:
    """Write a duration: minutes and seconds, hours, or days.

    Examples
    --------
    >>> duration_text(133), duration_text(3725), duration_text(200_000)
    ('2:13', '1:02:05', '2 d 7 h')
    """
    whole = round(seconds)
    if whole >= 2 * 86_400:
        return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class ProgressDisplay:
    """Shows how far named tasks are.

    Used as a context manager; :meth:`update` is the callback that long functions take. Lines of
    :func:`cli.show.note` appear above the bars.

    Parameters
    ----------
    quiet
        Whether to show nothing; what the command was told where not given.
    stream
        Where it is shown; standard error where not given.
    clock
        Seconds, never going back.
    """

    def __init__(
        self,
        *,
        quiet: bool | None = None,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = settings().quiet if quiet is None else quiet
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._paces: dict[str, Pace] = {}
        self._last_line = -LINE_EVERY
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def update(self, what: str, done: int, total: int) -> None:
        """Say how far a task is.

        Parameters
        ----------
        what
            The task's name, the same at every call.
        done, total
            Items done and in all.
        """
        if self._quiet:
            return
        now = self._clock()
        pace = self._paces.setdefault(what, Pace(now, done))
        pace.done, pace.total, pace.now = done, total, now
        if self._bars is not None:
            self._draw(what, pace)
        elif done >= total or now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._print(what, pace)
        if done >= total:
            del self._paces[what]

    def forget(self, what: str) -> None:
        """Show a task no more that ends before it is done.

        Parameters
        ----------
        what
            Its name; one that is not shown is fine.
        """
        self._paces.pop(what, None)
        if self._bars is not None and what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))

    def _print(self, what: str, pace: Pace) -> None:
        line = f"{what}: {pace.much}"
        if not isinstance(pace.total, PerCent):
            line += f" ({100 * pace.done // pace.total if pace.total else 100} %)"
        rest = pace.describe()
        print(f"{line}, {rest}" if rest else line, file=self._stream, flush=True)

    def _draw(self, what: str, pace: Pace) -> None:
        assert self._bars is not None
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=pace.total, much="", pace="")
        task = self._tasks[what]
        self._bars.update(
            task, completed=pace.done, total=pace.total, much=pace.much, pace=pace.describe()
        )
        if pace.done >= pace.total:
            self._bars.remove_task(task)
            del self._tasks[what]


def _bars(stream: IO[str]) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    return Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        BarColumn(bar_width=18),
        TextColumn("{task.fields[much]}", style="progress.download", justify="right"),
        TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True)),
        console=Console(file=stream, highlight=False),
        transient=True,
        expand=True,
    )
