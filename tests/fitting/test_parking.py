"""Columns that wait: what is parked comes back as it was, whatever happened to its columns meanwhile."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fitting.test_trainer import make, random_trials
from tuner.errors import EnvironmentFailure
from tuner.fitting import parking
from tuner.fitting.columns import Columns, ColumnState
from tuner.readouts import TRAINED


def lives(readout: str, folder: Path, *, parks: bool) -> ColumnState:
    """Columns that are trained, remembered and pruned, and wait in between or do not."""
    trainer, _, _ = make(readout, 3)
    trainer.parking = folder
    columns = Columns.of_trials(random_trials(readout, 5), [np.arange(3)] * 5)
    state = trainer.start(columns, parked=parks)
    steps = [(0, 10), (10, 20), (20, 30)]
    improved = [np.arange(15), np.array([0, 1, 2, 6, 7, 8]), np.array([3, 4, 5])]
    kept = [np.arange(15), np.array([0, 1, 2, 6, 7, 8, 12, 13, 14]), np.array([3, 4, 5, 6, 7, 8])]
    for (first, last), better, rest in zip(steps, improved, kept, strict=True):
        state.resume()
        trainer.advance(state, first, last)
        if parks:
            state.park()
            assert not state.parameters
        state.remember(better)
        state.keep(rest)
    return state


@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_waiting_changes_nothing(readout: str, tmp_path: Path) -> None:
    waited, stayed = (lives(readout, tmp_path, parks=parks) for parks in (True, False))
    rows = np.array([3, 4, 5])
    np.testing.assert_array_equal(waited.columns.trial, stayed.columns.trial)
    for name, value in stayed.best_of(rows).items():
        assert torch.equal(waited.best_of(rows)[name], value), name
        assert torch.equal(waited.best_of(rows[[2, 0]])[name], value[[2, 0]]), name
    assert not waited.parameters
    waited.resume()
    for name, value in stayed.tensors().items():
        assert torch.equal(waited.tensors()[name], value), name
    assert torch.equal(waited.learning_rate, stayed.learning_rate)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    state = lives("full", tmp_path, parks=True)
    state.park()
    assert not list(tmp_path.iterdir())


def test_parked_columns_have_no_tensors_before_they_begin(tmp_path: Path) -> None:
    trainer, _, _ = make("full", 2)
    columns = Columns.of_trials(random_trials("full", 2), [np.arange(2)] * 2)
    state = trainer.start(columns, parked=True)
    assert not state.parameters
    state.keep(np.array([2, 3]))
    state.resume()
    assert state.parameters["weight"].shape == (2, 120)
    np.testing.assert_array_equal(state.columns.trial, [1, 1])


def test_all_columns_may_be_pruned_while_they_wait(tmp_path: Path) -> None:
    trainer, _, _ = make("factorized", 2)
    columns = Columns.of_trials(random_trials("factorized", 2), [np.arange(2)] * 2)
    state = trainer.start(columns)
    trainer.advance(state, 0, 2)
    state.park()
    state.keep(np.array([], dtype=np.int64))
    assert len(state) == 0
    state.resume()
    assert state.parameters["features"].shape[0] == 0


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, piece: memoryview) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parking._OnDisk, "_write", full)
    with pytest.raises(EnvironmentFailure, match=r"is full; training needs 0\.00 GB") as caught:
        parking.park({"w": torch.zeros(3, 2)}, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "rows", [[0, 1, 2], [1, 3, 4, 5, 9], [9], [3, 4, 5, 6, 7, 8, 9], [5, 2, 2], []]
)
def test_rows_move_together_in_place(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.fitting import columns

    table = torch.arange(30.0).view(10, 3)
    expected = table[rows]
    taken = columns._taken(table, np.array(rows, dtype=np.int64))
    assert torch.equal(taken, expected)
    ascending = rows == sorted(set(rows))
    assert not rows or (taken.data_ptr() == table.data_ptr()) == ascending
