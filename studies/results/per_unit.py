r"""Every unit's own trial, shrunk towards the trial of its region.

The trial that is best for a unit on some validation images is mostly lucky there: alone it predicts worse than the region's
best. So both answer, and the unit's own trial counts by a share that images which did not choose it must bear out.

With :math:`x` the difference between the two predictions and :math:`y` what the region's leaves over, the share is the slope
of :math:`y` on :math:`x`, a linear regression, under a normal prior that is centred at 0, the region's trial:

.. math:: \hat\lambda = \frac{\sum x y}{\sum x^2}, \qquad
          \lambda = \min\Bigl(1, \max\bigl(0, \hat\lambda \frac{\tau^2}{\tau^2 + s^2}\bigr)\Bigr)

where :math:`s` is the slope's standard error, over groups of images where there are groups. A slope of less than one and a
half standard errors counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.search.best_weights import REPORT

if TYPE_CHECKING:
    from torch import Tensor

    from studies.database.artifacts import Tensors
    from studies.grid import Spec
    from studies.workspace import Workspace

Floats = NDArray[np.float64]

PRIOR = 0.1
r""":math:`\tau`, standard deviation of what a unit's own trial is expected to count."""

CLEAR = 1.5
"""Standard errors that a slope must exceed."""


def shares(x: Floats, y: Floats, groups: NDArray[np.int64]) -> Floats:
    """What a unit's own trial counts, ``(n_units,)`` from 0, the region's trial alone, to 1.

    Parameters
    ----------
    x, y
        ``(n_images, n_units)``: prediction of the own trial less that of the region's, and the response less that of the
        region's; on images that did not choose the own trial. NaN in ``y`` = missing.
    groups
        ``(n_images,)`` codes of images that are not independent of each other.
    """
    there = ~np.isnan(y)
    x, y = np.where(there, x, 0.0), np.where(there, y, 0.0)
    power = np.square(x).sum(0)
    differs = power > 1e-9 * np.square(y).sum(0)
    safe = np.where(differs, power, 1.0)
    slope = (x * y).sum(0) / safe
    _, member = np.unique(groups, return_inverse=True)
    n = int(member.max()) + 1
    if n < 2:
        return np.zeros(x.shape[1])
    scores = np.zeros((n, x.shape[1]))
    np.add.at(scores, member, x * (y - slope * x))
    variance = np.square(scores).sum(0) * n / (n - 1) / safe**2
    clear = differs & (slope > CLEAR * np.sqrt(variance))
    return np.where(clear, np.clip(slope * PRIOR**2 / (PRIOR**2 + variance), 0.0, 1.0), 0.0)


def shrunken(
    workspace: Workspace, spec: Spec, region: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[Tensors, float | None]:
    """Weights of every unit's own trial and of the region's, mixed by `shares`.

    Parameters
    ----------
    region, own
        Kept weights of the study's best trial, and of the best of every unit.

    Returns
    -------
    parameters
        Exported parameters of one readout that answers with the mixture.
    loss
        Validation loss on the half of the images that did not choose the own trials, each of two parts of it under shares
        from the other; None where it has no responses.
    """
    import torch

    from studies.results.judged import mean_losses
    from studies.results.predictions import held_out, respond
    from tuner import readouts
    from tuner.fitting import losses
    from tuner.scores.moments import nan_mean

    loss = workspace.experiment.training.loss
    report = workspace.cuts.halves == REPORT
    raw = [held_out(workspace, spec, dict(one))[report] for one in (region, own)]
    target = workspace.targets.validation[report][:, spec.units]
    ours, theirs = (respond(loss, one).astype(np.float64) for one in raw)
    x, y = theirs - ours, target - ours
    groups = workspace.recording.train_groups
    codes = np.arange(len(x)) if groups is None else groups[workspace.cuts.held_out][report]
    found = shares(x, y, codes)

    part = np.unique(codes, return_inverse=True)[1].reshape(-1) % 2
    crossed = np.zeros(x.shape)
    for side in (0, 1):
        if (part != side).any():
            crossed[part == side] = shares(x[part != side], y[part != side], codes[part != side])
    mixed = (1 - crossed) * raw[0] + crossed * raw[1]
    each = losses.value(loss, torch.from_numpy(mixed), torch.from_numpy(target).double()).numpy()
    value = float(nan_mean(nan_mean(each)))
    if loss == "mse" and workspace.experiment.training.relative:
        value /= float(nan_mean(nan_mean(mean_losses(loss, target)))) or 1.0

    kernel = readouts.get(spec.key.readout).kernel(spec.shape, torch.device("cpu"))
    names = set(region) & set(readouts.get(spec.key.readout).parameter_shapes(spec.shape, 1))
    members = [{name: one[name] for name in names} for one in (region, own)]
    weights = torch.from_numpy(np.stack([1 - found, found]))
    return kernel.averaged(members, weights), value if np.isfinite(value) else None
