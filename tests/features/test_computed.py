"""A layer bigger than the cache may be: computed anew whenever it is read, and the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.features.tiny import Pictures, tiny
from tuner.closed_form.smooth import fit_smooth
from tuner.features.cache import FeatureCache
from tuner.features.computed import ComputedFeatures
from tuner.features.extract import extract


def test_too_big_a_layer_is_not_kept_and_reads_like_one_that_is(tmp_path: Path) -> None:
    train, test = Pictures(45), Pictures(7, seed=1)
    layers = ["first", "third"]
    kept = extract(tiny(), layers, train, test, max_grid=5, cache=FeatureCache(tmp_path / "big"))
    sizes = {name: 2 * 52 * int(np.prod(found.shape)) for name, found in kept.items()}
    assert sizes["third"] < sizes["first"]
    cache = FeatureCache(tmp_path / "small", limit_bytes=sizes["first"] - 1)
    found = extract(tiny(), layers, train, test, max_grid=5, cache=cache)
    assert list(found) == layers
    big, small = found["first"], found["third"]
    assert isinstance(small.train, np.ndarray)
    assert isinstance(big.train, ComputedFeatures)
    assert isinstance(big.test, ComputedFeatures)
    assert torch.equal(big.normalization.mean, kept["first"].normalization.mean)
    expected = kept["first"].train
    assert big.train.shape == expected.shape
    assert big.train.nbytes == expected.nbytes
    np.testing.assert_array_equal(big.train[:], expected)
    np.testing.assert_array_equal(big.train[[40, 3, 3]], np.asarray(expected)[[40, 3, 3]])
    np.testing.assert_array_equal(big.train[4], expected[4])
    np.testing.assert_array_equal(big.test[2:5], kept["first"].test[2:5])  # type: ignore[index]
    np.testing.assert_array_equal(big.train[3:6, 2], expected[3:6, 2])
    flat = big.train.reshape(45, -1)
    np.testing.assert_array_equal(flat[7:9], expected[7:9].reshape(2, -1))
    assert cache.used_bytes() < sizes["first"] + 4000  # records and statistics besides


def test_its_statistics_are_taken_once(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=1000)
    pictures = Pictures(45)
    extract(tiny(), ["first"], pictures, max_grid=0, cache=cache)
    assert pictures.reads
    before = len(pictures.reads)
    again = extract(tiny(), ["first"], pictures, max_grid=0, cache=cache)["first"]
    assert len(pictures.reads) == before
    (stored,) = cache.entries()
    assert stored.key.endswith("-statistics")
    assert cache.verify(stored.key) is None
    assert isinstance(again.train, ComputedFeatures)


def test_a_shape_that_rows_cannot_have_is_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=1000)
    found = extract(tiny(), ["first"], Pictures(5), max_grid=0, cache=cache)["first"]
    with pytest.raises(ValueError, match="reshaped"):
        found.train.reshape(-1, 5)


def test_closed_forms_read_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    responses, fit, validation = rng.standard_normal((45, 2)), np.arange(35), np.arange(35, 45)
    answers = []
    for limit in (None, 1000):
        cache = FeatureCache(tmp_path / str(limit), limit_bytes=limit)
        found = extract(tiny(), ["third"], Pictures(45), max_grid=2, cache=cache)["third"]
        answers.append(fit_smooth(found.train, responses, fit, others=validation))
    np.testing.assert_array_equal(answers[0].other_loss, answers[1].other_loss)
    assert torch.equal(answers[0].parameters["weight"], answers[1].parameters["weight"])
