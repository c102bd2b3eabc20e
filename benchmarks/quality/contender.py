"""The contender: the search as ``tuner optimize`` runs it, watched report by report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.quality.reference import loss_of
from benchmarks.search_quality import without_pictures
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.database.summaries import summaries
from studies.database.trials import Trial
from studies.database.weights import kept_files
from studies.grid import Spec
from studies.search import round as rounds
from studies.search.donors import best_trial
from studies.search.ledger import Ledger
from studies.search.listener import Listener
from studies.search.round import Member, Observer, Reports, Round
from studies.search.rungs import ReportGrid
from studies.search.search import Search
from studies.search.space import hyperparameters
from studies.search.training import Training
from studies.workspace import Workspace
from tuner import readouts


@dataclass
class Course:
    """How a study's best came down.

    Attributes
    ----------
    points
        CPU seconds of its share so far, its multiply-adds so far, and its best value then, report by report.
    seconds, macs
        In all.
    """

    points: list[tuple[float, float, float]] = field(default_factory=list)
    seconds: float = 0.0
    macs: float = 0.0
    best: float = np.inf

    def reached(self, value: float) -> tuple[float, float] | None:
        """Seconds and multiply-adds until the best was at ``value`` or below; None: never."""
        return next(((s, m) for s, m, best in self.points if best <= value), None)


@dataclass(frozen=True)
class Winner:
    """What a study ended with: its best value, the same retrained alone, and its loss on the test images."""

    value: float
    alone: float
    test: float


class _Watch:
    """Shares the CPU time of a search among the studies of each round, and follows their bests."""

    def __init__(self, workspace: Workspace, specs: Sequence[Spec]) -> None:
        self.courses = {spec.name: Course() for spec in specs}
        self._by_units = {
            (spec.shape, tuple(spec.units), spec.key.readout): spec.name for spec in specs
        }
        self._specs = {spec.name: spec for spec in specs}
        self._batch = workspace.experiment.training.batch_size
        self._held_out = len(workspace.cuts.held_out)
        self._last = time.process_time()

    def begin(self) -> None:
        """Start the clock."""
        self._last = time.process_time()

    def wrapped(self, running: Round, observer: Observer | None, readout: str) -> Observer:
        """An observer that passes on what it sees."""
        shape = running.trainer.kernel.shape
        names = [self._by_units[shape, tuple(m.units), readout] for m in running.members]
        of = {t.trial_id: n for n, m in zip(names, running.members, strict=True) for t in m.trials}
        before = 0

        def observe(step: int, steps: int, alive: int, rows: Reports) -> None:
            nonlocal before
            if observer is not None:
                observer(step, steps, alive, rows)
            now = time.process_time()
            share, self._last = (now - self._last) / len(names), now
            for name in names:
                course = self.courses[name]
                mine = [value for trial, _, value in rows if of[trial] == name]
                images = 2 * self._batch * (step - before) + self._held_out
                spec = self._specs[name]
                course.macs += len(mine) * images * spec.shape.size * len(spec.units)
                course.seconds += share
                course.best = min([course.best, *mine])
                course.points.append((course.seconds, course.macs, course.best))
            before = step

        return observe

    def end(self, specs: Sequence[Spec]) -> None:
        """What came after the last report is everyone's."""
        rest = (time.process_time() - self._last) / len(specs)
        for spec in specs:
            self.courses[spec.name].seconds += rest


@contextmanager
def _watching(watch: _Watch) -> Iterator[None]:
    whole, built = Round.run, Training._round
    readout: list[str] = []

    def train(self: Training, specs: Sequence[Spec], *more: object) -> rounds.Result:
        readout[:] = [specs[0].key.readout]
        return built(self, specs, *more)  # type: ignore[arg-type]

    def run(self: Round, observer: Observer | None = None) -> rounds.Result:
        return whole(self, watch.wrapped(self, observer, readout[0]))

    Round.run, Training._round = run, train  # type: ignore[method-assign, assignment]
    try:
        with without_pictures():
            yield
    finally:
        Round.run, Training._round = whole, built  # type: ignore[method-assign]


def search(
    workspace: Workspace, stores: Stores, specs: Sequence[Spec], n_trials: int
) -> dict[str, Course]:
    """Search studies together; all that the process does counts, features being in the cache."""
    watch = _Watch(workspace, specs)
    watch.begin()
    with _watching(watch):
        Search(Ledger(workspace, stores, specs, n_trials=n_trials)).run()
    watch.end(specs)
    return watch.courses


def winner(workspace: Workspace, stores: Stores, spec: Spec) -> Winner:
    """The best trial as kept, and trained again by itself."""
    study = stored_studies(stores.storage)[spec.name]
    loaded = trials.load(stores.storage, [study.study_id])[study.study_id]
    best = best_trial(loaded)
    assert best is not None
    assert best.value is not None
    training = Training(workspace, {spec.name: study}, Listener(), lambda rows: None)
    again = Trial(-1, study.study_id, best.number, best.state, best.params)
    member = Member(
        spec.units,
        [hyperparameters(spec.space, best.params)],
        [again],
        [],
        workspace.mean_loss(spec.units),
    )
    alone = Round(
        [member],
        [[(0, spec.units)]],
        training._trainer_of(spec),
        reports=ReportGrid.of(workspace.experiment).steps,
        prune=False,
    ).run()
    value = alone.outcomes[0][0].value
    assert value is not None
    tensors = kept_files(stores.storage, study.study_id)[best.number].read(stores.artifacts)
    tensors = {n: t for n, t in tensors.items() if n not in ("unit_loss", "held_out", "trial")}
    kernel = readouts.get(spec.key.readout).kernel(spec.shape, torch.device("cpu"))
    features = workspace.features.of(spec.key.backbone, spec.key.layer).test
    x = torch.from_numpy(np.asarray(features, dtype=np.float32)).flatten(1)
    test = loss_of(kernel.answer(tensors, x).T, test_target(workspace, spec))
    return Winner(best.value, value, test)


def test_target(workspace: Workspace, spec: Spec) -> torch.Tensor:
    """``(n_test, n_units)`` mean over repeats, scaled as the training responses are."""
    responses = workspace.recording.test_responses
    assert responses is not None
    scaled = workspace.scaling.apply(np.nanmean(responses, axis=0))
    return torch.from_numpy(np.asarray(scaled, dtype=np.float32)[:, spec.units])


def smooth(workspace: Workspace, stores: Stores, specs: Sequence[Spec]) -> dict[str, float]:
    """Validation loss of the closed forms of these studies."""
    with without_pictures():
        Search(Ledger(workspace, stores, specs, n_trials=1)).run()
    stored = stored_studies(stores.storage)
    found = summaries(stores.storage, [stored[spec.name] for spec in specs])
    return {one.study.name: one.loss for one in found if one.loss is not None}
