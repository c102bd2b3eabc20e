"""Positions and sizes of receptive fields, against fields that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encoders import backbone, pictures, random_encoder
from tuner.encoder import Encoder
from tuner.synthesis.receptive_fields import (
    COLUMNS,
    cell_centres,
    fit_gaussians,
    from_gradient,
    from_readout,
    gradient_maps,
    table,
)


def _gaussian(x, y, major, minor, angle, rows, columns):
    dx, dy = columns[None, :] - x, rows[:, None] - y
    turn = np.deg2rad(angle)
    along = dx * np.cos(turn) - dy * np.sin(turn)  # counter-clockwise as seen
    across = dx * np.sin(turn) + dy * np.cos(turn)
    return np.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2))


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(12, 50),
    y=st.floats(12, 50),
    minor=st.floats(3.0, 7.0),
    ratio=st.floats(1.15, 2.0),
    angle=st.floats(0, 180),
    background=st.floats(0, 0.5),
    seed=st.integers(0, 10**6),
)
def test_a_gaussian_is_found_again(x, y, minor, ratio, angle, background, seed):
    rows = np.arange(1.5, 64, 3.0)
    columns = np.arange(0.5, 64, 2.0)
    clean = _gaussian(x, y, minor * ratio, minor, angle, rows, columns) + background
    noisy = clean + 0.02 * np.random.default_rng(seed).random(clean.shape)
    fields = fit_gaussians(7.0 * noisy[None], rows, columns, 64)
    assert abs(fields.x[0] - x) < 0.5
    assert abs(fields.y[0] - y) < 0.5
    assert fields.major[0] == pytest.approx(minor * ratio, rel=0.1)
    assert fields.minor[0] == pytest.approx(minor, rel=0.1)
    turned = abs(fields.angle[0] - angle) % 180
    assert min(turned, 180 - turned) < 15
    assert 0.95 < fields.fit[0] <= 1


def test_a_flat_map_has_no_field():
    axis = np.arange(8.0)
    fields = fit_gaussians(np.ones((1, 8, 8)), axis, axis, 8)
    assert np.isnan(fields.x[0])
    assert np.isnan(fields.columns()["rf_sigma"][0])


def test_a_fit_is_the_same_in_any_company_and_no_step_away_is_better():
    rng = np.random.default_rng(0)
    rows, columns = np.arange(1.5, 64, 4.0), np.arange(3.5, 64, 5.0)
    maps = np.stack(
        [_gaussian(x, y, 9, 5, 30 * k, rows, columns) for k, (x, y) in enumerate([(20, 30)] * 6)]
    )
    maps += 0.2 * rng.random(maps.shape)
    together = fit_gaussians(maps, rows, columns, 64)
    for k in range(len(maps)):
        alone = fit_gaussians(maps[k : k + 1], rows, columns, 64)
        assert alone.ellipses()[0].tolist() == together.ellipses()[k].tolist()
        best = together.fit[k]
        for delta in np.eye(5) * [0.3, 0.3, 0.3, 0.3, 3.0]:
            near = _gaussian(*(together.ellipses()[k] + delta), rows, columns)
            design = np.stack([near.ravel(), np.ones(near.size)], axis=1)
            error = np.linalg.lstsq(design, maps[k].ravel(), rcond=None)[1][0]
            assert 1 - error / ((maps[k] - maps[k].mean()) ** 2).sum() < best + 1e-9


def test_a_coarse_grid_is_described_by_its_moments():
    maps = np.array([[[0.0, 0.0], [0.0, 1.0]]])
    fields = fit_gaussians(maps, np.array([15.0, 47.0]), np.array([15.0, 47.0]), 64)
    assert fields.x[0] == pytest.approx(47)
    assert fields.y[0] == pytest.approx(47)
    assert np.isnan(fields.fit[0])


def test_noise_without_a_place_fits_badly():
    maps = np.random.default_rng(0).random((3, 16, 16))
    axis = np.arange(16.0)
    assert (fit_gaussians(maps, axis, axis, 16).fit < 0.4).all()


def test_degrees_count_from_the_middle_up_and_right():
    axis = np.arange(64.0)
    maps = _gaussian(41.5, 11.5, 4, 4, 0, axis, axis)[None]
    columns = fit_gaussians(maps, axis, axis, 64).columns(pixels_per_degree=10.0)
    assert tuple(columns) == COLUMNS
    assert columns["rf_x_deg"][0] == pytest.approx(1.0, abs=0.01)
    assert columns["rf_y_deg"][0] == pytest.approx(2.0, abs=0.01)
    assert columns["rf_sigma_deg"][0] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("layer", ["_blocks.0", "_blocks.2", "_blocks.4"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_cells_look_where_their_gradient_lies(layer, kernel):
    """The centre of all that moves a cell is where the cell is said to look."""
    size = 192
    network = backbone()
    (info,) = network.describe([layer], size)
    rows, columns = cell_centres(info, kernel)
    row, column = len(rows) // 2, len(columns) // 2
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(True)
    output = network.features(images, [layer])[layer]
    window = output[
        :, :, row * kernel : (row + 1) * kernel, column * kernel : (column + 1) * kernel
    ]
    # signs at random, so that no pixel's contributions cancel
    signs = torch.randn(window.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((window * signs).sum(), images)
    touched = gradient.abs().sum((0, 1)) > 0
    ys, xs = (torch.nonzero(touched.any(axis)).flatten().numpy() for axis in (1, 0))
    assert (ys.min() + ys.max()) / 2 == pytest.approx(rows[row], abs=0.51)
    assert (xs.min() + xs.max()) / 2 == pytest.approx(columns[column], abs=0.51)


def _reading_at(row: int, column: int, readout: str) -> Encoder:
    """A unit that reads around one cell of an 8 x 8 grid."""
    encoder = random_encoder(readout, n_units=1, layer="_blocks.1", unit_indices=[0])
    near = _gaussian(column, row, 1.0, 1.0, 0, np.arange(8.0), np.arange(8.0))
    envelope = torch.from_numpy(near).float()
    parameters = encoder.readout_parameters
    if readout == "full":
        parameters["weight"].copy_(parameters["weight"][:, :, :1, :1] * envelope)
    else:
        parameters["mask"].copy_(envelope / envelope.norm())
    return encoder


@pytest.mark.parametrize("readout", ["full", "factorized"])
@pytest.mark.parametrize(("row", "column"), [(2, 5), (4, 3)])
def test_readout_and_gradient_agree_on_the_place(readout, row, column):
    encoder = _reading_at(row, column, readout)
    (info,) = encoder.backbone.describe([encoder.layer], encoder.image_size)
    expected = (info.offset + info.stride * column, info.offset + info.stride * row)
    weights = from_readout(encoder)
    assert (weights.x[0], weights.y[0]) == pytest.approx(expected, abs=0.7)
    assert weights.sigma[0] == pytest.approx(info.stride, rel=0.3)
    gradient = from_gradient(encoder, pictures(6, seed=3))
    assert np.hypot(gradient.x[0] - expected[0], gradient.y[0] - expected[1]) < 2.0


def test_the_gradient_map_is_that_of_finite_differences():
    encoder = random_encoder(n_units=2, layer="_blocks.0")
    image = pictures(1, seed=4)
    maps = gradient_maps(encoder, image, [1])
    assert maps.shape == (1, 32, 32)
    batch = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    rng = torch.Generator().manual_seed(0)
    batch.requires_grad_(True)
    (gradient,) = torch.autograd.grad(encoder.drive(batch)[0, 1], batch)
    direction = torch.randn(batch.shape, generator=rng)
    step = 1e-3 * direction / direction.norm()
    with torch.no_grad():
        difference = (encoder.drive(batch + step) - encoder.drive(batch - step))[0, 1]
    assert difference.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=0.05)
    np.testing.assert_allclose(maps[0], gradient[0].square().sum(0).sqrt().numpy(), rtol=1e-5)


def test_the_table_has_a_row_per_unit():
    encoder = random_encoder(n_units=3, meta={"pixels_per_degree": 4.0})
    columns = table(encoder, pictures(2))
    assert set(columns) == {*COLUMNS, *(f"gradient_{name}" for name in COLUMNS)}
    assert {len(values) for values in columns.values()} == {3}
    assert np.isfinite(columns["rf_x_deg"]).all()
    assert np.isnan(table(random_encoder(n_units=3))["rf_x_deg"]).all()
