"""Training the trials of a round: cut as planned, finer where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from studies.database import trials
from studies.database.studies import Stored
from studies.database.trials import Outcome, Trial
from studies.grid import Spec
from studies.search.listener import Listener
from studies.search.round import Member, Reports, ReportWriter, Result, Round
from studies.search.rungs import ReportGrid
from studies.search.space import hyperparameters
from studies.search.start import start_of
from studies.workspace import Workspace

if TYPE_CHECKING:
    from studies.search.best_weights import Fitted
    from tuner.fitting.plan import Group
    from tuner.fitting.trainer import Trainer

FINEST = 64
"""Smallest share of the planned memory that is tried, as its inverse."""

Trials = Mapping[str, list[Trial]]
Ended = tuple[list[Outcome], "list[Fitted]"]


class Training:
    """Trains studies of one cohort at a time; the trainer of the last one is kept.

    Parameters
    ----------
    workspace
        The experiment.
    stored
        All studies in the database.
    write
        Writes reports of running trials.
    """

    def __init__(
        self,
        workspace: Workspace,
        stored: Mapping[str, Stored],
        listener: Listener,
        write: Callable[[Reports], None],
    ) -> None:
        self.workspace = workspace
        self.stored = stored
        self.listener = listener
        self._write = write
        self._trainer: tuple[object, Trainer] | None = None

    def cut(self, members: Sequence[Spec], shrink: int = 1) -> list[tuple[list[Spec], Group]]:
        """Cut specs of one cohort into groups, by the plans that were fixed when they were created."""
        from tuner import readouts
        from tuner.fitting.plan import grouping

        training = self.workspace.experiment.training
        by_plan: dict[tuple[int, bool], list[Spec]] = {}
        for spec in members:
            plan = self.stored[spec.name].plan
            by_plan.setdefault((plan["memory"], plan["compiled"]), []).append(spec)
        out = []
        for (memory, compiled), some in by_plan.items():
            groups = grouping(
                [spec.units for spec in some],
                self.workspace.experiment.search.parallel_trials,
                readout=readouts.get(some[0].key.readout),
                shape=some[0].shape,
                batch_size=training.batch_size,
                steps=training.steps,
                device=self.workspace.device,
                memory=(memory - self.workspace.features.held_bytes(some[0].shape, memory))
                // shrink,
                compiled=compiled,
                folds=self.workspace.cuts.n_folds,
                judged=self.workspace.cuts.judged,
            )
            out += [([some[i] for i in group.studies], group) for group in groups]
        return out

    def run(
        self, specs: Sequence[Spec], asked: Trials, history: Trials
    ) -> Iterator[tuple[str, Ended]]:
        """Train the asked trials of studies of one cohort; yields each study's outcomes and weights.

        Parameters
        ----------
        asked
            Trials to train, by name of the study.
        history
            All trials of each study before the round.
        """
        shrink = 1
        done: set[str] = set()
        while True:
            try:
                for some, group in self.cut([s for s in specs if s.name not in done], shrink):
                    result = self._round(some, group, asked, history)
                    for spec, outcomes, fitted in zip(
                        some, result.outcomes, result.fitted, strict=True
                    ):
                        done.add(spec.name)
                        yield spec.name, (outcomes, fitted)
                return
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or shrink >= FINEST:
                    raise
                self._trainer = None
                shrink *= 2
                self.listener.say(
                    f"out of memory; going on with 1/{shrink} of the planned memory at a time"
                )

    def _round(self, specs: Sequence[Spec], group: Group, asked: Trials, history: Trials) -> Result:
        experiment = self.workspace.experiment
        grid = ReportGrid.of(experiment)
        size = experiment.search.parallel_trials
        members = [
            Member(
                units=spec.units,
                hyperparameters=[hyperparameters(spec.space, t.params) for t in asked[spec.name]],
                trials=asked[spec.name],
                earlier=_begun(history[spec.name], asked[spec.name], size),
                mean_loss=self.workspace.mean_loss(spec.units),
            )
            for spec in specs
        ]
        place = {study: i for i, study in enumerate(group.studies)}
        turns = [[(place[b.study], b.units) for b in turn] for turn in group.turns]
        running = Round(
            members,
            turns,
            self._trainer_of(specs[0]),
            reports=grid.steps,
            prune=experiment.search.pruner == "median",
            rungs=grid.rungs,
        )
        what = "/".join(specs[0].cohort)
        n = sum(len(m.trials) for m in members)
        writer = ReportWriter(self._write)

        def reported(step: int, steps: int, running: int, rows: Reports) -> None:
            self.listener.training(what, n, step, steps, running)
            writer.add(rows)

        return running.run(reported)

    def _trainer_of(self, spec: Spec) -> Trainer:
        from tuner import readouts
        from tuner.fitting.trainer import Trainer

        plan = self.stored[spec.name].plan
        key = (spec.cohort, plan["compiled"], plan["memory"])
        if self._trainer is not None and self._trainer[0] == key:
            return self._trainer[1]
        # The old one's features go before the new one's are brought in.
        self._trainer = None
        experiment, device = self.workspace.experiment, self.workspace.device
        backbone, layer = spec.key.backbone, spec.key.layer
        store = self.workspace.features.store(backbone, layer, plan["memory"])
        targets = self.workspace.targets
        center = self.workspace.features.center(backbone, layer, store)
        start = start_of(self.workspace, spec, targets, store, plan["memory"], center=center)
        trainer = Trainer(
            readouts.get(spec.key.readout).kernel(spec.shape, device, compiled=plan["compiled"]),
            store,
            targets,
            loss=experiment.training.loss,
            batch_size=experiment.training.batch_size,
            seed=experiment.search.seed,
            device=device,
            center=center,
            size_invariant=experiment.training.size_invariant,
            start=start,
            parking=experiment.storage.cache,
        )
        self._trainer = (key, trainer)
        return trainer


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the host's or the device's memory did not suffice."""
    import torch

    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def _begun(history: Sequence[Trial], asked: Sequence[Trial], size: int) -> list[Trial]:
    """Finished trials of rounds up to the one in which these were begun.

    That is all of them, but where a trial runs again whose weights were lost: it is not measured by what came after it.
    """
    end = (max(trial.number for trial in asked) // size + 1) * size
    return [t for t in history if t.state in trials.FINISHED and t.number < end]
