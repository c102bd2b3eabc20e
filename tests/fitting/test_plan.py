"""What is trained together, and the memory it is said to take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tuner.errors import EnvironmentFailure
from tuner.fitting.plan import Group, column_bytes, fixed_bytes, grouping
from tuner.fitting.trainer import validation_chunk
from tuner.readouts import READOUTS, TRAINED
from tuner.readouts.readout import FeatureShape

CPU = torch.device("cpu")
SHAPE = FeatureShape(64, 24, 24)
BATCH, TRIALS = 50, 8


def cut(sizes: list[int], columns: float, readout: str = "full", steps: int = 1) -> list[Group]:
    """Groups of studies of these many units, where so many columns fit."""
    kind = READOUTS[readout]
    each = column_bytes(kind.kernel(SHAPE, CPU), BATCH)
    bounds = np.cumsum([0, *sizes])
    return grouping(
        [np.arange(a, b) for a, b in itertools.pairwise(bounds)],
        TRIALS,
        readout=kind,
        shape=SHAPE,
        batch_size=BATCH,
        steps=steps,
        device=CPU,
        memory=fixed_bytes(SHAPE, BATCH, CPU) + int(columns * each),
        compiled=False,
    )


def test_what_fits_is_trained_together() -> None:
    (group,) = cut([3, 4, 5], columns=96)
    assert group.studies == (0, 1, 2)
    assert [len(block.units) for block in group.turns[0]] == [3, 4, 5]


def test_what_does_not_fit_is_cut_between_studies() -> None:
    groups = cut([3, 4, 5], columns=95)
    assert [group.studies for group in groups] == [(0, 1), (2,)]
    assert all(len(group.turns) == 1 for group in groups)


@pytest.mark.parametrize("readout", sorted(TRAINED))
def test_a_study_that_is_too_big_is_cut_into_blocks_of_units(readout: str) -> None:
    groups = cut([2, 31, 3], columns=10 * TRIALS, readout=readout)
    assert [group.studies for group in groups] == [(0,), (1,), (2,)]
    turns = groups[1].turns
    assert [len(block.units) for (block,) in turns] == [8, 8, 8, 7]
    together = np.concatenate([block.units for (block,) in turns])
    np.testing.assert_array_equal(together, np.arange(2, 33))


def test_a_round_does_not_take_for_ever() -> None:
    """Some 10 minutes of work at most make a group, whatever the memory."""
    assert len(cut([30, 30, 30], columns=10000, steps=900)) == 1
    assert len(cut([30, 30, 30], columns=10000, steps=9000)) == 3


def test_one_unit_with_all_its_trials_must_fit() -> None:
    with pytest.raises(EnvironmentFailure, match=r"training\.memory: one unit of a full readout"):
        cut([3], columns=TRIALS - 1)
    assert len(cut([3], columns=TRIALS)[0].turns) == 3


def test_validation_is_read_in_chunks_that_the_shape_bounds() -> None:
    assert validation_chunk(FeatureShape(320, 2, 2)) == 256
    assert validation_chunk(FeatureShape(512, 28, 28)) == 83
    assert validation_chunk(FeatureShape(64, 224, 224)) == 16
