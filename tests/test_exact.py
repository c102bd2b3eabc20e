"""What is promised to be single precision is, whatever the process has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.closed_form.smooth import fit_smooth
from tuner.exact import exact
from tuner.fitting.columns import Columns
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts import READOUTS
from tuner.readouts.readout import FeatureShape


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def rounded() -> Iterator[None]:
    """A process that has allowed TF32 everywhere."""
    matmul, before = torch.backends.cuda.matmul, flags()
    matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_what_the_process_has_chosen_comes_back() -> None:
    with pytest.raises(ValueError, match="inside"), exact():
        assert flags() == (False, False)
        raise ValueError("inside")
    assert flags() == (True, True)


class Watched:
    """Features that note how products round when they are read."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.seen: list[tuple[bool, bool]] = []

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor) -> Tensor:
        self.seen.append(flags())
        return self.values[indices]


def test_steps_and_validations_are_exact() -> None:
    rng = np.random.default_rng(0)
    features = Watched(torch.from_numpy(rng.random((60, 12), dtype=np.float32)))
    responses = rng.standard_normal((60, 2)).astype(np.float32)
    rows = np.arange(60)
    targets = Targets(responses[:40], responses[40:], rows[:40], rows[40:], np.arange(20) % 2)
    trainer = Trainer(
        READOUTS["full"].kernel(FeatureShape(3, 2, 2), torch.device("cpu")),
        features,
        targets,
        loss="mse",
        batch_size=10,
        seed=0,
        device=torch.device("cpu"),
    )
    settings = dict.fromkeys(READOUTS["full"].penalties, 0.0)
    settings |= {"learning_rate": 0.1, "drop": 50.0}
    state = trainer.start(Columns.of_trials([settings], [np.arange(2)]))
    trainer.advance(state, 0, 2)
    trainer.validate(state)
    assert len(features.seen) >= 3
    assert set(features.seen) == {(False, False)}


class Maps:
    """Maps that note how products round when they are read."""

    def __init__(self, values: NDArray[np.float16]) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.seen: list[tuple[bool, bool]] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> NDArray[np.float16]:
        self.seen.append(flags())
        return self.values[rows]


def test_closed_forms_are_exact() -> None:
    rng = np.random.default_rng(0)
    maps = Maps(rng.random((40, 3, 2, 2)).astype(np.float16))
    fit_smooth(maps, rng.standard_normal((40, 2)), np.arange(40))
    assert maps.seen
    assert set(maps.seen) == {(False, False)}
