r"""The penalties of the readouts, each a pure function per unit, and the true Laplacian.

All maps are laid out ``(..., h, w)`` or flattened ``(..., h * w)``; every function reduces over what belongs to one unit
and keeps the leading axes, so a value per unit comes out and no unit sees another.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP_EPSILON = 1e-12
"""Added under the root of the group norm, in value and gradient alike."""


def second_difference(side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One-dimensional negative second difference with zero padding, ``(side, side)``.

    Rows read ``-1, 2, -1``; the two-dimensional Laplacian with centre 4 is the sum of one along each axis.
    """
    eye = torch.eye(side, dtype=dtype)
    beside = torch.diag(torch.ones(side - 1, dtype=dtype), 1)
    return 2 * eye - beside - beside.T


def laplacian_matrix(height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """True Laplacian ``[[0,-1,0],[-1,4,-1],[0,-1,0]]``, zero-padded, as a ``(h*w, h*w)`` matrix."""
    rows = torch.kron(second_difference(height, dtype), torch.eye(width, dtype=dtype))
    columns = torch.kron(torch.eye(height, dtype=dtype), second_difference(width, dtype))
    return rows + columns


def squared_laplacian_matrix(height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """``L^T L``, so that the gradient of :func:`smoothness` is ``2 w L^T L``; ``(h*w, h*w)``."""
    laplacian = laplacian_matrix(height, width, torch.float64)
    return (laplacian.T @ laplacian).to(dtype)


def laplacian(maps: Tensor) -> Tensor:
    """Apply the zero-padded Laplacian to ``(..., h, w)`` maps by shifted sums."""
    out = 4 * maps
    out[..., 1:, :] -= maps[..., :-1, :]
    out[..., :-1, :] -= maps[..., 1:, :]
    out[..., :, 1:] -= maps[..., :, :-1]
    out[..., :, :-1] -= maps[..., :, 1:]
    return out


def smoothness(maps: Tensor) -> Tensor:
    r"""``sum (L * w)^2`` over channels and space (Cadena et al. 2019, with the true Laplacian).

    Parameters
    ----------
    maps
        ``(n, C, h, w)`` weights or ``(n, h, w)`` masks.

    Returns
    -------
    Tensor
        ``(n,)``, never negative.
    """
    return laplacian(maps).square().flatten(1).sum(1)


def sparsity(weights: Tensor) -> Tensor:
    """``sum |w|`` per unit; ``(n, ...)`` to ``(n,)``."""
    return weights.abs().flatten(1).sum(1)


def group_sparsity(weights: Tensor) -> Tensor:
    """``sum over channels of sqrt(sum over space w^2 + 1e-12)``; ``(n, C, h, w)`` to ``(n,)``."""
    return (weights.square().flatten(2).sum(2) + GROUP_EPSILON).sqrt().sum(1)


def weight_decay(weights: Tensor) -> Tensor:
    """``sum w^2`` per unit; ``(n, ...)`` to ``(n,)``."""
    return weights.square().flatten(1).sum(1)
