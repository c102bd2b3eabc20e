"""What a search tells while it runs."""

from __future__ import annotations


class Listener:
    """Whom a search tells how it goes: nobody, unless a class derived from it does more."""

    def started(self, finished: int, target: int) -> None:
        """Take finished trials of all selected studies, and how many they are to have."""

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        """Take how far a round of a cohort is, and how many of its trials still run."""

    def working(
        self, worker: str, what: str, trials: int, step: int, steps: int, running: int
    ) -> None:
        """Take the same of a worker's round, where there are several workers."""

    def resting(self, worker: str) -> None:
        """Take that a worker has nothing to do."""

    def told(self, finished: int) -> None:
        """Take, after a round, the finished trials of all selected studies."""

    def say(self, message: str) -> None:
        """Take something worth a line."""
