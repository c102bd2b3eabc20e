"""What must be true of an experiment whatever was done: each trial done once under its settings, each file its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.database import own_tables, trials, weights
from studies.database.artifacts import UnreadableWeights
from studies.database.stores import Stores, open_stores
from studies.database.studies import Stored, stored_studies
from studies.search.best_weights import best_first
from studies.search.rungs import ReportGrid
from tests.soak import journal, stand_in
from tests.studies.small import REGIONS
from tuner.errors import TunerError

REGION_UNITS = {"V1": range(REGIONS["V1"]), "IT": range(REGIONS["V1"], sum(REGIONS.values()))}

Finished = dict[tuple[str, int], tuple[dict[str, float], float | None]]


class Model:
    """Looks at an experiment again and again, and remembers what was finished.

    Parameters
    ----------
    config
        The experiment's file.
    keep
        Best trials of a study whose weights are kept.
    """

    def __init__(self, config: Path, keep: int) -> None:
        self.config, self.keep = config, keep
        self.problems: list[str] = []
        self.flipped = False
        """Whether a file was damaged: then trials may be put back to be run again."""
        self.finished: Finished = {}

    @contextmanager
    def stores(self) -> Iterator[Stores]:
        with open_stores(load_experiment(self.config)) as stores:
            yield stores

    def check(self) -> None:
        """Hold what is there to what must be: nothing foreign, nothing lost, no trial that two had."""
        try:
            with self.stores() as stores:
                self._check(stores)
        except TunerError as error:
            if "no studies yet" not in str(error):
                raise

    def _check(self, stores: Stores) -> None:
        studies = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
        # A study that went between the two looks has no trials, or another's.
        again = {s.seal for s in stored_studies(stores.storage).values()}
        seen: Finished = {}
        for name, study in studies.items():
            if study.seal not in again:
                continue
            mine = loaded[study.study_id]
            if [t.number for t in mine] != list(range(len(mine))):
                self.problems.append(f"{name}: numbers {[t.number for t in mine]}")
            for trial in mine:
                self._check_trial(name, study, trial)
                if trial.state in trials.FINISHED:
                    seen[study.seal, trial.number] = (trial.params, trial.value)
        seals = {s.seal for s in studies.values()} & again
        for (seal, number), was in self.finished.items():
            now = seen.get((seal, number))
            if seal in seals and now != was and not (self.flipped and now is None):
                self.problems.append(f"trial {number} was {was} and is {now}")
        self.finished = seen
        self.problems += journal.problems(stores.storage)

    def _check_trial(self, name: str, study: Stored, trial: trials.Trial) -> None:
        made = study.fingerprint
        steps = ReportGrid.as_made(made).steps
        expected = stand_in.curve(trial.params, REGION_UNITS[study.key.region], steps)
        if trial.state in trials.FINISHED:
            right = trial.curve == expected and trial.value == expected[max(expected)]
        else:
            right = all(expected.get(step) == value for step, value in trial.curve.items())
        if not right:
            self.problems.append(
                f"{name}, trial {trial.number} ({trial.state.name}): {trial.value} {trial.curve} and "
                f"should be {expected}"
            )

    def check_files(self) -> None:
        """Each kept file is the one that was trained, and those that are kept are the best; nobody works any more."""
        with self.stores() as stores:
            studies = stored_studies(stores.storage)
            loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
            for name, study in studies.items():
                complete = {
                    t.number: t.value
                    for t in loaded[study.study_id]
                    if t.state == TrialState.COMPLETE and t.value is not None
                }
                kept = weights.kept_files(stores.storage, study.study_id)
                best = set(best_first(complete)[: self.keep])
                if {n for n in kept if n is not None} != best:
                    self.problems.append(f"{name}: kept {sorted(map(str, kept))}, best {best}")
                for number, file in kept.items():
                    try:
                        self._check_file(name, number, file.read(stores.artifacts), complete)
                    except UnreadableWeights as error:
                        self.problems.append(str(error))
            with stores.storage.read() as connection:
                rows = connection.execute(sa.select(own_tables.weights.c.study_id)).scalars()
                if strays := set(rows) - {s.study_id for s in studies.values()}:
                    self.problems.append(f"weights of studies {strays}, which are not there")

    def _check_file(self, name: str, number: int | None, tensors: object, complete: object) -> None:
        assert isinstance(tensors, dict)
        assert isinstance(complete, dict)
        weight = tensors["weight"].numpy().reshape(len(tensors["weight"]), -1)
        numbers = tensors["trial"].tolist() if number is None else [number] * len(weight)
        expected = np.array([np.float32(complete.get(n, np.nan)) for n in numbers])
        if not np.array_equal(weight, np.repeat(expected[:, None], weight.shape[1], 1)):
            self.problems.append(f"{name}: weights of {number} are not what was trained")

    def counts(self) -> dict[str, int]:
        """Study to its finished trials."""
        with self.stores() as stores:
            studies = stored_studies(stores.storage)
            loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
            return {
                name: sum(t.state in trials.FINISHED for t in loaded[s.study_id])
                for name, s in studies.items()
            }
