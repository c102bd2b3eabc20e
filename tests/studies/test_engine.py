"""What comes back from Dask's workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from studies.cluster import engine
from studies.cluster.engine import DaskEngine, Ended

pytest.importorskip("distributed")

ADDRESS = "tcp://127.0.0.1:1"


class Answer:
    """A finished task whose answer takes some attempts to arrive."""

    status = "finished"

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.patience: list[float] = []
        self.cancelled = False

    def result(self, timeout: float) -> bytes:
        self.patience.append(timeout)
        if len(self.patience) < self.attempts:
            raise TimeoutError
        return b"answer"

    def cancel(self) -> None:
        self.cancelled = True


def heard(answer: Answer, living: tuple[str, ...]) -> Ended | engine.Heard | None:
    client: Any = SimpleNamespace(
        id="client",
        subscribe_topic=lambda topic, handler: None,
        scheduler_info=lambda n_workers: {"workers": dict.fromkeys(living)},
        submit=lambda *given, **named: SimpleNamespace(add_done_callback=lambda call: None),
    )
    place: Any = None
    one = DaskEngine(place, "local", client)
    key = one.give(ADDRESS, "fit", b"", b"")
    one._given[key] = answer, ADDRESS
    one._ended(key, answer)
    return one.hear(0)


def test_an_answer_that_went_with_its_worker_is_not_waited_for() -> None:
    """Dask would wait for it without end: no other worker may make it again."""
    answer = Answer(attempts=9)
    assert heard(answer, living=()) == Ended("fit-0")
    assert len(answer.patience) == 1
    assert answer.cancelled


def test_a_large_answer_of_a_living_worker_is_waited_for() -> None:
    answer = Answer(attempts=4)
    assert heard(answer, living=(ADDRESS,)) == Ended("fit-0", answer=b"answer")
    assert answer.patience == [engine.FETCH_SECONDS * 2**n for n in range(4)]
