"""A round: trials of several studies asked together, trained together as columns, pruned at reports, told together.

Nothing here decides by the clock or by what is free: the same round on the same machine ends with the same values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from studies.database.artifacts import Tensors
from studies.database.killpoints import reach
from studies.database.trials import Outcome, Trial
from studies.search.best_weights import Fitted
from studies.search.pruning import of_earlier, stopped, stopped_at_rung

if TYPE_CHECKING:
    from torch import Tensor

    from tuner.fitting.columns import ColumnState
    from tuner.fitting.trainer import Trainer

Reports = list[tuple[int, int, float]]

REPORT_SECONDS = 1.0
"""Least time between two writes of a running round's reports."""


Observer = Callable[[int, int, int, Reports], None]
"""Told at each report: its step, the last step, how many trials still run, and ``(trial_id, step, value)`` of each."""


@dataclass
class Member:
    """A study's part in a round.

    Attributes
    ----------
    units
        ``(n,)`` indices of its units in the recording.
    hyperparameters
        Of each trial, with everything that is fixed.
    trials
        Its trials of this round.
    earlier
        Its finished trials of earlier rounds.
    mean_loss
        Loss of predicting every unit's mean, which its trials' values are divided by.
    """

    units: NDArray[np.int64]
    hyperparameters: list[dict[str, float]]
    trials: list[Trial]
    earlier: list[Trial]
    mean_loss: float = 1.0


@dataclass
class _Running:
    """One trial while it runs."""

    member: int
    trial: Trial
    curve: dict[int, float] = field(default_factory=dict)
    best: float = np.inf
    state: TrialState = TrialState.RUNNING
    unit_loss: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Result:
    """How a round ended, study by study."""

    outcomes: list[list[Outcome]]
    fitted: list[list[Fitted]]


class Round:
    """Trains one round.

    Parameters
    ----------
    members
        Studies that take part.
    turns
        For each turn, the ``(member, units)`` blocks whose columns are in memory together.
    trainer
        The column trainer of the layer and readout.
    reports
        Steps after which is reported; the last is that of a whole trial.
    prune
        Whether the median rule applies.
    rungs
        Those of the reports at which it cuts among the trials that reached them, and the share of these that goes on;
        None: the median rule at every report, among all.
    """

    def __init__(
        self,
        members: Sequence[Member],
        turns: Sequence[Sequence[tuple[int, NDArray[np.int64]]]],
        trainer: Trainer,
        *,
        reports: Sequence[int],
        prune: bool,
        rungs: Mapping[int, Fraction] | None = None,
    ) -> None:
        self.members = members
        self.trainer = trainer
        self.reports = tuple(reports)
        self.prune = prune
        self.rungs = rungs
        self.running = [
            _Running(m, trial) for m, member in enumerate(members) for trial in member.trials
        ]
        self._first = np.cumsum([0, *(len(member.trials) for member in members)])
        self._position = [
            {int(unit): i for i, unit in enumerate(member.units)} for member in members
        ]
        self._turns = turns
        self._states: list[ColumnState] = []

    def _start(self) -> Iterator[ColumnState]:
        from tuner.fitting.columns import Columns

        for blocks in self._turns:
            settings: list[dict[str, float]] = []
            units: list[NDArray[np.int64]] = []
            numbers: list[int] = []
            for m, mine in blocks:
                member = self.members[m]
                settings += member.hyperparameters
                units += [mine] * len(member.trials)
                numbers += range(self._first[m], self._first[m + 1])
            columns = Columns.of_trials(settings, units, numbers=numbers, folds=self.trainer.folds)
            yield self.trainer.start(columns, parked=len(self._turns) > 1)

    def run(self, observer: Observer | None = None) -> Result:
        """Train all trials to their end."""
        self._states = list(self._start())
        others = [
            of_earlier(
                [t.curve for t in member.earlier], self.reports, reached=self.rungs is not None
            )
            for member in self.members
        ]
        done = 0
        for number, step in enumerate(self.reports, start=1):
            losses = self._advance(done, step)
            done = step
            improved = self._record(step, losses)
            self._remember(improved)
            self._stop(number, [other[number - 1] for other in others])
            if observer is not None:
                alive = [r for r in self.running if step in r.curve]
                observer(
                    step,
                    self.reports[-1],
                    sum(r.state == TrialState.RUNNING for r in self.running),
                    [(r.trial.trial_id, step, r.curve[step]) for r in alive],
                )
            if not any(r.state == TrialState.RUNNING for r in self.running):
                break
        return self._result()

    def _advance(self, first: int, last: int) -> dict[int, NDArray[np.float64]]:
        """Train every block up to ``last``; loss ``(n_units, 2)`` per half of every trial that still runs."""
        losses = {
            i: np.zeros((len(self.members[r.member].units), 2))
            for i, r in enumerate(self.running)
            if r.state == TrialState.RUNNING
        }
        for state in self._states:
            if not len(state):
                continue
            state.resume()
            self.trainer.advance(state, first, last)
            sums = self.trainer.validate(state)
            if len(self._turns) > 1:
                state.park()
            for trial in np.unique(state.columns.trial):
                at = np.flatnonzero(state.columns.trial == trial)
                position = self._position[self.running[trial].member]
                mine = [position[int(unit)] for unit in state.columns.unit[at]]
                np.add.at(losses[int(trial)], mine, sums[at])
        return losses

    def _record(self, step: int, losses: dict[int, NDArray[np.float64]]) -> set[int]:
        """Put the trials' values on their curves; returns the trials whose best this is."""
        improved = set()
        for i, sums in losses.items():
            trial = self.running[i]
            member = self.members[trial.member]
            counts = self.trainer.validation_counts[member.units]
            value = float(np.mean(sums.sum(1) / counts.sum(1))) / member.mean_loss
            if not np.isfinite(value):
                trial.curve[step] = np.inf
                trial.best = np.inf
                trial.state = TrialState.PRUNED
                continue
            trial.curve[step] = value
            if value < trial.best:
                trial.best = value
                with np.errstate(invalid="ignore"):
                    trial.unit_loss = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
                improved.add(i)
        return improved

    def _remember(self, improved: set[int]) -> None:
        chosen = np.array(sorted(improved), dtype=np.int64)
        for state in self._states:
            state.remember(np.flatnonzero(np.isin(state.columns.trial, chosen)))

    def _stop(self, number: int, others: Sequence[NDArray[np.float64]]) -> None:
        """Apply the median rule study by study, and drop the columns of trials that no longer run."""
        if self.prune:
            for m in range(len(self.members)):
                mine = self.running[self._first[m] : self._first[m + 1]]
                for trial, now in zip(*self._judged(number, mine, others[m]), strict=True):
                    if now:
                        trial.state = TrialState.PRUNED
        alive = np.array(
            [i for i, r in enumerate(self.running) if r.state == TrialState.RUNNING],
            dtype=np.int64,
        )
        for state in self._states:
            state.keep(np.flatnonzero(np.isin(state.columns.trial, alive)))

    def _judged(
        self, number: int, mine: Sequence[_Running], others: NDArray[np.float64]
    ) -> tuple[Sequence[_Running], NDArray[np.bool_]]:
        """Trials of a study that are compared at a report, and which of them are stopped."""
        step = self.reports[number - 1]
        if self.rungs is not None:
            mine = [r for r in mine if step in r.curve]
        best = np.array([r.best for r in mine])
        running = np.array([r.state == TrialState.RUNNING for r in mine], dtype=bool)
        if self.rungs is None:
            return mine, stopped(number, len(self.reports), best, others, running)
        if step not in self.rungs or not running.any():
            return mine, np.zeros(len(mine), dtype=bool)
        return mine, stopped_at_rung(best, others, running, self.rungs[step])

    def _best(self, i: int) -> tuple[Tensors, Tensor | None]:
        """Best weights of a trial, its units in order, gathered from all blocks.

        With folds they are the average over the folds, and each image is answered, in the second part, by the fold that did
        not see it.
        """
        import torch

        trial = self.running[i]
        n = len(self.members[trial.member].units)
        position = self._position[trial.member]
        judged = [torch.from_numpy(images) for images in self.trainer.judged]
        answers = torch.empty(sum(map(len, judged)), n)
        folds: list[Tensors] = [{} for _ in judged]
        for state in self._states:
            for fold, (own, images) in enumerate(zip(folds, judged, strict=True)):
                at = np.flatnonzero((state.columns.trial == i) & (state.columns.fold == fold))
                if not len(at):
                    continue
                mine = torch.tensor([position[int(unit)] for unit in state.columns.unit[at]])
                if len(judged) > 1:
                    answers[images[:, None], mine] = state.best_answers(at)[:, : len(images)].T
                for name, value in state.best_of(at).items():
                    if name not in own:
                        own[name] = torch.empty((n, *value.shape[1:]), dtype=value.dtype)
                    own[name][mine] = value
        return self.trainer.kernel.averaged(folds), answers if len(folds) > 1 else None

    def _result(self) -> Result:
        outcomes: list[list[Outcome]] = [[] for _ in self.members]
        fitted: list[list[Fitted]] = [[] for _ in self.members]
        for state in self._states:
            state.finish()
        for i, trial in enumerate(self.running):
            if trial.state == TrialState.RUNNING:
                trial.state = TrialState.COMPLETE
                assert trial.unit_loss is not None
                parameters, answers = self._best(i)
                fitted[trial.member].append(
                    Fitted(trial.trial, trial.best, parameters, trial.unit_loss, held_out=answers)
                )
            outcomes[trial.member].append(
                Outcome(trial.trial.trial_id, trial.state, trial.best, dict(trial.curve))
            )
        return Result(outcomes, fitted)


class ReportWriter:
    """Writes reports while a round runs, so that the dashboard follows; at most once in ``seconds``.

    How often is a matter of display: what is not written here is written when the trials are told.
    """

    def __init__(self, write: Callable[[Reports], None], seconds: float | None = None) -> None:
        self._write = write
        self._seconds = REPORT_SECONDS if seconds is None else seconds
        self._last = time.monotonic()
        self._pending: Reports = []

    def add(self, reports: Reports) -> None:
        """Take reports, and write what has gathered if it is time."""
        self._pending += reports
        if time.monotonic() - self._last >= self._seconds:
            self._write(self._pending)
            reach("reported")
            self._pending = []
            self._last = time.monotonic()
