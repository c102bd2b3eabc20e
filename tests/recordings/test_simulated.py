from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.recordings.conformance import check_equal
from tuner.errors import EnvironmentFailure, InputError
from tuner.recordings import Recording, cut, load_recording
from tuner.recordings.simulated import model as simulated
from tuner.recordings.simulated import photographs
from tuner.recordings.simulated.gabors import LUMINANCE, Gabors
from tuner.recordings.simulated.model import Population, Settings, simulate, true_responses

SMALL = Settings(n_train=240, n_test=60, n_repeats=20, units_per_region=4)


def images_of(source: Any) -> NDArray[np.uint8]:
    return np.stack([source.read(i) for i in range(len(source))])


@pytest.fixture(scope="module")
def backbone() -> Any:
    from tuner.backbones import load_backbone

    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def cortex(backbone: Any) -> Recording:
    return simulate(simulated.CORTEX, SMALL, backbone)


def test_it_says_that_it_is_simulated(cortex: Recording) -> None:
    assert cortex.simulated
    assert "simulated" in cortex.label
    assert "simulated" in cortex.source
    assert list(cortex.regions("area")) == ["V1", "V4", "IT"]
    assert (cortex.n_train, cortex.n_test, cortex.n_repeats, cortex.n_units) == (240, 60, 20, 12)


def test_crops_share_no_pixel_across_blocks() -> None:
    train, test = photographs.crops(600, 100, 32, seed=3)
    assert not set(train.block) & set(test.block)
    owner: dict[tuple[int, int, int], int] = {}
    for crops in (train, test):
        for block, (x, y, side) in zip(crops.block.tolist(), crops.box.tolist(), strict=True):
            photograph = block // photographs.GRID**2
            corners = {(photograph, i, j) for i in (x, x + side - 1) for j in (y, y + side - 1)}
            for corner in corners:
                assert owner.setdefault(corner, block) == block


def test_crops_are_pixels_of_their_boxes() -> None:
    """At their own size crops are cut-outs, mirrored or not."""
    from tuner.recordings.sources import decode

    found = 0
    train, _ = photographs.crops(400, 10, 80, seed=1)
    files = photographs._files()
    for image, block, (x, y, side) in zip(train.images, train.block, train.box, strict=True):
        if side == 80:
            cut_out = decode(files[block // 25])[y : y + 80, x : x + 80]
            assert (image == cut_out).all() or (image == cut_out[:, ::-1]).all()
            found += 1
    assert found


@pytest.mark.parametrize("seed", range(5))
def test_every_photograph_is_on_both_sides(seed: int) -> None:
    train, test = photographs.crops(1100, 100, 16, seed)
    split = cut(1100, train.block, 0.1, seed)
    everyone = set(range(len(photographs.PHOTOGRAPHS)))
    for blocks in (train.block[split.fit], train.block[split.validation], test.block):
        assert set(blocks // photographs.GRID**2) == everyone


def test_a_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", ("astronaut.png", "nowhere.png"))
    with pytest.raises(EnvironmentFailure, match=r"nowhere\.png"):
        photographs.crops(10, 10, 16, 0)


def test_the_same_seed_gives_the_same_recording(cortex: Recording, backbone: Any) -> None:
    again = simulate(simulated.CORTEX, SMALL, backbone)
    check_equal(again, cortex)
    other = simulate((Population("V1"),), replace(SMALL, seed=1))
    assert (other.train_responses != cortex.train_responses[:, :4]).all()


def test_the_truth_reproduces_the_signal(cortex: Recording, backbone: Any) -> None:
    shown = images_of(cortex.test_images)
    for images in (shown, (shown / 255).astype(np.float32)):
        found = true_responses(cortex.truth, images, backbone)
        np.testing.assert_allclose(found, cortex.truth["signal/test"], atol=2e-5)


def test_the_truth_follows_a_choice_of_units(cortex: Recording, backbone: Any) -> None:
    chosen = np.array([9, 2, 5])
    part = cortex.select_units(chosen)
    found = true_responses(part.truth, images_of(part.test_images), backbone)
    np.testing.assert_allclose(found, cortex.truth["signal/test"][:, chosen], atol=2e-5)
    np.testing.assert_array_equal(part.truth["signal/test"], cortex.truth["signal/test"][:, chosen])


def test_noise_and_ceilings_are_as_stated(cortex: Recording) -> None:
    signal = cortex.truth["signal/test"]
    noise = cortex.test_responses - signal
    np.testing.assert_allclose(
        noise.var(axis=(0, 1)), cortex.truth["units/noise_variance"], rtol=0.15
    )
    train_noise = cortex.train_responses - cortex.truth["signal/train"]
    ratio = cortex.truth["signal/train"].var(axis=0) / train_noise.var(axis=0)
    np.testing.assert_allclose(ratio, SMALL.snr, rtol=0.4)
    mean = cortex.test_responses.mean(axis=0)
    reached = [np.corrcoef(mean[:, u], signal[:, u])[0, 1] for u in range(cortex.n_units)]
    np.testing.assert_allclose(reached, cortex.truth["units/ceiling"], atol=0.03)


def test_units_have_scales_of_their_own(cortex: Recording) -> None:
    assert np.ptp(cortex.train_responses.mean(axis=0)) > 0.5
    assert np.ptp(cortex.train_responses.std(axis=0)) > 0.3


def gabor(**changes: float) -> Gabors:
    settings = {
        "x": 20.0, "y": 24.0, "sigma": 4.0, "orientation": 0.0, "wavelength": 8.0,
        "phase": 0.0, "energy": False, "half": 1.0,
    }  # fmt: skip
    arrays = {k: np.array([v]) for k, v in (settings | changes).items()}
    return Gabors(**arrays, colour=np.array([LUMINANCE]))


@pytest.mark.parametrize("orientation", [0, 30, 45, 90, 120, 150])
def test_filters_lie_where_and_as_they_should(orientation: float) -> None:
    filters = gabor(orientation=orientation).filters(48)[:, 0]
    power = (filters**2).sum(axis=0)
    row, column = np.mgrid[:48, :48]
    assert abs((power * row).sum() / power.sum() - 24) < 0.1
    assert abs((power * column).sum() / power.sum() - 20) < 0.1
    assert np.abs(filters.sum(axis=(1, 2))).max() < 1e-9
    np.testing.assert_allclose((filters**2).sum(axis=(1, 2)), 1)
    # The strongest frequency is across the stripes: 0 = horizontal stripes, 45 rises to the right.
    spectrum = np.abs(np.fft.fft2(filters[0], s=(256, 256)))
    fy, fx = np.unravel_index(spectrum.argmax(), spectrum.shape)
    fy, fx = (f - 256 if f > 128 else f for f in (fy, fx))
    across = np.rad2deg(np.arctan2(fy, fx)) % 180  # rows grow downwards
    assert abs((90 - orientation - across + 90) % 180 - 90) < 4
    assert abs(np.hypot(fx, fy) / 256 - 1 / 8) < 0.01


def test_a_rising_stripe_drives_a_rising_filter() -> None:
    row, column = np.mgrid[:48, :48]
    images = np.zeros((2, 48, 48, 3))
    images[0][np.abs((column - 20) + (row - 24)) < 2] = 1  # from lower left to upper right
    images[1][np.abs((column - 20) - (row - 24)) < 2] = 1
    rising = gabor(orientation=45).respond(images)[:, 0]
    assert rising[0] > 3 * rising[1]


def test_energy_units_ignore_phase_and_simple_units_do_not() -> None:
    row, _ = np.mgrid[:48, :48]
    gratings = [0.5 + 0.4 * np.cos(2 * np.pi * row / 8 + p) for p in np.linspace(0, 6.28, 16)]
    images = np.repeat(np.stack(gratings)[..., None], 3, axis=3)
    energy = gabor(energy=True).drive(images)[:, 0]
    simple = gabor().drive(images)[:, 0]
    assert energy.std() < 0.05 * energy.mean()
    assert simple.min() == 0
    assert simple.max() > 0.9 * energy.max()
    # Uniform light is not seen.
    assert gabor(energy=True).drive(np.full((1, 48, 48, 3), 200, np.uint8)).max() < 1e-9


def test_v4_is_local_and_it_is_not(cortex: Recording, backbone: Any) -> None:
    """Covering the image far from a V4 unit's mask changes it less than covering the mask."""
    images = images_of(cortex.test_images)[:20]
    truth = cortex.truth
    whole = true_responses(truth, images, backbone)
    for unit in cortex.regions("area")["V4"]:
        x, y, sigma = (float(truth[f"units/{k}"][unit]) for k in ("x", "y", "sigma"))
        row, column = np.mgrid[:64, :64]
        near = (np.hypot(row - y, column - x) < 2 * sigma)[None, :, :, None]
        covered = true_responses(truth, np.where(near, 128, images).astype(np.uint8), backbone)
        left = true_responses(truth, np.where(near, images, 128).astype(np.uint8), backbone)
        change, rest = (np.abs(r - whole)[:, unit].mean() for r in (covered, left))
        assert change > rest
    share = truth["units/mask_sigma"][cortex.regions("area")["IT"]] / 2
    assert (share >= 0.5).all()


def test_a_cache_is_written_once_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "CORTEX", (Population("V1"),))
    options = {"n_train": 60, "n_test": 20, "cache": tmp_path / "new" / "cache"}
    first = load_recording(None, "simulated", **options)
    (kept,) = (tmp_path / "new" / "cache").iterdir()

    def never(*_: Any) -> None:
        raise AssertionError("simulated again")

    with monkeypatch.context() as patched:
        patched.setattr(simulated, "simulate", never)
        again = load_recording(None, "simulated", **options)
        check_equal(again, first)
        assert again.simulated
        assert again.source == first.source
        for key, values in first.truth.items():
            np.testing.assert_array_equal(again.truth[key], values)
        with pytest.raises(AssertionError):
            load_recording(None, "simulated", **(options | {"seed": 1}))
    kept.write_bytes(kept.read_bytes()[:1000])
    check_equal(load_recording(None, "simulated", **options), first)
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_train", 0), ("n_test", -1), ("n_repeats", 0), ("units_per_region", 0),
     ("image_size", 0), ("snr", 0.0), ("snr", float("nan")), ("seed", -1)],
)  # fmt: skip
def test_impossible_settings_are_named(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"data\.{key}"):
        load_recording(None, "simulated", **{key: value})


def test_responses_of_a_known_layer(backbone: Any) -> None:
    train, _ = photographs.crops(200, 10, 64, 0)
    found = simulated.simulate_from_layer(backbone, "_blocks.4", train.images, 5, snr=1.5)
    assert found.shape == (200, 5)
    np.testing.assert_allclose(found.var(axis=0), 1 + 1 / 1.5, rtol=0.3)
    again = simulated.simulate_from_layer(backbone, "_blocks.4", train.images, 5, snr=1.5)
    np.testing.assert_array_equal(found, again)
