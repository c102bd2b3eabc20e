"""Mean, contrast and norm of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encoders import pictures
from tuner.errors import InputError
from tuner.synthesis.photometry import Photometry, quantize, statistics


@settings(max_examples=60, deadline=None)
@given(
    mean=st.floats(0.25, 0.75),
    contrast=st.floats(0.02, 0.25),
    seed=st.integers(0, 10**6),
    power=st.sampled_from([1.0, 3.0]),
)
def test_mean_and_contrast_are_met_on_eight_bits(mean, contrast, seed, power):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.standard_normal((3, 3, 24, 24), dtype=np.float32)) ** power
    shown = quantize(Photometry(mean=mean, contrast=contrast).apply(images, exact=True))
    means, contrasts = statistics(shown)
    np.testing.assert_allclose(means, mean, atol=0.004)
    np.testing.assert_allclose(contrasts, contrast, rtol=0.03, atol=0.001)


def test_each_image_is_treated_for_itself():
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    photometry = Photometry(contrast=0.3)
    together = photometry.apply(images, exact=True)
    for k in range(5):
        assert torch.equal(photometry.apply(images[k : k + 1], exact=True)[0], together[k])


def test_a_norm_is_a_budget_not_a_target():
    photometry = Photometry(contrast=None, norm=2.0)
    pattern = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = 0.4 + torch.stack([pattern[0] * 0.001, pattern[1] * 0.1])
    shown = photometry.apply(images)
    lengths = (shown - 0.5).flatten(1).norm(dim=1)
    assert lengths[1].item() == pytest.approx(2.0, rel=1e-3)
    assert lengths[0].item() == pytest.approx(
        (pattern[0] * 0.001).std().item() * 768**0.5, rel=0.05
    )


def test_without_either_images_are_only_clipped():
    images = torch.linspace(-1, 2, 48).view(1, 3, 4, 4)
    assert torch.equal(Photometry(contrast=None).apply(images), images.clamp(0, 1))


def test_a_flat_image_stays_grey_and_its_gradient_finite():
    images = torch.full((1, 3, 8, 8), 0.3, requires_grad=True)
    shown = Photometry(mean=0.5, contrast=0.2).apply(images)
    torch.testing.assert_close(shown, torch.full_like(shown, 0.5))
    (shown * torch.randn(shown.shape)).sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_natural_images_are_matched():
    means, contrasts = statistics(Photometry(mean=0.4, contrast=0.15).match(pictures(4)))
    np.testing.assert_allclose(means, 0.4, atol=0.003)
    np.testing.assert_allclose(contrasts, 0.15, rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.0}, "mean = 0"),
        ({"mean": 1.5}, "mean = 1.5"),
        ({"contrast": 0.0}, "contrast = 0"),
        ({"contrast": 0.6}, "between 0 and 0.5"),
        ({"mean": 0.1, "contrast": 0.4}, "between 0 and 0.3"),
        ({"contrast": float("nan")}, "contrast = nan"),
        ({"contrast": None, "norm": -1.0}, "norm = -1"),
        ({"norm": 3.0}, "give one"),
    ],
)
def test_what_no_image_can_have_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Photometry(**arguments)


def test_mean_and_contrast_are_held_inside_a_window_and_grey_lies_outside():
    from tests.encoders import pictures
    from tuner.encoder import as_batch
    from tuner.synthesis.photometry import inside_statistics

    images = pictures(3, size=48, seed=4)
    axis = np.arange(48)
    distance = np.hypot(axis[None, :] - 12, axis[:, None] - 30)
    window = np.clip((14 - distance) / 4, 0, 1)
    windows = np.repeat(window[None], 3, axis=0)
    seen = torch.from_numpy(windows).float()[:, None]
    held = Photometry(mean=0.4, contrast=0.12)
    shown = quantize(held.inside(as_batch(images), seen, exact=True))
    assert (shown[:, distance > 14] == round(255 * 0.4)).all()
    full = np.repeat((distance < 10)[None].astype(float), 3, axis=0)
    exact = quantize(
        held.inside(as_batch(images), torch.from_numpy(full).float()[:, None], exact=True)
    )
    mean, contrast = inside_statistics(exact, full)
    np.testing.assert_allclose(mean, 0.4, atol=0.005)
    np.testing.assert_allclose(contrast, 0.12, atol=0.005)
    gradient = as_batch(images).requires_grad_(True)
    held.inside(gradient, seen).square().sum().backward()
    assert gradient.grad is not None
    assert torch.isfinite(gradient.grad).all()
    assert not gradient.grad[:, :, torch.from_numpy(distance > 14)].abs().gt(1e-3).any()


def test_an_infinite_norm_is_refused() -> None:
    with pytest.raises(InputError, match="norm = inf: must be positive and finite"):
        Photometry(contrast=None, norm=float("inf"))
