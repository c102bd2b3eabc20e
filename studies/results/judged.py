"""Whether a fit is surely better than predicting every unit's mean: the one place that says so.

A validation loss of 1 is the mean's on the same images. But the best of many trials, judged on few images, falls below 1 by
chance; so where predictions are at hand the difference is taken image by image, and its interval decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.database.artifacts import Tensors
from studies.database.summaries import no_better
from studies.grid import Spec
from studies.results.predictions import held_out

if TYPE_CHECKING:
    from studies.workspace import Workspace


def mean_losses(loss: str, targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Losses of predicting every unit's mean, ``(n_images, n_units)``; NaN where there is no response."""
    import torch

    from tuner.fitting import losses

    there = torch.from_numpy(targets).double()
    return np.asarray(losses.value(loss, torch.zeros_like(there), there).numpy())


def per_unit(
    workspace: Workspace, each: NDArray[np.float64], flat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Losses of units on their held-out images, ``(n_units,)``, each divided by its own mean's on the same ones.

    Parameters
    ----------
    each, flat
        ``(n_images, n_units)`` of a fit, and of predicting the mean.
    """
    from tuner.scores.moments import nan_mean

    own = nan_mean(each)
    if not workspace.divided_by_mean:
        return own
    mean = nan_mean(np.where(np.isnan(each), np.nan, flat))
    return np.asarray(own / np.where(mean > 1e-12, mean, 1.0))


def compared(
    workspace: Workspace, spec: Spec, parameters: Tensors
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Output of a study's weights on its held-out images, and losses: of the fit, and of predicting every unit's mean.

    Returns
    -------
    output, each, flat
        ``(n_images, n_units)`` each.
    """
    import torch

    from tuner.fitting import losses

    loss = workspace.experiment.training.loss
    raw = held_out(workspace, spec, parameters)
    target = workspace.targets.validation[:, spec.units]
    each = losses.value(loss, torch.from_numpy(raw), torch.from_numpy(target)).double().numpy()
    return raw, each, mean_losses(loss, target)


def tried(workspace: Workspace, spec: Spec, finished: int) -> int:
    """Say from how many fits a study's best was chosen on the held-out images.

    On a single cut a closed form is chosen among the fit images: nothing was picked on these.
    """
    return 1 if spec.closed_form and workspace.cuts.n_folds == 1 else finished


def by_image(each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over units of each image's losses, ``(n_images,)``; NaN without a finite one."""
    from tuner.scores.moments import nan_mean

    return nan_mean(np.where(np.isfinite(each), each, np.nan), axis=1)


def fit_failed(
    workspace: Workspace,
    value: float,
    each: NDArray[np.float64],
    flat: NDArray[np.float64],
    *,
    trials: int,
) -> bool:
    """Whether a fit is not surely better than predicting every unit's mean.

    Parameters
    ----------
    value
        Its validation loss.
    each, flat
        ``(n_images, n_units)`` losses on the held-out images: of the fit, and of predicting the mean.
    trials
        Number of fits that it was chosen from on these images.
    """
    from tuner.scores import beyond_chance

    if no_better(value):
        return True
    if workspace.experiment.data.intervals != "groups":
        return False
    groups = workspace.cuts.held_out_groups
    return not beyond_chance(by_image(each), by_image(flat), trials=trials, groups=groups)


def units_failed(
    workspace: Workspace, each: NDArray[np.float64], flat: NDArray[np.float64], *, trials: int
) -> NDArray[np.bool_]:
    """Whether the fits of single units are not surely better than predicting their means, ``(n_units,)``.

    A unit that is a region by itself is judged as the region is: one fit has one verdict.

    Parameters
    ----------
    each, flat, trials
        As of :func:`fit_failed`.
    """
    from tuner.scores import units_beyond_chance

    own = per_unit(workspace, each, flat)
    worse = ~(own < 1.0)
    if workspace.experiment.data.intervals != "groups":
        return worse
    groups = workspace.cuts.held_out_groups
    return worse | ~units_beyond_chance(each, flat, trials=trials, groups=groups)
