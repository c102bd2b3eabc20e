"""The named displacements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tuner.errors import InputError
from tuner.synthesis.lucent_bridge import numpy_seeded
from tuner.synthesis.transforms import TRANSFORMS, apply, build

SIZE = 48


def _spot(x: int = 24, y: int = 24) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    spot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    return 0.5 + 0.4 * spot.expand(1, 3, SIZE, SIZE)


def _centre(image: torch.Tensor) -> tuple[float, float]:
    weight = (image[0, 0] - 0.5).clamp_min(0.02) - 0.02
    axis = torch.arange(SIZE)
    total = weight.sum()
    return ((weight.sum(0) * axis).sum() / total).item(), (
        (weight.sum(1) * axis).sum() / total
    ).item()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_shape_and_grey_are_kept(name):
    grey = torch.full((2, 3, SIZE, SIZE), 0.4)
    for step in range(10):
        with numpy_seeded(0, step):
            moved = apply(build(name, SIZE, 0.4), grey)
        assert moved.shape == grey.shape
        torch.testing.assert_close(moved, grey)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_batch_gets_one_draw(name):
    images = torch.cat([_spot(), _spot(20, 30)])
    with numpy_seeded(0, 3):
        together = apply(build(name, SIZE, 0.5), images)
    with numpy_seeded(0, 3):
        alone = apply(build(name, SIZE, 0.5), images[1:])
    torch.testing.assert_close(together[1:], alone)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_there_is_no_displacement_on_average(name):
    places = []
    for step in range(150):
        with numpy_seeded(1, step):
            places.append(_centre(apply(build(name, SIZE, 0.5), _spot())))
    np.testing.assert_allclose(np.mean(places, axis=0), (24, 24), atol=1.0)
    assert (np.std(places, axis=0) > 0.5).all() == (name != "none")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_sizes_are_kept(name):
    before = (_spot() - 0.5).sum()
    masses = []
    for step in range(60):
        with numpy_seeded(2, step):
            masses.append(((apply(build(name, SIZE, 0.5), _spot()) - 0.5).sum() / before).item())
    assert np.mean(masses) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_pass(name):
    images = _spot().clone().requires_grad_(True)
    with numpy_seeded(0, 0):
        apply(build(name, SIZE, 0.5), images).square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().sum() > 0


def test_an_unknown_name_is_answered_with_the_known():
    with pytest.raises(InputError, match="jitter, none, lucent, predecessor, paolo"):
        build("wobble", SIZE, 0.5)
