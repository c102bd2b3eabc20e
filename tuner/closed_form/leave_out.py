r"""Exact predictions of images that were left out, from one decomposition.

With :math:`Q = I - H`, H the matrix that maps responses to fitted values (intercept included), the residuals of a group
:math:`g` of images that the fit did not see are :math:`Q_{gg}^{-1} (Q y)_g` (Cook & Weisberg 1982, Residuals and
Influence in Regression; for single images the familiar division by :math:`1 - h`). Where responses are missing at images
:math:`m`, the fit to the others has :math:`\tilde Q = Q_{vv} - Q_{vm} Q_{mm}^{-1} Q_{mv}` in its place, and equals the
fit to responses completed by :math:`-Q_{mm}^{-1} (Q y)_m`: the same weights, without a decomposition of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.closed_form.gram import Spectrum

_ROWS = 1024


@dataclass(frozen=True)
class LeftOut:
    """A fit under one penalty.

    Attributes
    ----------
    predictions
        ``(n, k)`` of each image by the fit to the images outside its group.
    coefficients
        ``(r, k)`` by which the whole fit predicts: ``G c + mean`` other images, ``X^T U c`` the weights.
    mean
        ``(k,)`` of the responses, the missing ones completed.
    """

    predictions: Tensor
    coefficients: Tensor
    mean: Tensor


class LeaveOut:
    """Units that miss the same responses, under one decomposition.

    Parameters
    ----------
    spectrum
        Spectrum of the images' features.
    responses
        ``(n, k)``; anything where missing.
    missing
        ``(m,)`` positions of the images that these units have no response to.
    groups
        Positions of images that are left out together; an image in none of them is left out alone.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        responses: Tensor,
        missing: Tensor,
        groups: Sequence[Tensor],
    ) -> None:
        self.spectrum = spectrum
        self.missing = missing
        gone = torch.zeros(len(responses), dtype=torch.bool, device=responses.device)
        gone[missing] = True
        self.responses = torch.where(gone[:, None], torch.zeros_like(responses), responses)
        self._turned = spectrum.vectors.T @ self.responses
        there = [g[~gone[g]] for g in groups]
        self._groups = [g for g in there if len(g) > 1]

    def at(self, penalty: float) -> LeftOut:
        """Fit under a penalty."""
        u, n = self.spectrum.vectors, len(self.responses)
        shrink = self.spectrum.values / (self.spectrum.values + penalty)
        y, turned = self.responses, self._turned
        residual = y - y.mean(0) - u @ (shrink[:, None] * turned)
        diagonal = 1 - 1 / n - _leverage(u, shrink)
        between: Tensor | None = None
        m = self.missing
        if len(m):
            rows = -(u[m] * shrink) @ u.T - 1 / n
            rows[torch.arange(len(m)), m] += 1
            lower = torch.linalg.cholesky(rows[:, m])
            between = torch.linalg.solve_triangular(lower, rows, upper=False)
            ahead = torch.linalg.solve_triangular(lower, residual[m], upper=False)
            y = y.clone()
            y[m] = -torch.linalg.solve_triangular(lower.T, ahead, upper=True)
            turned = turned + u[m].T @ y[m]
            residual = residual - between.T @ ahead
            diagonal = diagonal - between.square().sum(0)
            diagonal[m] = 1
        left = residual / diagonal[:, None]
        for g in self._groups:
            block = torch.eye(len(g), dtype=u.dtype, device=u.device) - 1 / n
            block -= (u[g] * shrink) @ u[g].T
            if between is not None:
                block -= between[:, g].T @ between[:, g]
            left[g] = torch.linalg.solve(block, residual[g])
        return LeftOut(
            predictions=y - left,
            coefficients=turned / (self.spectrum.values + penalty)[:, None],
            mean=y.mean(0),
        )


def _leverage(u: Tensor, shrink: Tensor) -> Tensor:
    """Diagonal of ``U diag(shrink) U^T``."""
    parts = [u[start : start + _ROWS].square() @ shrink for start in range(0, len(u), _ROWS)]
    return torch.cat(parts)
