"""Normalise, rectify, pool: the numbers, the order, and what cannot be normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import InputError
from tuner.features.normalize import Moments, Normalization, pooling


def _normalization(
    channels: int, *, rectified: bool, kernel: int, grid: tuple[int, int]
) -> Normalization:
    generator = torch.Generator().manual_seed(channels)
    mean = torch.randn(channels, generator=generator)
    sd = torch.rand(channels, generator=generator) + 0.5
    return Normalization(mean, sd, rectified, kernel, grid)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(("side", "max_grid"), [(12, 4), (13, 4), (13, 5), (7, 28), (7, 0), (5, 1)])
def test_apply_is_what_it_says(rectified: bool, side: int, max_grid: int) -> None:
    kernel, grid = pooling(side, side, max_grid)
    assert max(grid) <= (max_grid or side)
    normalization = _normalization(3, rectified=rectified, kernel=kernel, grid=grid)
    values = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = normalization.apply(values)
    assert found.shape == (2, 3, *grid)
    mean, sd = normalization.mean.view(1, 3, 1, 1), normalization.sd.view(1, 3, 1, 1)
    scaled = values / sd if rectified else ((values - mean) / sd).clamp(min=0)
    for y in range(grid[0]):
        for x in range(grid[1]):
            rows = slice(y * kernel, min((y + 1) * kernel, side))
            columns = slice(x * kernel, min((x + 1) * kernel, side))
            expected = scaled[:, :, rows, columns].mean((2, 3))  # of what the window holds
            assert torch.allclose(found[:, :, y, x], expected, atol=1e-6)


def test_rectification_comes_before_pooling() -> None:
    checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).view(1, 1, 2, 2)
    normalization = Normalization(torch.zeros(1), torch.ones(1), False, 2, (1, 1))
    assert float(normalization.apply(checkerboard)) == 0.5  # the other way round it would be 0


def test_gradients_flow() -> None:
    normalization = _normalization(3, rectified=False, kernel=3, grid=(2, 2))
    values = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalization.apply, values)


@given(
    offset=st.sampled_from([0.0, 1e3, -1e5]),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_moments_of_chunks_are_those_of_the_whole(offset: float, sizes: list[int]) -> None:
    generator = np.random.default_rng(len(sizes))
    chunks = [generator.normal(offset, 2.0, (size, 3, 4, 4)) for size in sizes]
    total = Moments.none(3)
    for chunk in chunks:
        total = total.merge(Moments.of(torch.from_numpy(chunk)))
    whole = np.concatenate(chunks)
    assert total.count == whole.size // 3
    np.testing.assert_allclose(total.mean, whole.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    variance = total.deviations / total.count
    np.testing.assert_allclose(variance, whole.var((0, 2, 3)), rtol=1e-9)


def test_constant_channels_stay_small_and_finite() -> None:
    values = torch.randn(40, 5, 6, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    values[:, 0] = 0.0  # a dead unit
    values[:, 1] = 7.3  # a constant one
    values[:, 2] = 1e4 + 1e-4 * values[:, 2]  # varies by rounding only
    moments = Moments.of(values)
    sizes: dict[str, int] = {"kernel": 1}
    signed = moments.normalization(rectified=False, grid=(6, 6), **sizes)
    features = signed.apply(values)
    assert torch.isfinite(features).all()
    assert float(features[:, :2].max()) < 1e-3
    assert float(features[:, 2].max()) < 1e-2
    # the others have unit variance before they are rectified
    centred = (values - signed.mean.view(1, 5, 1, 1)) / signed.sd.view(1, 5, 1, 1)
    assert torch.allclose(centred[:, 3:].std((0, 2, 3)), torch.ones(2), atol=1e-3)
    rectified = moments.normalization(rectified=True, grid=(6, 6), **sizes)
    scaled = rectified.apply(values)
    assert float(scaled[:, 0].abs().max()) == 0
    assert float(scaled[:, 1].max()) < 5  # a constant, of the size of the others


def test_a_layer_of_constants() -> None:
    normalization = Moments.of(torch.zeros(3, 2, 4, 4)).normalization(
        rectified=True, kernel=1, grid=(4, 4)
    )
    assert torch.equal(normalization.sd, torch.ones(2))


def test_single_pixels() -> None:
    # one image, one cell: no variance at all
    moments = Moments.of(torch.tensor([3.0, -2.0]).view(1, 2, 1, 1))
    normalization = moments.normalization(rectified=False, kernel=1, grid=(1, 1))
    assert torch.isfinite(normalization.apply(torch.randn(4, 2, 1, 1))).all()


def test_state_round_trip() -> None:
    before = _normalization(4, rectified=True, kernel=3, grid=(2, 5))
    after = Normalization.from_state(before.state())
    assert torch.equal(after.mean, before.mean)
    assert torch.equal(after.sd, before.sd)
    assert (after.rectified, after.kernel, after.grid) == (True, 3, (2, 5))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("mean", torch.tensor([float("nan"), 0.0])),
        ("sd", torch.tensor([0.0, 1.0])),
        ("sd", torch.tensor([1.0])),
        ("kernel", torch.tensor(0)),
        ("kernel", torch.tensor([1, 2])),
        ("grid", torch.tensor([1, 2, 3])),
        ("grid", None),
    ],
)
def test_a_state_that_is_wrong(entry: str, value: torch.Tensor | None) -> None:
    state = _normalization(2, rectified=True, kernel=1, grid=(2, 2)).state()
    if value is None:
        del state[entry]
    else:
        state[entry] = value
    with pytest.raises(InputError, match="normalisation cannot be read"):
        Normalization.from_state(state)
