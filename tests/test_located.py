"""The located ridge against direct solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tuner.closed_form import located
from tuner.closed_form.located import LocatedFit, fit_located, fits_located
from tuner.closed_form.prior import SpatialPrior

N, SHAPE = 70, (3, 6, 5)
FOLDS = [np.arange(N)[np.arange(N) % 4 == fold] for fold in range(4)]


def problem() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Units that look at one place; one misses a few responses, one half of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, *SHAPE))
    up, along = np.arange(6)[:, None], np.arange(5)
    place = np.exp(-((up - 2) ** 2 + (along - 1) ** 2) / 2)
    y = np.einsum("nchw,kchw->nk", x, rng.normal(size=(4, *SHAPE)) * place)
    y += rng.normal(size=y.shape)
    y[3:6, 1] = np.nan
    y[:35, 2] = np.nan
    return x, (y - np.nanmean(y, 0)) / np.nanstd(y, 0)


def answers(fit: LocatedFit, fold: int, unit: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = fit.weight[fold, unit].double().numpy().ravel()
    return x.reshape(N, -1) @ weight / math.sqrt(weight.size) + float(fit.bias[fold, unit])


def solved(
    fit: LocatedFit,
    unit: int,
    rows: NDArray[np.int64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The same problem by the normal equations."""
    prior = SpatialPrior(
        fit.widths[unit],
        *SHAPE[1:],
        envelope=located.envelope(fit.masks[unit]),
        negligible=1e-3,
        dtype=torch.float64,
        device="cpu",
    )
    z = prior.project(torch.from_numpy(x)).numpy()
    scale = np.square(z - z.mean(0)).sum() / N
    level = z[rows].mean(0)
    a = z[rows] - level
    wanted = y[rows, unit] - y[rows, unit].mean()
    ridge = a.T @ a + fit.penalties[unit] * scale * np.eye(a.shape[1])
    return (z - level) @ np.linalg.solve(ridge, a.T @ wanted) + y[rows, unit].mean()


@pytest.mark.parametrize("unit", range(4))
def test_each_fold_is_fitted_without_its_images(unit: int) -> None:
    x, y = problem()
    fit = fit_located(x, y, np.arange(N), folds=FOLDS)
    there = np.flatnonzero(~np.isnan(y[:, unit]))
    for number, fold in enumerate(FOLDS):
        expected = solved(fit, unit, np.setdiff1d(there, fold), x, y)
        np.testing.assert_allclose(answers(fit, number, unit, x), expected, atol=1e-6)
        left = np.intersect1d(fold, there)
        np.testing.assert_allclose(fit.held_out[left, unit], expected[left], atol=1e-6)
    error = np.square(fit.held_out[there, unit] - y[there, unit])
    assert fit.loss[unit] == pytest.approx(error.mean(), rel=1e-6)
    assert np.isnan(fit.held_out[np.setdiff1d(np.arange(N), there), unit]).all()


def test_without_folds_there_is_one_fit_to_all() -> None:
    x, y = problem()
    fit = fit_located(x, y, np.arange(N))
    assert fit.weight.shape == (1, 4, *SHAPE)
    there = np.flatnonzero(~np.isnan(y[:, 0]))
    np.testing.assert_allclose(answers(fit, 0, 0, x), solved(fit, 0, there, x, y), atol=1e-6)
    without = np.delete(there, 7)
    assert fit.held_out[7, 0] == pytest.approx(solved(fit, 0, without, x, y)[7], abs=1e-6)


def test_a_setting_is_the_best_of_its_grid() -> None:
    x, y = problem()
    every = fit_located(x, y, np.arange(N), folds=FOLDS, widths=[0.7, 1.5], penalties=[0.1, 1.0])
    losses = [
        fit_located(x, y, np.arange(N), folds=FOLDS, widths=[width], penalties=[penalty]).loss
        for width in (0.7, 1.5)
        for penalty in (0.1, 1.0)
    ]
    np.testing.assert_allclose(every.loss, np.min(losses, axis=0))


def test_several_ways_to_deal_the_folds_share_decompositions_and_are_each_as_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = problem()
    others = [np.flatnonzero(np.arange(N) // 18 == fold) for fold in range(4)]
    alone = [fit_located(x, y, np.arange(N), folds=folds) for folds in (FOLDS, others)]
    made: list[int] = []
    gram = located.Gram.__init__

    def counted(self: located.Gram, *arguments: object) -> None:
        made.append(1)
        gram(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(located.Gram, "__init__", counted)
    fit_located(x, y, np.arange(N), folds=FOLDS)
    once = len(made)
    together = [fit() for fit in fits_located(x, y, np.arange(N), [FOLDS, others])]
    assert len(made) == 2 * once
    for one, other in zip(alone, together, strict=True):
        for name in ("widths", "penalties", "held_out", "loss", "weight", "bias"):
            assert (
                np.asarray(getattr(one, name)).tobytes()
                == np.asarray(getattr(other, name)).tobytes()
            )
    assert not np.array_equal(together[0].weight, together[1].weight)
