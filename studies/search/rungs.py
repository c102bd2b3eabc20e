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

RUNGS = (
    (Fraction(1, 15), Fraction(3, 4)),
    (Fraction(1, 6), Fraction(1, 2)),
    (Fraction(1, 3), Fraction(1, 2)),
)
"""Of a trial's steps, and which of those that come there go on: at 20 of 300 the better three quarters, at 50 and 100 the
better half. A half at the first one too loses searches whose best settings begin slowly (docs/benchmarks/quality.md)."""


@dataclass(frozen=True)
class ReportGrid:
    """The report grid of a study.

    Attributes
    ----------
    steps
        Numbers of steps after which the validation loss is reported, increasing; the last step of a trial is the last.
    rungs
        Those at which it is cut among all that reached them, and the share that goes on; None where the median rule cuts
        at every report from 30 % on.
    """

    steps: tuple[int, ...]
    rungs: Mapping[int, Fraction] | None

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
        early = rungs_of(steps)
        last = max(early, default=0)
        return cls((*early, *(step for step in grid if step > last)), early)


def rungs_of(steps: int) -> dict[int, Fraction]:
    """Rungs of a trial of ``steps``, increasing, and the share that goes on; none at its last step or before its first."""
    every = [(round(steps * at), share) for at, share in RUNGS]
    return {step: share for step, share in every if 0 < step < steps}
