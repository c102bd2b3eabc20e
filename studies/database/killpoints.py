"""Named points between two writes of the search, at which a test has the process killed.

What is written is safe only if a kill between any two writes is: so the moments are named here, and the tests go through
all of them. In use :func:`reach` does nothing.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "TUNER_KILL_AT"
"""Environment variable ``NAME:COUNT``: where the process is killed, and the how many-th time that it gets there."""

POINTS = (
    "recovering",  # orphans are put back, not yet committed
    "recovered",
    "asking",  # trials are made, not yet committed
    "asked",
    "reported",  # some of a running round's reports are written
    "file half written",
    "files written",  # of a round that is not yet told
    "telling",  # how its trials ended is written, not yet committed
    "told",
    "files deleted",  # those that lost their place
    "putting back",  # an interrupt's trials are put back, not yet committed
    "pictures written",  # of a best trial, not yet attached
    "pictures attached",
)

_seen: dict[str, int] = {}


def reach(point: str) -> None:
    """Pass a named point; a process that is to be killed here ends as by ``kill -9``, nothing flushed."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    assert point in POINTS, point
    name, _, count = wanted.rpartition(":")
    _seen[point] = _seen.get(point, 0) + 1
    if point == name and _seen[point] == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
