from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import InputError
from tuner.recordings import cut, deal


@given(
    n=st.integers(2, 300),
    n_groups=st.integers(2, 60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_cut_is_complete_disjoint_and_by_group(
    n: int, n_groups: int, fraction: float, seed: int
) -> None:
    groups = np.random.default_rng(seed).integers(0, n_groups, n) * 7 - 3
    groups[:2] = [-100, 1000]
    split = cut(n, groups, fraction, seed)
    assert sorted([*split.fit, *split.validation]) == list(range(n))
    assert split.fit.size > 0
    assert split.validation.size > 0
    assert not set(groups[split.fit]) & set(groups[split.validation])
    assert (np.diff(split.fit) > 0).all()
    again = cut(n, groups, fraction, seed)
    np.testing.assert_array_equal(split.validation, again.validation)


@pytest.mark.parametrize(("n", "fraction"), [(1100, 0.1), (22248, 0.1), (100, 0.25), (7, 0.5)])
def test_the_share_is_kept(n: int, fraction: float) -> None:
    assert len(cut(n, None, fraction, 0).validation) == round(n * fraction)


def test_seeds_give_different_cuts() -> None:
    cuts = {tuple(cut(200, None, 0.1, seed).validation) for seed in range(20)}
    assert len(cuts) == 20


def test_the_cut_is_spread_over_the_order_of_the_groups() -> None:
    for seed in range(20):
        chosen = cut(200, None, 0.1, seed).validation
        assert (np.bincount(chosen // 20, minlength=10) == 2).all()


def test_every_image_has_its_turn() -> None:
    chosen = np.concatenate([cut(30, None, 0.2, seed).validation for seed in range(60)])
    assert set(chosen) == set(range(30))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"data\.validation_fraction"):
        cut(10, None, fraction, 0)


def test_one_group_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="only 1 group"):
        cut(10, np.zeros(10, np.int64), 0.1, 0)
    with pytest.raises(InputError, match="only 1 training image"):
        cut(1, None, 0.1, 0)


@given(
    n=st.integers(2, 300),
    n_groups=st.integers(2, 60),
    folds=st.integers(2, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_folds_are_complete_disjoint_and_by_group(
    n: int, n_groups: int, folds: int, seed: int
) -> None:
    groups = np.random.default_rng(seed).integers(0, n_groups, n) * 7 - 3
    groups[:2] = [-100, 1000]
    splits = deal(n, groups, folds, seed)
    assert len(splits) == min(folds, len(np.unique(groups)))
    held_out = np.concatenate([split.validation for split in splits])
    assert sorted(held_out) == list(range(n))
    for split in splits:
        assert split.validation.size > 0
        assert sorted([*split.fit, *split.validation]) == list(range(n))
        assert not set(groups[split.fit]) & set(groups[split.validation])
    counts = [len(np.unique(groups[split.validation])) for split in splits]
    assert max(counts) - min(counts) <= 1
    for split, again in zip(splits, deal(n, groups, folds, seed), strict=True):
        np.testing.assert_array_equal(split.validation, again.validation)


def test_folds_need_two_groups() -> None:
    with pytest.raises(InputError, match="only 1 group"):
        deal(10, np.zeros(10, dtype=np.int64), 5, 0)
