"""Ways without a search: each takes a problem, and returns predictions ``(n_test, n_units)`` of z-scored responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from benchmarks.real.problem import Floats, Problem
from tuner.closed_form.fwrf import FwrfFit, fit_fwrf
from tuner.closed_form.smooth import PENALTIES, SmoothFit, fit_smooth

COMPONENTS = 25
"""Of the partial least squares that Brain-Score compares models with (Schrimpf et al. 2018)."""

FOLDS = 5


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


CLOSED: Mapping[str, Callable[[Problem], Floats]] = {
    "pls": pls,
    "ridge": ridge,
    "himalaya": himalaya,
    "fwrf": fwrf,
}
