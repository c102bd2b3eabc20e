"""Copies of the same features change nothing: every rate and penalty means the same at every size of a layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fitting.test_trainer import Table
from tuner import readouts
from tuner.fitting.columns import Columns
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts import sizes
from tuner.readouts.readout import FeatureShape

IMAGES, UNITS, STEPS = 60, 2, 30
CHANNELS, SIDE = 4, 3
SETTING = {
    "full": {"sparsity": 0.02, "group_sparsity": 0.01, "weight_decay": 0.01, "smoothness": 1e-3},
    "factorized": {"sparsity": 0.02, "weight_decay": 0.05, "smoothness": 1e-3},
}


def predictions(
    readout: str, channels: int, cells: int, *, smooth: bool = True, size_invariant: bool = True
) -> Tensor:
    """Responses after training on so many copies of each channel, and of each cell beside it."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((IMAGES, CHANNELS, SIDE, SIDE))
    responses = maps.reshape(IMAGES, -1) @ rng.standard_normal((CHANNELS * SIDE**2, UNITS))
    responses /= responses.std(0)
    x = maps.repeat(cells, axis=3).repeat(channels, axis=1)
    shape = FeatureShape(CHANNELS * channels, SIDE, SIDE * cells)
    rows = np.arange(IMAGES)
    fit = responses[:40].astype(np.float32)
    trainer = Trainer(
        readouts.get(readout).kernel(shape, torch.device("cpu"), dtype=torch.float64),
        Table(torch.from_numpy(x.reshape(IMAGES, -1))),
        Targets(fit, responses[40:].astype(np.float32), rows[:40], rows[40:], rows[40:] % 2),
        loss="mse",
        batch_size=20,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float64,
        size_invariant=size_invariant,
    )
    trial = {"learning_rate": 0.02, "drop": 20.0, **SETTING[readout]}
    trial["smoothness"] *= smooth
    state = trainer.start(Columns.of_trials([trial], [np.arange(UNITS)]))
    if readout == "factorized":  # drawn for every channel, so no copies
        first = torch.linspace(-0.1, 0.1, UNITS * CHANNELS, dtype=torch.float64)
        alike = first.view(UNITS, CHANNELS).repeat_interleave(channels, dim=1)
        state.parameters["features"].copy_(alike / math.sqrt(channels * cells))
    trainer.advance(state, 0, STEPS)
    return trainer.kernel.responses(state.parameters, trainer.features.batch(torch.arange(IMAGES)))


@pytest.mark.parametrize("readout", sorted(SETTING))
def test_copies_of_channels_change_nothing(readout: str) -> None:
    alone, copied = (predictions(readout, count, 1) for count in (1, 25))
    torch.testing.assert_close(copied, alone, rtol=1e-4, atol=1e-5)
    as_before = predictions(readout, 25, 1, size_invariant=False)
    assert (as_before - predictions(readout, 1, 1, size_invariant=False)).abs().max() > 0.1


@pytest.mark.parametrize("readout", sorted(SETTING))
def test_a_finer_grid_of_the_same_changes_nothing(readout: str) -> None:
    """But for smoothness: neighbours that are copies of each other are smoother than what they are copies of."""
    alone, finer = (predictions(readout, 1, count, smooth=False) for count in (1, 9))
    torch.testing.assert_close(finer, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("readout", sorted(SETTING))
def test_values_are_what_is_written_at_a_layer_of_middle_size(readout: str) -> None:
    shape = FeatureShape(sizes.CHANNELS, 8, sizes.CELLS // 8)
    factors = readouts.get(readout).kernel(shape, torch.device("meta")).size_factors()
    assert set(factors.values()) == {1.0}
