"""Tiers: the same numbers from each, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.features.tiny import Pictures, tiny
from tuner.backbones import load_backbone
from tuner.errors import InputError
from tuner.features.cache import FeatureCache
from tuner.features.extract import LayerFeatures, extract
from tuner.features.tiers import (
    TIERS,
    FeatureStore,
    RecomputeStore,
    choose_tier,
    open_store,
)

PICTURES = Pictures(75)


@pytest.fixture
def features(tmp_path: Path) -> LayerFeatures:
    return extract(tiny(), ["second"], PICTURES, max_grid=5, cache=FeatureCache(tmp_path))["second"]


def _store(features: LayerFeatures, tier: str) -> FeatureStore:
    if tier == "recompute":
        return RecomputeStore(tiny(), "second", features.normalization, PICTURES, "cpu")
    return open_store(features.train, tier, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_gives_the_numbers_of_the_file(features: LayerFeatures, tier: str) -> None:
    store = _store(features, tier)
    assert store.tier == tier
    assert len(store) == 75
    assert store.shape == features.shape
    assert store.features == int(np.prod(features.shape))
    for indices in ([3], [74, 0, 3, 3, 50], list(range(75)), list(range(74, -1, -2)), []):
        batch = store.batch(torch.tensor(indices, dtype=torch.int64))
        assert batch.dtype == torch.float32
        assert batch.is_contiguous()
        assert batch.shape == (len(indices), store.features)
        expected = features.train[indices].reshape(len(indices), store.features).astype(np.float32)
        assert np.array_equal(batch.numpy(), expected)


@pytest.mark.parametrize("tier", TIERS)
def test_batches_come_in_order(features: LayerFeatures, tier: str) -> None:
    store = _store(features, tier)
    wanted = [torch.tensor([i, 2 * i]) for i in range(7)]
    found = list(store.batches(iter(wanted)))
    assert len(found) == 7
    for indices, batch in zip(wanted, found, strict=True):
        assert torch.equal(batch, store.batch(indices))
    assert list(store.batches([])) == []


@pytest.mark.parametrize("name", ["efficientnet_lite0", "alexnet"])
def test_recomputed_features_are_the_extracted_ones_to_the_bit(name: str) -> None:
    backbone = load_backbone(name, "random")
    pictures = Pictures(50, size=64)
    layer = backbone.layers[4]
    found = extract(backbone, [layer], pictures, max_grid=28, cache=None)[layer]
    store = RecomputeStore(backbone, layer, found.normalization, pictures, "cpu")
    indices = torch.from_numpy(np.random.default_rng(0).permutation(50))[:37]
    held = open_store(found.train, "host", "cpu")
    assert torch.equal(store.batch(indices), held.batch(indices))


def test_errors_on_the_way_come_through(features: LayerFeatures) -> None:
    store = _store(features, "mmap")
    with pytest.raises(IndexError):
        list(store.batches([torch.tensor([0]), torch.tensor([75])]))


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4), np.float16), np.zeros((3, 2, 2, 2), np.float32)]
)
def test_arrays_that_are_no_features(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="half precision"):
        open_store(array)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(10, "device"), (11, "host"), (20, "host"), (21, "mmap"), (31, "recompute")],
)
def test_the_fastest_tier_that_holds_them(size: int, expected: str) -> None:
    budgets = {"device_bytes": 10, "host_bytes": 20, "disk_bytes": 30}
    assert choose_tier(size, **budgets) == expected
    # without an accelerator the host's memory counts once
    plain = "host" if expected == "device" else expected
    assert choose_tier(size, accelerator=False, **budgets) == plain


@given(
    size=st.integers(0, 100), more=st.integers(0, 100),
    budgets=st.fixed_dictionaries(
        {name: st.integers(0, 100) for name in ("device_bytes", "host_bytes", "disk_bytes")}
    ),
)  # fmt: skip
def test_more_features_never_get_a_faster_tier(
    size: int, more: int, budgets: dict[str, int]
) -> None:
    rank: Callable[[str], int] = TIERS.index  # type: ignore[assignment]
    assert rank(choose_tier(size, **budgets)) <= rank(choose_tier(size + more, **budgets))


def test_held_features_do_not_keep_the_file(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    found = extract(tiny(), ["first"], Pictures(20), max_grid=0, cache=cache)["first"]
    store = open_store(found.train, "host", "cpu")
    key = found.key
    del found
    assert cache.remove(key)
    assert torch.isfinite(store.batch(torch.arange(20))).all()
