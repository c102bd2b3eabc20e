from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from studies.database import rounds
from studies.database.artifacts import Artifacts, Tensors
from studies.database.connection import Storage
from studies.database.rounds import Asked, Told
from studies.database.studies import NewStudy, Stored, add, delete, stored_studies
from studies.database.trials import Outcome, Proposal, Trial
from studies.names import StudyKey
from studies.search import best_weights
from studies.search.best_weights import CHOICE, Fitted, best_first, kept_files
from tuner.errors import EnvironmentFailure, InputError

UNITS = 4


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(f"sqlite:///{tmp_path}/t.db", create=True)
    yield made
    made.close()


def new_study(storage: Storage, region: str) -> Stored:
    add(storage, [NewStudy(StudyKey("a", "b", region, "full"), 0, {}, {})])
    return next(s for s in stored_studies(storage).values() if s.key.region == region)


class Keeper:
    """Tells rounds of made-up trials."""

    def __init__(self, storage: Storage, artifacts: Artifacts, region: str, keep: int) -> None:
        self.storage, self.artifacts, self.keep = storage, artifacts, keep
        self.study = new_study(storage, region)
        self.done: list[Trial] = []
        self.fitted: list[Fitted] = []

    def round(self, losses: list[list[list[float]] | None]) -> None:
        """One trial each: loss of every unit on both halves, or None for a pruned one."""
        asked = Asked(self.study, [], [Proposal({})] * len(losses), {})
        trials = rounds.ask(self.storage, [asked])[0]
        fitted, outcomes = [], []
        for trial, loss in zip(trials, losses, strict=True):
            trial.state = TrialState.PRUNED if loss is None else TrialState.COMPLETE
            trial.value = (
                9.0
                if loss is None
                else float(np.mean(loss[1:] if np.isnan(loss[0]).any() else loss))
            )
            outcomes.append(Outcome(trial.trial_id, trial.state, trial.value, {}))
            if loss is not None:
                weights = {"weight": torch.full((UNITS, 2), float(trial.number))}
                fitted.append(Fitted(trial, trial.value, weights, np.array(loss, dtype=float)))
        swap = best_weights.prepare(
            self.storage, self.artifacts, self.study, self.done, fitted, self.keep
        )
        rounds.tell(self.storage, [Told(self.study, outcomes, swap)])
        swap.finish(self.artifacts)
        self.done += trials
        self.fitted += fitted

    def files(self) -> dict[int | None, str]:
        kept = kept_files(self.storage, self.study.study_id)
        return {number: file.artifact_id for number, file in kept.items()}

    def read(self, number: int | None) -> Tensors:
        return kept_files(self.storage, self.study.study_id)[number].read(self.artifacts)


LOSSES = st.lists(
    st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=2, max_size=2),
                min_size=UNITS,
                max_size=UNITS,
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=3,
)


def test_a_unit_that_the_choosing_half_does_not_judge_goes_with_the_best_trial(
    storage: Storage, tmp_path: Path
) -> None:
    keeper = Keeper(storage, Artifacts(tmp_path / "artifacts"), "V1", keep=1)
    nan = float("nan")
    # Trials 0 to 2 with values 0.5, 0.2 and 0.3; unit 0 has no response in the half that chooses.
    for values in (0.5, 0.2), (0.3,):
        keeper.round([[[nan, 0.9], *[[value, value]] * (UNITS - 1)] for value in values])
    units = keeper.read(None)
    assert units["trial"].tolist() == [1] * UNITS
    assert units["unit_loss"][0].tolist() == [pytest.approx(0.2), 0.9]


def test_best_first_breaks_ties_by_the_lower_number() -> None:
    assert best_first({3: 0.5, 1: 0.5, 2: 0.1}) == [2, 1, 3]


@settings(max_examples=25, deadline=None)
@given(rounds=LOSSES, keep=st.integers(1, 3))
def test_kept_is_what_looking_at_all_trials_at_once_would_keep(
    tmp_path_factory: pytest.TempPathFactory, rounds: list, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("keeping")
    storage = Storage(f"sqlite:///{folder}/t.db", create=True)
    artifacts = Artifacts(folder / "artifacts")
    keeper = Keeper(storage, artifacts, "c", keep)
    for losses in rounds:
        keeper.round(losses)
    files = keeper.files()
    everything = sorted(keeper.fitted, key=lambda f: (f.value, f.trial.number))
    assert {n for n in files if n is not None} == {f.trial.number for f in everything[:keep]}
    for fitted in everything[:keep]:
        tensors = keeper.read(fitted.trial.number)
        assert torch.equal(tensors["weight"], fitted.parameters["weight"])
        assert np.array_equal(tensors["unit_loss"], fitted.unit_loss)
    if everything:
        units = keeper.read(None)
        for unit in range(UNITS):
            best = min(keeper.fitted, key=lambda f: (f.unit_loss[unit, CHOICE], f.trial.number))
            assert int(units["trial"][unit]) == best.trial.number
            assert units["weight"][unit].tolist() == best.parameters["weight"][unit].tolist()
            assert units["unit_loss"][unit].tolist() == best.unit_loss[unit].tolist()
    # No file without a row, no row without a file; the dashboard shows those of the trials.
    names = set(files.values())
    assert {p.name for p in artifacts.folder.glob("*")} == names
    shown = {
        key.removeprefix("artifacts:")
        for trial in storage.optuna.get_all_trials(keeper.study.study_id)
        for key in trial.system_attrs
    }
    assert shown == {name for number, name in files.items() if number is not None}
    storage.close()


def test_the_choice_is_made_on_one_half_and_not_on_the_other(
    storage: Storage, tmp_path: Path
) -> None:
    keeper = Keeper(storage, Artifacts(tmp_path / "a"), "c", 1)
    keeper.round([[[0.3, 0.1]] * UNITS, [[0.2, 0.9]] * UNITS])
    units = keeper.read(None)
    assert units["trial"].tolist() == [1] * UNITS
    assert {n for n in keeper.files() if n is not None} == {0}


def test_the_same_weights_have_the_same_name(tmp_path: Path) -> None:
    """A round that is repeated after a kill writes the same files again."""
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    names = {
        Artifacts(tmp_path / str(i)).write_tensors(tensors, {"a": "1", "b": "2", "c": "3"}, "x")[0]
        for i in range(5)
    }
    assert len(names) == 1


def test_deleting_a_study_deletes_its_files_and_no_others(storage: Storage, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a")
    one, other = (Keeper(storage, artifacts, region, 2) for region in "cd")
    for keeper in (one, other):
        keeper.round([[[0.3, 0.1]] * UNITS, [[0.2, 0.9]] * UNITS])
    delete(storage, artifacts, [one.study])
    assert {p.name for p in artifacts.folder.iterdir()} == set(other.files().values())
    assert list(stored_studies(storage)) == ["a/b/d/full"]
    assert storage.optuna.get_all_studies()[0].study_name == "a/b/d/full"


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(EnvironmentFailure, match=r"storage\.artifacts: cannot write"):
        Artifacts(tmp_path / "a").write(b"x", "y")


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_lost_or_damaged_weights_say_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    artifacts = Artifacts(tmp_path)
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="tuner doctor --fix"):
        artifacts.read_tensors("x", "study/0")
