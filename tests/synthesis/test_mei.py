"""Most exciting images: they excite, and they are the same bytes whatever they are made with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.encoders import SIZE, pictures, random_encoder
from tuner.encoder import Encoder, as_batch
from tuner.errors import InputError
from tuner.synthesis.canvas import Job
from tuner.synthesis.chunks import chunk_size, chunks
from tuner.synthesis.mei import Mei, MeiSettings, synthesize
from tuner.synthesis.photometry import statistics
from tuner.synthesis.priors import PRIORS
from tuner.synthesis.receptive_fields import from_readout

QUICK = {"steps": 6, "keep_every": 3, "chunk": 4}


def _encoder(readout: str = "full", **options: object) -> Encoder:
    return random_encoder(readout, **{"n_units": 6, "layer": "_blocks.0", **options})


@pytest.mark.parametrize(("ascent", "share"), [("turning", 0.5), ("adam", 0.8)])
@pytest.mark.parametrize("readout", ["full", "factorized"])
def test_an_image_excites_more_than_pictures_do(readout, ascent, share):
    """Adam finds what a random encoder likes; the turning ascent stays near to pictures, and gains less from it."""
    encoder = _encoder(readout, max_grid=4)
    result = synthesize([encoder], None, MeiSettings(steps=60, prior_options={"ascent": ascent}))
    others = MeiSettings().photometry.match(pictures(200, seed=9))
    with torch.no_grad():
        natural = encoder(as_batch(others)).numpy().max(0)
    assert (result.activation[:, 0] > natural).mean() >= share


def test_activation_is_that_of_the_eight_bit_image():
    encoder = _encoder()
    result = synthesize([encoder], None, MeiSettings(**QUICK))
    with torch.no_grad():
        again = encoder(as_batch(result.pixels[:, 0])).numpy().diagonal()
    np.testing.assert_allclose(result.activation[:, 0], again, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.rint(result.images * 255), result.pixels[:, 0])


def test_mean_and_contrast_are_those_asked_for():
    result = synthesize([_encoder()], None, MeiSettings(**QUICK, mean=0.4, contrast=0.15))
    means, contrasts = statistics(result.pixels[:, 0])
    np.testing.assert_allclose(means, 0.4, atol=0.004)
    np.testing.assert_allclose(contrasts, 0.15, rtol=0.03)


@pytest.mark.parametrize("transforms", ["jitter", "lucent"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("readout", ["full", "factorized"])
def test_company_and_order_do_not_matter(prior, transforms, readout, prior_options):
    encoder = _encoder(readout)
    options = MeiSettings(
        **QUICK,
        prior=prior,
        prior_options=prior_options.get(prior, {}),
        transforms=transforms,
        variants=2,
    )
    whole = synthesize([encoder], None, options)
    again = synthesize([encoder], None, options)
    np.testing.assert_array_equal(whole.pixels, again.pixels)
    for units in ([12, 7, 10, 9, 8, 11], [9], [11, 8, 7]):
        part = synthesize([encoder], units, options)
        where = [unit - 7 for unit in units]
        assert part.units.tolist() == units
        assert part.names == [whole.names[k] for k in where]
        np.testing.assert_array_equal(part.pixels, whole.pixels[where])
        np.testing.assert_array_equal(part.activation, whole.activation[where])


def test_the_first_variant_is_what_one_variant_gives():
    encoder = _encoder()
    one = synthesize([encoder], None, MeiSettings(**QUICK))
    three = synthesize([encoder], None, MeiSettings(**QUICK, variants=3))
    np.testing.assert_array_equal(three.pixels[:, 0], one.pixels[:, 0])
    assert three.images.shape == (18, SIZE, SIZE, 3)
    assert not np.array_equal(three.pixels[:, 1], three.pixels[:, 0])


def test_another_seed_gives_other_images():
    encoder = _encoder()
    one = synthesize([encoder], [7], MeiSettings(**QUICK))
    other = synthesize([encoder], [7], MeiSettings(**QUICK, seed=1))
    assert not np.array_equal(one.pixels, other.pixels)


def test_global_generators_play_no_part():
    encoder = _encoder()
    options = MeiSettings(**QUICK, transforms="lucent")
    torch.manual_seed(1)
    np.random.seed(1)
    one = synthesize([encoder], [7], options)
    torch.manual_seed(2)
    np.random.seed(2)
    np.testing.assert_array_equal(one.pixels, synthesize([encoder], [7], options).pixels)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    prior=st.sampled_from(sorted(PRIORS)),
    readout=st.sampled_from(["full", "factorized"]),
    contrast=st.sampled_from([None, 0.02, 0.4]),
)
def test_images_are_finite_and_in_range_for_any_encoder(
    prior_options, seed, scale, prior, readout, contrast
):
    encoder = _encoder(readout, seed=seed)
    for value in encoder.readout_parameters.values():
        value *= scale
    options = MeiSettings(
        steps=3,
        keep_every=1,
        prior=prior,
        prior_options=prior_options.get(prior, {}),
        contrast=contrast,
        chunk=8,
    )
    result = synthesize([encoder], None, options)
    assert np.isfinite(result.activation).all()
    assert np.isfinite(result.images).all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1


@pytest.mark.parametrize("prior", PRIORS)
def test_images_for_a_thousand_random_encoders_are_finite_and_in_range(prior, prior_options):
    """Each unit is an encoder of its own: random weights, of a size drawn from twelve decades."""
    for seed, (readout, contrast) in enumerate([("full", 0.02), ("factorized", 0.4)]):
        encoder = _encoder(readout, n_units=500, seed=seed, size=16)
        sizes = 10 ** np.random.default_rng(seed).uniform(-6, 6, 500)
        for value in encoder.readout_parameters.values():
            value *= torch.from_numpy(sizes).float().view(-1, *[1] * (value.ndim - 1))
        options = MeiSettings(
            steps=1,
            keep_every=1,
            prior=prior,
            prior_options=prior_options.get(prior, {}),
            contrast=contrast,
            chunk=125,
        )
        result = synthesize([encoder], None, options)
        assert result.images.shape == (500, 16, 16, 3)
        assert np.isfinite(result.activation).all()
        assert np.isfinite(result.images).all()
        assert result.images.min() >= 0
        assert result.images.max() <= 1
        means, contrasts = statistics(result.pixels[:, 0])
        assert (np.abs(means - options.mean) < 0.05).all()
        assert (contrasts < 1.1 * contrast).all()


def test_an_ensemble_is_the_mean_of_its_members():
    one, two = _encoder(seed=1), _encoder("factorized", seed=2)
    result = synthesize([one, two], None, MeiSettings(**QUICK))
    images = as_batch(result.pixels[:, 0])
    with torch.no_grad():
        mean = ((one(images) + two(images)) / 2).numpy().diagonal()
    np.testing.assert_allclose(result.activation[:, 0], mean, rtol=1e-4, atol=1e-4)


def test_an_ensemble_of_one_encoder_twice_is_that_encoder():
    encoder = _encoder()
    single = synthesize([encoder], [8], MeiSettings(**QUICK))
    double = synthesize([encoder, encoder], [8], MeiSettings(**QUICK))
    np.testing.assert_array_equal(single.pixels, double.pixels)


def test_the_best_image_is_kept_not_the_last():
    encoder = _encoder()
    rough = {"steps": 12, "chunk": 4, "learning_rate": 5.0, "prior_options": {"ascent": "adam"}}
    often = synthesize([encoder], None, MeiSettings(keep_every=1, **rough))
    rarely = synthesize([encoder], None, MeiSettings(keep_every=12, **rough))
    assert (often.activation >= rarely.activation).all()
    assert (often.steps < 12).any()


def test_without_a_fixed_contrast_images_gain_contrast():
    settings = MeiSettings(steps=30, chunk=4, contrast=None)
    assert settings.prior_options["ascent"] == "adam"
    _, contrasts = statistics(synthesize([_encoder()], None, settings).pixels[:, 0])
    assert (contrasts > 0.05).all()
    held = MeiSettings(steps=5, chunk=4, contrast=None, norm=1.0)
    _, contrasts = statistics(synthesize([_encoder()], None, held).pixels[:, 0])
    assert (contrasts < 1.05 / (3 * SIZE**2) ** 0.5 + 0.002).all()


def test_what_is_finished_is_not_made_again():
    encoder = _encoder()
    options = MeiSettings(**QUICK)
    kept: dict[Job, Mei] = {}
    whole = synthesize([encoder], None, options, keep=lambda mei: kept.update({mei.job: mei}))
    assert set(kept) == {Job(unit) for unit in range(7, 13)}
    del kept[Job(9)]
    steps: list[tuple[int, int]] = []
    again = synthesize(
        [encoder],
        None,
        options,
        progress=lambda done, total: steps.append((done, total)),
        finished=kept.get,
    )
    np.testing.assert_array_equal(again.pixels, whole.pixels)
    assert steps == [(k, 6) for k in range(1, 7)]


@pytest.mark.parametrize(
    ("units", "message"),
    [([3], "unit 3 is not of this region; its units: 7-12"), ([7, 7], "each once"), ([], "least")],
)
def test_units_that_are_not_there_are_named(units, message):
    with pytest.raises(InputError, match=message):
        synthesize([_encoder()], units, MeiSettings(**QUICK))


def test_a_nan_is_an_error_that_names_the_unit():
    encoder = _encoder()
    encoder.readout_parameters["weight"][2] = float("nan")
    with pytest.raises(InputError, match="unit 9"):
        synthesize([encoder], None, MeiSettings(**QUICK))


def test_encoders_of_other_units_make_no_ensemble():
    with pytest.raises(InputError, match="same units"):
        synthesize([_encoder(), _encoder(n_units=4)], None, MeiSettings(**QUICK))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": "gan"}, "unknown prior 'gan'"),
        ({"transforms": "wobble"}, "unknown transforms 'wobble'"),
        ({"steps": 0}, "steps = 0"),
        ({"variants": 0}, "variants = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"learning_rate": 0.0}, "learning_rate = 0"),
        ({"contrast": 0.9}, "contrast = 0.9"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MeiSettings(**arguments)


def test_chunks_are_full_and_nothing_is_lost():
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5, 5]]
    assert chunks([], 4) == []


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_chunk_is_a_power_of_two_that_shrinks_with_the_image(device):
    sizes = [chunk_size(side, device) for side in (32, 64, 128, 224, 448, 2048)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size >= 1 and size & (size - 1) == 0 for size in sizes)


def test_inside_the_field_images_are_grey_beyond_it_and_alone_the_same():
    encoder = random_encoder(n_units=3, layer="_blocks.0", max_grid=4)
    settings = MeiSettings(steps=10, chunk=2, match="field")
    result = synthesize([encoder], None, settings)
    outside = from_readout(encoder).windows() == 0
    for k in range(3):
        assert (result.pixels[k, 0][outside[k]] == 128).all()
    alone = synthesize([encoder], [8], settings)
    np.testing.assert_array_equal(alone.pixels[0], result.pixels[1])
    with pytest.raises(InputError, match="match"):
        MeiSettings(match="cell")
