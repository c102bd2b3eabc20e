"""How sure it is that a fit of a unit is ahead of others: losses on the held-out images, paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studies.results.judged import mean_losses
from tuner.scores import by_part, loss_gaps

if TYPE_CHECKING:
    from studies.results.scores import Evaluated
    from studies.workspace import Workspace
    from tuner.scores import Gaps

Fit = tuple["Evaluated", int]
"""A study, and the place of a unit in it."""


def divisors(workspace: Workspace, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the summed losses of units are divided by, so that sums of both give their validation losses.

    The number of responses; where losses are divided by the mean's (``workspace.divided_by_mean``), the mean's loss.

    Returns
    -------
    numpy.ndarray
        ``(parts, n_units)``.
    """
    target = workspace.targets.validation[:, units]
    flat = np.where(np.isnan(target), np.nan, 1.0)
    if workspace.divided_by_mean:
        flat = mean_losses(workspace.experiment.training.loss, target)
    return by_part(flat, workspace.cuts.held_out_groups).astype(np.float64)


def ahead(
    workspace: Workspace, best: Fit, rivals: Sequence[Fit], each: NDArray[np.float64]
) -> Gaps:
    """Losses of rivals less that of the best of them, of one unit.

    Parameters
    ----------
    best, rivals
        Fits of the same unit.
    each
        ``(parts,)`` of the unit, from :func:`divisors`.
    """

    def of(fit: Fit) -> NDArray[np.float32]:
        one, place = fit
        assert one.unit_losses is not None
        return one.unit_losses[:, place]

    return loss_gaps(of(best), [of(fit) for fit in rivals], each, overlap=workspace.cuts.overlap)
