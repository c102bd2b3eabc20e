"""Folds as columns: a column with its fold masked is the column trained without those images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.fitting.test_trainer import SHAPE, Table, random_trials
from tuner.fitting.columns import Columns
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts import READOUTS
from tuner.recordings.split import deal

IMAGES, UNITS, FOLDS = 200, 4, 3


def responses(missing: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features ``(n, F)`` and scaled responses ``(n, units)`` to them."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((IMAGES, SHAPE.size)), 0).astype(np.float32)
    y = x @ rng.standard_normal((SHAPE.size, UNITS))
    scaled = ((y - y.mean(0)) / y.std(0)).astype(np.float32)
    scaled += 0.5 * rng.standard_normal(scaled.shape).astype(np.float32)
    scaled[rng.random(scaled.shape) < missing] = np.nan
    return x, scaled


def trainer_of(
    readout: str, x: NDArray[np.float32], targets: Targets, loss: str = "mse"
) -> Trainer:
    return Trainer(
        READOUTS[readout].kernel(SHAPE, torch.device("cpu")),
        Table(torch.from_numpy(x)),
        targets,
        loss=loss,
        batch_size=24,
        seed=3,
        device=torch.device("cpu"),
        center=torch.from_numpy(x.mean(0)),
    )


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("readout", sorted(READOUTS))
def test_a_column_equals_itself_trained_alone_without_its_fold(
    readout: str, missing: float
) -> None:
    x, scaled = responses(missing)
    splits, half = deal(IMAGES, None, FOLDS, seed=1), np.arange(IMAGES) % 2
    trainer = trainer_of(readout, x, Targets.of(scaled, splits, half))
    trials = random_trials(readout, 3)
    columns = Columns.of_trials(trials, [np.arange(UNITS)] * 3, folds=FOLDS)
    assert len(columns) == 3 * UNITS * FOLDS
    together = trainer.start(columns)
    trainer.advance(together, 0, 70)
    sums = trainer.validate(together)
    every = np.arange(IMAGES)
    for k in (0, 7, 17, 35):
        fold = int(columns.fold[k])
        blind = scaled.copy()
        blind[splits[fold].validation] = np.nan
        held_out = splits[fold].validation
        alone = trainer_of(
            readout, x, Targets(blind, scaled[held_out], every, held_out, half[held_out])
        )
        state = alone.start(columns.take(np.array([k])))
        state.columns.fold[:] = 0
        alone.advance(state, 0, 70)
        np.testing.assert_allclose(alone.validate(state)[0], sums[k], rtol=1e-4)
        for name, value in state.parameters.items():
            close = together.parameters[name][[k]]
            torch.testing.assert_close(close, value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["mse", "poisson"])
@pytest.mark.parametrize("readout", sorted(READOUTS))
def test_remembered_answers_are_those_of_the_fold_that_did_not_see_the_image(
    readout: str, loss: str
) -> None:
    x, scaled = responses(0.1)
    if loss == "poisson":
        scaled = np.exp(scaled)
    splits, half = deal(IMAGES, None, FOLDS, seed=1), np.arange(IMAGES) % 2
    trainer = trainer_of(readout, x, Targets.of(scaled, splits, half), loss)
    columns = Columns.of_trials(random_trials(readout, 1), [np.arange(UNITS)], folds=FOLDS)
    state = trainer.start(columns)
    trainer.advance(state, 0, 30)
    trainer.validate(state)
    state.remember(np.arange(len(state)))
    trainer.advance(state, 30, 40)  # what comes after is not remembered
    trainer.validate(state)
    state.park()
    state.resume()
    maps = torch.from_numpy(x).view(-1, SHAPE.channels, SHAPE.height, SHAPE.width)
    for fold, split in enumerate(splits):
        mine = np.flatnonzero(columns.fold == fold)
        expected = READOUTS[readout].predict(state.best_of(mine), maps[split.validation])
        found = state.best_answers(mine)[:, : len(split.validation)]
        torch.testing.assert_close(found, expected.T, rtol=1e-3, atol=1e-4)


def test_pruned_columns_leave_the_folds_of_the_others_in_order() -> None:
    x, scaled = responses(0.0)
    splits, half = deal(IMAGES, None, FOLDS, seed=1), np.arange(IMAGES) % 2
    trainer = trainer_of("full", x, Targets.of(scaled, splits, half))
    trials = random_trials("full", 3)
    columns = Columns.of_trials(trials, [np.arange(UNITS)] * 3, folds=FOLDS)
    state = trainer.start(columns)
    trainer.advance(state, 0, 20)
    before = trainer.validate(state)
    rows = np.flatnonzero(columns.trial == 1)
    state.keep(rows)
    np.testing.assert_allclose(trainer.validate(state), before[rows], rtol=1e-5)
