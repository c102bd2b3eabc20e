"""Where a study's trials report, and at which of its reports the median rule cuts.

With ``search.rungs = "auto"`` it cuts at a few early steps, the rungs, and nothing is reported before the first of them:
what a validation would say there changes nothing. After the last one there is a report every ``training.report_every``
steps. With ``"reports"`` every report is one at which trials may be stopped, as in the releases before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from studies.config.experiment import Experiment

SHARES = (Fraction(1, 15), Fraction(1, 6), Fraction(1, 3))
"""Of a trial's steps, at which it must be in the better half: 20, 50 and 100 of 300."""


@dataclass(frozen=True)
class ReportGrid:
    """The report grid of a study.

    Attributes
    ----------
    steps
        Numbers of steps after which the validation loss is reported, increasing; the last step of a trial is the last.
    rungs
        Those at which the median rule cuts among all that reached them; None where it cuts at every report from 30 % on.
    """

    steps: tuple[int, ...]
    rungs: tuple[int, ...] | None

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """Where trials report under the settings of an experiment."""
        training, search = experiment.training, experiment.search
        at_rungs = search.pruner == "median" and search.rungs == "auto"
        return cls.at(training.steps, training.report_every, rungs=at_rungs)

    @classmethod
    def as_made(cls, fingerprint: Mapping[str, Any]) -> Self:
        """Where trials of a study report, by its fingerprint."""
        at_rungs = fingerprint["search.pruner"] == "median" and (
            fingerprint.get("search.rungs", "reports") == "auto"
        )
        return cls.at(
            fingerprint["training.steps"], fingerprint["training.report_every"], rungs=at_rungs
        )

    @classmethod
    def at(cls, steps: int, report_every: int, *, rungs: bool) -> Self:
        """Where trials of so many steps report."""
        from tuner.fitting.schedule import report_steps

        grid = report_steps(steps, report_every)
        if not rungs:
            return cls(grid, None)
        early = rung_steps(steps)
        last = max(early, default=0)
        return cls((*early, *(step for step in grid if step > last)), early)


def rung_steps(steps: int) -> tuple[int, ...]:
    """Steps at which a trial of ``steps`` must be in the better half; none at its last step or before its first."""
    at = {round(steps * share) for share in SHARES}
    return tuple(sorted(step for step in at if 0 < step < steps))
