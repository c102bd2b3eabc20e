"""How far a long task is: rates, time left, lines off a terminal, bars on one."""

from __future__ import annotations

import io

import pytest

from cli import options
from cli.progress import LINE_EVERY, Pace, ProgressDisplay, duration_text, rate_text
from tuner.progress import Weighed


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_rate_and_time_left_count_from_where_the_task_was_taken_up():
    pace = Pace(start=0.0, before=50, done=70, total=100, now=10.0)
    assert pace.rate == pytest.approx(2.0)
    assert pace.left == pytest.approx(15.0)
    assert pace.describe() == "2.0/s, 0:15 left"


def test_nothing_is_said_before_anything_is_known():
    assert Pace(start=5.0, before=0, done=0, total=10, now=5.0).describe() == ""
    assert Pace(start=5.0, before=3, done=3, total=10, now=9.0).describe() == ""


@pytest.mark.parametrize(
    ("rate", "text"),
    [(2.13, "2.1/s"), (213.0, "213/s"), (0.5, "30/min"), (0.05, "3.0/min"), (0.001, "3.6/h"),
     (1e-5, "0.0/h")],
)  # fmt: skip
def test_rates(rate, text):
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3725, "1:02:05"), (90_000, "25:00:00"),
     (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_lines_come_seldom_and_the_last_always():
    clock, stream = Clock(), io.StringIO()
    with ProgressDisplay(quiet=False, stream=stream, clock=clock) as progress:
        for done in range(0, 101):
            progress.update("fitting", done, 100)
            clock.now += LINE_EVERY / 20
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6  # one at the start, then one every twenty updates
    assert lines[0] == "fitting: 0/100 (0 %)"
    assert lines[1] == "fitting: 20/100 (20 %), 4.0/s, 0:20 left"
    assert lines[-1].startswith("fitting: 100/100 (100 %), 4.0/s")


def test_what_is_told_in_per_cent_is_not_counted(monkeypatch):
    """Sixty fits that count to 100 make one look for the other forty."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    clock, lines, drawn = Clock(), io.StringIO(), Terminal()
    for stream in (lines, drawn):
        with ProgressDisplay(quiet=False, stream=stream, clock=clock) as progress:
            task = Weighed("fitting", {"all": 1.0}, progress.update)
            clock.now += 10
            task.part("all")(2, 5)
            if progress._bars is not None:
                progress._bars.refresh()
    assert lines.getvalue().splitlines() == ["fitting: 0 %", "fitting: 40 %, 0:15 left"]
    assert "40 %" in drawn.getvalue()
    assert "/100" not in drawn.getvalue()


def test_a_task_that_comes_again_starts_anew():
    clock, stream = Clock(), io.StringIO()
    progress = ProgressDisplay(quiet=False, stream=stream, clock=clock)
    progress.update("reading", 5, 5)
    clock.now += 10
    progress.update("reading", 0, 8)
    assert stream.getvalue().splitlines()[-1] == "reading: 0/8 (0 %)"


def test_an_empty_task_is_done():
    stream = io.StringIO()
    ProgressDisplay(quiet=False, stream=stream).update("reading", 0, 0)
    assert stream.getvalue() == "reading: 0/0 (100 %)\n"


def test_quiet_is_silent():
    stream = io.StringIO()
    with ProgressDisplay(quiet=True, stream=stream) as progress:
        progress.update("fitting", 1, 1)
    assert stream.getvalue() == ""


def test_quiet_follows_the_command(monkeypatch):
    options.reset().quiet = True
    stream = io.StringIO()
    with ProgressDisplay(stream=stream) as progress:
        progress.update("fitting", 1, 1)
    assert stream.getvalue() == ""


def test_a_terminal_shows_bars_that_fit(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    with ProgressDisplay(quiet=False, stream=stream, clock=clock) as progress:
        progress.update("[b]extracting features of a layer with a long name[/b]", 10, 100)
        clock.now += 5
        progress.update("[b]extracting features of a layer with a long name[/b]", 60, 100)
        assert progress._bars is not None
        progress._bars.refresh()
    shown = stream.getvalue()
    assert "60/100" in shown
    assert "10/s, 0:04 left" in shown
    assert "[b]extracting" in shown
    assert "\x1b[?25h" in shown  # the cursor is shown again


def test_the_bars_are_gone_after_an_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = ProgressDisplay(quiet=False, stream=stream)

    def interrupted() -> None:
        with progress:
            progress.update("fitting", 1, 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert progress._bars is None
    assert "\x1b[?25h" in stream.getvalue()
