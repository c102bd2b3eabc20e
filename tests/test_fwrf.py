"""Gaussian-mask ridge: the mask against brute force, the fit under it against the textbook, missing responses, export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tuner import readouts
from tuner.closed_form.fwrf import best_masks, fit_fwrf, lattices

N, CHANNELS, SIDE = 70, 3, 8
PENALTIES = (1e-3, 1e-1, 10.0)


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, responses of units that each read one place, and the places."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(0.3, 1, (N, CHANNELS, SIDE, SIDE)), 0).astype(np.float16)
    places = rng.uniform(1, SIDE - 2, (4, 2))
    along = np.exp(-((np.arange(SIDE)[None, None] - places[:, :, None]) ** 2) / 2)
    weights = rng.normal(size=(4, CHANNELS))
    y = np.einsum("nchw,uh,uw,uc->nu", x.astype(float), along[:, 0], along[:, 1], weights)
    y = (y - y.mean(0)) / y.std(0) + 0.3 * rng.normal(size=y.shape)
    return x, y, places


def every_mask() -> np.ndarray:
    return np.concatenate([lattice.masks for lattice in lattices(SIDE, SIDE)])


def generalised(z: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """The score of one mask, unit and penalty, by the hat matrix."""
    z = z - z.mean(0)
    level = penalty * np.square(z).sum() / len(z)
    hat = z @ np.linalg.solve(z.T @ z + level * np.eye(z.shape[1]), z.T) + 1 / len(z)
    return float(np.square(y - hat @ y).sum() / (1 - np.trace(hat) / len(z)) ** 2)


def test_masks_are_those_of_least_generalised_cross_validation() -> None:
    x, y, places = problem()
    rows = np.arange(60)
    found = best_masks(x, y, rows, penalties=PENALTIES)
    masks = every_mask()
    pooled = np.einsum("nchw,mhw->mnc", x[rows].astype(float), masks)
    for unit in range(y.shape[1]):
        scores = [min(generalised(z, y[rows, unit], p) for p in PENALTIES) for z in pooled]
        np.testing.assert_allclose(found[unit], masks[int(np.argmin(scores))])
    assert np.allclose(np.square(found).sum((1, 2)), 1)
    centres = np.stack([np.unravel_index(m.argmax(), m.shape) for m in found])
    assert np.abs(centres - places).max() < 1.6


def test_masks_do_not_depend_on_the_piece_that_is_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y, _ = problem()
    whole = best_masks(x, y, np.arange(N))
    monkeypatch.setattr("tuner.closed_form.fwrf._PIECE", 7 * N * CHANNELS)
    monkeypatch.setattr("tuner.closed_form.fwrf._CHUNK", 9)
    np.testing.assert_array_equal(best_masks(x, y, np.arange(N)), whole)


def test_a_unit_of_another_session_is_given_the_mask_of_its_own_images() -> None:
    x, y, _ = problem()
    joined = y.copy()
    joined[:35, 1] = np.nan
    found = best_masks(x, joined, np.arange(N))
    alone = best_masks(x[35:], y[35:, 1:2], np.arange(35))
    np.testing.assert_array_equal(found[1], alone[0])
    np.testing.assert_array_equal(found[0], best_masks(x, y, np.arange(N))[0])


@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_fits_under_the_masks_leave_out_and_predict_as_the_textbook_does(missing: float) -> None:
    x, y, _ = problem(1)
    y[np.random.default_rng(2).random(y.shape) < missing] = np.nan
    rows, others = np.arange(55), np.arange(55, N)
    groups = np.arange(N) // 2
    fit = fit_fwrf(x, y, rows, others=others, groups=groups, penalties=(0.1,))
    for unit in range(y.shape[1]):
        z = np.einsum("nchw,hw->nc", x.astype(float), fit.masks[unit])
        there = rows[~np.isnan(y[rows, unit])]
        z_all = z - z[rows].mean(0)
        level = 0.1 * np.square(z_all[rows]).sum() / len(rows)

        def predict(fitted: np.ndarray, wanted: np.ndarray, unit: int = unit) -> np.ndarray:
            center, mean = z[fitted].mean(0), y[fitted, unit].mean()  # noqa: B023
            a = z[fitted] - center  # noqa: B023
            gram = a.T @ a + level * np.eye(CHANNELS)  # noqa: B023
            w = np.linalg.solve(gram, a.T @ (y[fitted, unit] - mean))
            return (z[wanted] - center) @ w + mean  # noqa: B023

        np.testing.assert_allclose(fit.others[:, unit], predict(there, others), atol=1e-4)
        for image in there[:8]:
            kept = there[groups[there] != groups[image]]
            expected = predict(kept, np.array([image]))[0]
            assert fit.left_out[image, unit] == pytest.approx(expected, abs=1e-4)


def test_parameters_are_the_factorized_readout_s() -> None:
    x, y, _ = problem()
    rows, others = np.arange(55), np.arange(55, N)
    fit = fit_fwrf(x, y, rows, others=others)
    maps = torch.from_numpy(x[others]).float()
    predicted = readouts.get("factorized").predict(fit.parameters, maps)
    np.testing.assert_allclose(predicted.numpy(), fit.others, atol=2e-4)
    assert fit_fwrf(x, y, rows, weights=False).parameters == {}
