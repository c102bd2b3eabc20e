"""Ways without a search: each takes a problem, and returns predictions ``(n_test, n_units)`` of z-scored responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.real.problem import Floats, Problem
from tuner.closed_form.fwrf import FwrfFit, fit_fwrf
from tuner.closed_form.located import LocatedFit, fit_located
from tuner.closed_form.smooth import PENALTIES, SmoothFit, fit_smooth
from tuner.recordings.split import deal

COMPONENTS = 25
"""Of the partial least squares that Brain-Score compares models with (Schrimpf et al. 2018)."""

FOLDS = 5

Rows = NDArray[np.int64]


def pls(problem: Problem) -> Floats:
    """Partial least squares of 25 components, all units at once, features not scaled."""
    from sklearn.cross_decomposition import PLSRegression

    def fit(x: Floats, y: Floats, test: Floats) -> Floats:
        components = min(COMPONENTS, len(x) - 1, x.shape[1])
        found: Floats = PLSRegression(n_components=components, scale=False).fit(x, y).predict(test)
        return found

    return problem.by_missing(fit)


def himalaya(problem: Problem) -> Floats:
    """Kernel ridge of himalaya (Dupré la Tour et al. 2022), the penalty of each unit by five folds."""
    from himalaya.kernel_ridge import KernelRidgeCV

    def fit(x: Floats, y: Floats, test: Floats) -> Floats:
        center, level = x.mean(0), y.mean(0)
        x = x - center
        length = float(np.square(x).sum(1).mean())
        model = KernelRidgeCV(alphas=length * np.array(PENALTIES), cv=FOLDS)
        found: Floats = model.fit(x, y - level).predict(test - center) + level
        return found

    return problem.by_missing(fit)


def _by_leave_one_out(problem: Problem, fit: Callable[..., SmoothFit | FwrfFit]) -> Floats:
    n = len(problem.train)
    unknown = np.full((len(problem.test), problem.responses.shape[1]), np.nan)
    groups = problem.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(problem.test))])
    found = fit(
        np.concatenate([problem.train, problem.test]),
        np.concatenate([problem.responses, unknown]),
        np.arange(n),
        others=np.arange(n, n + len(problem.test)),
        groups=groups,
        weights=False,
    )
    return found.others.astype(np.float64)


def ridge(problem: Problem) -> Floats:
    """Ridge, the penalty of each unit by leave-one-out."""
    return _by_leave_one_out(problem, partial(fit_smooth, widths=[0.0]))


def fwrf(problem: Problem) -> Floats:
    """Ridge under a Gaussian mask a unit (St-Yves & Naselaris 2018)."""
    return _by_leave_one_out(problem, fit_fwrf)


def _located(problem: Problem) -> tuple[LocatedFit, list[Rows]]:
    """Where searches start, and the images that each of its folds leaves out."""
    n = len(problem.train)
    folds = [split.validation for split in deal(n, problem.groups, FOLDS, seed=0)]
    return fit_located(problem.train, problem.responses, np.arange(n), folds=folds), folds


def located(problem: Problem) -> Floats:
    """Where searches start: smooth ridge under an envelope a unit, the mean over the folds' fits."""
    fit, _ = _located(problem)
    x = torch.from_numpy(problem.test.astype(np.float32)).flatten(1)
    return (x @ fit.weight.mean(0).flatten(1).T + fit.bias.mean(0)).double().numpy()


def ranked(problem: Problem, rank: int) -> Floats:
    """What so many masks a unit hold of it, the channels under them fitted anew by ridge: at 1, a factorized readout.

    The masks are the first right singular vectors of a fold's weights ``(C, cells)``, by their singular values.
    """
    fit, folds = _located(problem)
    both = torch.from_numpy(np.concatenate([problem.train, problem.test])).flatten(2)
    n, missing = len(problem.train), np.full(len(problem.test), np.nan)
    groups = problem.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(problem.test))])
    out = np.zeros((len(problem.test), problem.responses.shape[1]))
    for left_out, weight in zip(folds, fit.weight, strict=True):
        rows = np.setdiff1d(np.arange(n), left_out)
        for unit in range(out.shape[1]):
            found = fit_smooth(
                _under(both, weight[unit].flatten(1), rank),
                np.concatenate([problem.responses[:, unit], missing])[:, None],
                rows,
                others=np.arange(n, len(both)),
                groups=groups,
                widths=[0.0],
                weights=False,
            )
            out[:, unit] += found.others[:, 0] / len(folds)
    return out


def _under(maps: Tensor, weight: Tensor, rank: int) -> Floats:
    """Maps ``(n, C, cells)`` under the masks that a unit's weights ``(C, cells)`` share most of, ``(n, C * rank, 1, 1)``."""
    _, shares, masks = torch.linalg.svd(weight.double(), full_matrices=False)
    masks = masks[:rank] * (shares[:rank, None] / shares[0])
    pooled = torch.cat([some.double() @ masks.T for some in torch.split(maps, 256)])
    return pooled.flatten(1)[:, :, None, None].numpy()


CLOSED: Mapping[str, Callable[[Problem], Floats]] = {
    "pls": pls,
    "ridge": ridge,
    "himalaya": himalaya,
    "fwrf": fwrf,
    "located": located,
    **{f"rank {rank}": partial(ranked, rank=rank) for rank in (1, 2, 3)},
}
