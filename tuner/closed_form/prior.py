"""A prior on weights that vary smoothly over space, as a change of the features' basis."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NEGLIGIBLE = 1e-12
"""Share of the largest prior variance that is below rounding."""


def gaussian_blur(cells: int, width: float) -> NDArray[np.float64]:
    r"""Matrix ``(cells, cells)`` that blurs a line of cells with a Gaussian of standard deviation ``width`` cells.

    :math:`B_{ij} = \exp(-(i-j)^2 / 2 s^2) / \sum_{k=-\infty}^{\infty} \exp(-k^2 / 2 s^2)`; beyond the border there is
    nothing. The identity where ``width`` is 0.
    """
    if width == 0:
        return np.eye(cells)
    place = np.arange(cells)
    far = np.arange(-int(np.ceil(40 * width)), int(np.ceil(40 * width)) + 1)
    total = np.exp(-(far**2) / (2 * width**2)).sum()
    distance = place[:, None] - place[None]
    blur: NDArray[np.float64] = np.exp(-(distance**2) / (2 * width**2)) / total
    return blur


class SpatialPrior:
    r"""Weights of a channel are, before any data, a Gaussian field of covariance :math:`M = B B^T` over the grid.

    :math:`B` blurs with a Gaussian along both axes (:func:`gaussian_blur`), so that neighbouring weights are alike over
    about ``width`` cells and the border, where nothing is seen beyond, weighs less. Ridge regression on features ``x`` under
    this prior is ordinary ridge on ``R^T x`` where :math:`R R^T = M`, with :math:`w = R u`. :math:`R` is taken from the
    eigenvectors of :math:`M`, which leaves out directions that a wide prior forbids and makes the problem smaller.

    Parameters
    ----------
    width
        Standard deviation of the blur in cells; 0 is the prior of ordinary ridge.
    height, width_cells
        The grid.
    envelope
        How much weights may differ from 0 in each row ``(height,)`` and each column ``(width_cells,)``: :math:`B` is
        multiplied by it from the left, so that a unit's weights are expected where its field is. None: everywhere alike.
    negligible
        Directions along an axis whose prior variance is below this share of the largest are left out.
    """

    def __init__(
        self,
        width: float,
        height: int,
        width_cells: int,
        *,
        envelope: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
        negligible: float = _NEGLIGIBLE,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self.width = width
        self.cells = (height, width_cells)
        self._white = width == 0 and envelope is None
        along = [gaussian_blur(n, width) for n in self.cells]
        if envelope is not None:
            along = [part[:, None] * blur for part, blur in zip(envelope, along, strict=True)]
        rows, columns = (
            torch.from_numpy(_root(blur, negligible)).to(device, dtype) for blur in along
        )
        self._rows, self._columns = rows, columns
        self.size = rows.shape[1] * columns.shape[1]

    def project(self, maps: Tensor) -> Tensor:
        """``R^T x`` of maps ``(B, C, h, w)``, as ``(B, C * size)``."""
        if self._white:
            return maps.flatten(1)
        return (self._rows.T @ (maps @ self._columns)).flatten(1)

    def covary(self, maps: Tensor) -> Tensor:
        """``M x`` of maps ``(B, C, h, w)``, channel by channel."""
        if self._white:
            return maps
        rows, columns = self._rows @ self._rows.T, self._columns @ self._columns.T
        return rows @ (maps @ columns)


def _root(blur: NDArray[np.float64], negligible: float) -> NDArray[np.float64]:
    """``R`` with ``R R^T = B B^T``, its negligible columns left out."""
    left, singular, _ = np.linalg.svd(blur)
    kept = singular**2 > negligible * singular[0] ** 2
    root: NDArray[np.float64] = left[:, kept] * singular[kept]
    return root
