"""Positions and sizes of receptive fields, against fields that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encoders import backbone, pictures, random_encoder
from tuner.encoder import Encoder
from tuner.features.normalize import Moments
from tuner.figures.tables import FIELD_COLUMNS
from tuner.synthesis.receptive_fields import (
    fit_gaussians,
    from_gradient,
    from_readout,
    gradient_maps,
    table,
)
from tuner.synthesis.sight import sight


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
    assert tuple(columns) == FIELD_COLUMNS
    assert columns["rf_x_deg"][0] == pytest.approx(1.0, abs=0.01)
    assert columns["rf_y_deg"][0] == pytest.approx(2.0, abs=0.01)
    assert columns["rf_sigma_deg"][0] == pytest.approx(0.4, abs=0.01)


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
    seen = sight(encoder)
    expected = (seen.columns[column], seen.rows[row])
    weights = from_readout(encoder)
    assert (weights.x[0], weights.y[0]) == pytest.approx(expected, abs=0.7)
    (info,) = encoder.backbone.describe([encoder.layer], encoder.image_size)
    cell = seen.column_sigmas[column]
    assert weights.sigma[0] == pytest.approx(np.hypot(info.stride, cell), rel=0.2)
    gradient = from_gradient(encoder, pictures(6, seed=3))
    assert np.hypot(gradient.x[0] - expected[0], gradient.y[0] - expected[1]) < 2.0


def test_a_unit_that_reads_one_cell_sees_as_far_as_the_cell():
    """No ellipse collapses to a sliver between the places of two cells."""
    encoder = random_encoder(n_units=1, layer="_blocks.1", unit_indices=[0])
    weight = encoder.readout_parameters["weight"]
    kept = weight[:, :, 3, 4].clone()
    weight.zero_()
    weight[:, :, 3, 4] = kept
    fields, seen = from_readout(encoder), sight(encoder)
    assert fields.minor[0] > 0.9 * min(seen.column_sigmas[4], seen.row_sigmas[3])
    assert fields.major[0] < 2.5 * fields.minor[0]
    assert (fields.x[0], fields.y[0]) == pytest.approx((seen.columns[4], seen.rows[3]), abs=1.5)


def test_covariances_are_those_of_the_ellipses():
    rows = columns = np.arange(0, 64, 2.0)
    maps = np.stack([_gaussian(30, 33, 9, 5, angle, rows, columns) for angle in (0, 30, 110)])
    fields = fit_gaussians(maps, rows, columns, 64)
    for k, covariance in enumerate(fields.covariances()):
        offset = np.array([columns[None, :] - 30, rows[:, None] - 33], dtype=object)
        dx, dy = np.broadcast_arrays(*offset)
        points = np.stack([dx, dy], axis=-1).astype(float)
        inverse = np.linalg.inv(covariance)
        drawn = np.exp(-0.5 * np.einsum("...i,ij,...j", points, inverse, points))
        np.testing.assert_allclose(drawn, maps[k], atol=0.02)


@pytest.fixture(scope="module")
def simulated_v1():
    """Gabor units without noise, and images that they were shown."""
    from tuner.recordings.simulated.model import Population, Settings, simulate

    return simulate((Population("V1"),), Settings(n_train=700, n_test=20, units_per_region=12))


def _ridge(recording, layer: str) -> Encoder:
    """A full readout fitted to the noiseless signal in closed form."""
    from tuner.encoder import as_batch

    network = backbone()
    (info,) = network.describe([layer], 64)
    images = as_batch(np.stack([recording.train_images.read(k) for k in range(700)]))
    with torch.no_grad():
        raw = torch.cat([network.features(part, [layer])[layer] for part in images.split(50)])
    normalization = Moments.of(raw).normalization(
        rectified=info.rectified, kernel=1, grid=(info.height, info.width)
    )
    x = normalization.apply(raw).flatten(1).double()
    signal = torch.from_numpy(recording.truth["signal/train"]).double()
    y = (signal - signal.mean(0)) / signal.std(0)
    centred = x - x.mean(0)
    gram = centred @ centred.T
    gram.diagonal().add_(0.5 * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, y).T @ centred
    scale = x.shape[1] ** 0.5
    return Encoder(
        backbone=network,
        layer=layer,
        normalization=normalization,
        readout="full",
        parameters={
            "weight": scale * weight.reshape(-1, *raw.shape[1:]).float(),
            "bias": -(weight @ x.mean(0)).float(),
        },
        response_mean=torch.zeros(12),
        response_scale=torch.ones(12),
        loss="mse",
        image_size=64,
        unit_indices=np.arange(12),
    )


@pytest.mark.parametrize(
    ("layer", "least"), [("_blocks.2", 1.0), ("_blocks.4", 0.9), ("_blocks.5", 0.4)]
)
def test_fields_of_simulated_v1_units_are_found_at_any_depth(simulated_v1, layer, least):
    """At the last depth a cell is 16 px wide, four sigmas: there only the bias can be told to be gone."""
    truth = simulated_v1.truth
    fields = from_readout(_ridge(simulated_v1, layer))
    dx, dy = fields.x - truth["units/x"], fields.y - truth["units/y"]
    assert np.mean(np.hypot(dx, dy) <= truth["units/sigma"]) >= least
    assert abs(np.median(dx)) < 1.5
    assert abs(np.median(dy)) < 1.5


def test_sight_is_measured_once_and_kept_in_a_folder(tmp_path, monkeypatch):
    from tuner.synthesis import sight as module

    encoder = random_encoder(n_units=2)
    monkeypatch.setattr(module, "_known", {})
    first = sight(encoder, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("*.json")
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "measure", None)  # whoever measures again fails
    again = sight(encoder, tmp_path / "cache")
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, vars(again)[name])
    assert sight(encoder) is again
    kept.write_text("{")
    monkeypatch.undo()
    monkeypatch.setattr(module, "_known", {})
    np.testing.assert_array_equal(sight(encoder, tmp_path / "cache").rows, first.rows)


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
    assert set(columns) == {*FIELD_COLUMNS, *(f"gradient_{name}" for name in FIELD_COLUMNS)}
    assert {len(values) for values in columns.values()} == {3}
    assert np.isfinite(columns["rf_x_deg"]).all()
    assert np.isnan(table(random_encoder(n_units=3))["rf_x_deg"]).all()
