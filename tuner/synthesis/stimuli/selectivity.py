"""Whether an image drives the unit it was made for and leaves the others alone.

After the one-hot population control of Bashivan et al. 2019: responses are z-scored per unit over all images, and an
image's score is the softmax share of its own unit, ``exp(z_own) / sum_j exp(z_j)``, over the units of the study that were
shown their own images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selectivity:
    """Responses of a study's units to one another's images.

    Attributes
    ----------
    units
        ``(n,)`` unit indices; rows are the images made for them, columns their responses.
    z
        ``(n, n)`` z-scored responses; NaN where an image was not shown.
    share
        ``(n,)``: softmax share of the own unit.
    rank
        ``(n,)``: how many units respond more than the own one.
    """

    units: NDArray[np.int64]
    z: Floats
    share: Floats
    rank: NDArray[np.int64]


def selectivity_of(
    units: NDArray[np.int64], measured: Floats, images: Sequence[Sequence[int]]
) -> Selectivity:
    """Score units' responses to one another's images.

    Parameters
    ----------
    units
        ``(n,)`` unit indices.
    measured
        ``(n_images, n)``: their mean responses to all images; NaN = missing.
    images
        Rows of ``measured`` that were made for each.
    """
    centre = mean_there(measured, 0)
    spread = np.sqrt(mean_there((measured - centre) ** 2, 0))
    z = (measured - centre) / np.where(spread > 0, spread, np.nan)
    matrix = np.stack([mean_there(z[list(each)], 0) for each in images])
    diagonal = matrix.diagonal()
    with np.errstate(invalid="ignore"):
        share = np.exp(diagonal) / np.nansum(np.exp(matrix), axis=1)
        rank = (matrix > diagonal[:, None]).sum(1)
    return Selectivity(units, matrix, np.asarray(share), rank.astype(np.int64))


def mean_there(values: Floats, axis: int) -> Floats:
    """Mean over what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
