"""The ridge reference against the textbook solution, with and without missing responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tuner.references import ridge

FIT, VALIDATION = np.arange(0, 60), np.arange(60, 90)


def problem(n_features: int, units: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(0.3, 1.0, (90, n_features)), 0).astype(np.float16)
    weights = rng.normal(size=(n_features, units)) / np.sqrt(n_features)
    y = x.astype(float) @ weights + 0.5 * rng.normal(size=(90, units)) + 7.0
    return x, y.astype(np.float32)


def textbook(x: np.ndarray, y: np.ndarray, rows: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions for every image of a ridge regression with a free intercept."""
    x = x.reshape(len(x), -1).astype(np.float64)
    design = np.column_stack([x, np.ones(len(x))])
    shrink = penalty * np.eye(design.shape[1])
    shrink[-1, -1] = 0
    solution = np.linalg.solve(
        design[rows].T @ design[rows] + shrink, design[rows].T @ y[rows].astype(np.float64)
    )
    return design @ solution


def penalty_of(x: np.ndarray, strength: float) -> float:
    flat = x.reshape(len(x), -1).astype(np.float64)[FIT]
    return strength * float(((flat - flat.mean(axis=0)) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("n_features", [6, 300])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
@pytest.mark.parametrize("chunk_bytes", [1 << 28, 20_000])
def test_is_the_textbook_solution(n_features: int, strength: float, chunk_bytes: int) -> None:
    x, y = problem(n_features)
    found = ridge(
        x, y, FIT, VALIDATION, test_features=x[:10], strengths=[strength], chunk_bytes=chunk_bytes
    )
    expected = textbook(x, y, FIT, penalty_of(x, strength))
    np.testing.assert_allclose(found.validation_predictions, expected[VALIDATION], rtol=1e-5)
    np.testing.assert_allclose(found.test_predictions, expected[:10], rtol=1e-5)
    variance = y[FIT].astype(float).var(axis=0)
    loss = ((expected - y)[VALIDATION] ** 2).mean(axis=0) / variance
    np.testing.assert_allclose(found.validation_loss, loss, rtol=1e-5)
    correlation = [np.corrcoef(expected[VALIDATION, u], y[VALIDATION, u])[0, 1] for u in range(5)]
    np.testing.assert_allclose(found.validation_correlation, correlation, rtol=1e-5)


@pytest.mark.parametrize("n_features", [6, 300])
def test_missing_responses_are_solved_on_the_images_that_have_one(n_features: int) -> None:
    x, y = problem(n_features)
    gone = np.random.default_rng(3).random(y.shape) < 0.3
    gone[:, 0] = False
    y[gone] = np.nan
    found = ridge(x, y, FIT, VALIDATION, test_features=x, strengths=[0.1])
    for unit in range(y.shape[1]):
        rows = FIT[~np.isnan(y[FIT, unit])]
        expected = textbook(x, y[:, unit : unit + 1], rows, penalty_of(x, 0.1))[:, 0]
        np.testing.assert_allclose(found.test_predictions[:, unit], expected, rtol=1e-4)
        seen = VALIDATION[~np.isnan(y[VALIDATION, unit])]
        loss = ((expected - y[:, unit])[seen] ** 2).mean() / y[rows, unit].astype(float).var()
        assert found.validation_loss[unit] == pytest.approx(loss, rel=1e-4)


def test_strength_is_the_best_on_validation_for_each_region() -> None:
    x, y = problem(300, units=4)
    y[:, 2:] = np.random.default_rng(5).normal(size=(90, 2))  # nothing to explain
    regions = {"signal": np.array([0, 1]), "noise": np.array([2, 3])}
    strengths = [1e-3, 1e-1, 1e1, 1e3]
    found = ridge(x, y, FIT, VALIDATION, regions=regions, strengths=strengths)
    alone = [ridge(x, y, FIT, VALIDATION, strengths=[s]).validation_loss for s in strengths]
    for units in regions.values():
        losses = [loss[units].mean() for loss in alone]
        assert (found.strength[units] == strengths[int(np.argmin(losses))]).all()
        assert found.validation_loss[units].mean() == pytest.approx(min(losses))
    assert found.strength[2] > found.strength[0]


def test_recovers_a_planted_readout_from_a_memory_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "features.npy"
    full = np.maximum(rng.normal(size=(400, 4, 5, 5)), 0).astype(np.float16)
    np.save(path, full)
    weights = rng.normal(size=(100, 3))
    y = full.reshape(400, -1).astype(float) @ weights
    mapped = np.load(path, mmap_mode="r")
    found = ridge(mapped, y, np.arange(300), np.arange(300, 400), chunk_bytes=30_000)
    assert found.validation_loss.max() < 1e-4
    assert found.test_predictions is None


def test_features_that_do_not_vary_predict_the_mean() -> None:
    _, y = problem(5)
    found = ridge(np.ones((90, 5), dtype=np.float16), y, FIT, VALIDATION)
    np.testing.assert_allclose(
        found.validation_predictions, np.tile(y[FIT].mean(axis=0), (30, 1)), rtol=1e-5
    )
    assert np.isnan(found.validation_correlation).all()


def test_a_constant_unit_is_predicted_by_its_constant() -> None:
    x, y = problem(6)
    y[:, 1] = 0.1
    found = ridge(x, y, FIT, VALIDATION)
    np.testing.assert_allclose(found.validation_predictions[:, 1], 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", "do not match"),
        ("feature", "not finite"),
        ("fit", "unit 2 has fewer than two"),
        ("validation", "unit 2 has no response among the validation"),
        ("strength", "positive"),
    ],
)
def test_wrong_input_is_refused(change: str, message: str) -> None:
    x, y = problem(6)
    strengths = [1.0]
    if change == "shape":
        y = y[:-1]
    elif change == "feature":
        x[3, 2] = np.nan
    elif change == "fit":
        y[FIT[1:], 2] = np.nan
    elif change == "validation":
        y[VALIDATION, 2] = np.nan
    else:
        strengths = [0.0]
    with pytest.raises(ValueError, match=message):
        ridge(x, y, FIT, VALIDATION, strengths=strengths)
