"""What ridge regression needs of the features: inner products of images or, where that is less, of features.

Features are streamed: by channels into the inner products, so that each piece is centred as it comes, and by images into the
weights. Memory besides a piece is the square of the number of images or of features, whichever is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.closed_form.prior import SpatialPrior
from tuner.errors import EnvironmentFailure

EXACT_IMAGES = 4096
"""Up to so many images inner products are taken in float64; beyond in float32, and summed in the precision that fits."""

_ROWS = 256
_PIECE = 1 << 30
COPIES = 4
"""Square matrices that an eigendecomposition holds at once: its input, its output, and what it works in."""


class Maps(Protocol):
    """Features ``(n, C, h, w)`` read by images and channels: an array, a memory map, features computed when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, C, h, w)``."""
        ...

    def __getitem__(self, index: Any) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """In which precision a problem of some size is solved in some memory.

    Attributes
    ----------
    products
        Precision of the inner products of a piece.
    matrix
        Precision of their sum and of its eigendecomposition.
    memory
        Bytes that all of it may take.
    """

    products: torch.dtype
    matrix: torch.dtype
    memory: int

    @classmethod
    def of(cls, images: int, features: int, memory: int) -> Plan:
        """Choose by sizes alone.

        Raises
        ------
        EnvironmentFailure
            If not even a float32 matrix fits.
        """
        side = min(images, features)
        if COPIES * 4 * side**2 > memory:
            raise EnvironmentFailure(
                f"training.memory: the smooth readout of {images:,} images and {features:,} features takes "
                f"{COPIES * 4 * side**2 / 1e6:,.1f} MB, and {memory / 1e6:,.1f} MB are allowed; raise "
                "training.memory, or name the other readouts alone in [search.space]"
            )
        exact = COPIES * 8 * side**2 <= memory
        return cls(
            torch.float64 if exact and images <= EXACT_IMAGES else torch.float32,
            torch.float64 if exact else torch.float32,
            memory,
        )


@dataclass(frozen=True)
class Spectrum:
    r"""Eigenvectors of the images' inner products, and how other images are predicted from them.

    With centred features :math:`X = U \sqrt{e} V^T`, ridge of penalty :math:`\lambda` fits centred responses by
    :math:`U \frac{e}{e + \lambda} U^T y`, and predicts others by :math:`G \frac{1}{e + \lambda} U^T y`.

    Attributes
    ----------
    values
        ``(r,)`` :math:`e`, positive.
    vectors
        ``(n, r)`` :math:`U`.
    others
        ``(m, r)`` :math:`G`.
    """

    values: Tensor
    vectors: Tensor
    others: Tensor


class Gram:
    """Inner products of some images' features under a prior, centred.

    Parameters
    ----------
    features
        Features of all images.
    rows
        Images that are fitted.
    others
        Images that are predicted.
    prior
        The prior on the weights.
    """

    def __init__(
        self,
        features: Maps,
        rows: NDArray[np.int64],
        others: NDArray[np.int64],
        prior: SpatialPrior,
        plan: Plan,
        device: str,
    ) -> None:
        size = features.shape[1] * prior.size
        self._n = n = len(rows)
        both = np.concatenate([rows, others])
        self.primal = size < n
        columns = size if self.primal else n
        self._table = torch.zeros(len(both), columns, dtype=plan.matrix, device=device)
        begin = 0
        for piece in _by_channels(features, both, prior, plan, device):
            piece -= piece[:n].mean(0)
            if self.primal:
                end = begin + piece.shape[1]
                self._table[:, begin:end] = piece
                begin = end
            else:
                _add_products(self._table, piece, n)
        self.scale = float(
            self._table[:n].square().sum() / n if self.primal else self._table[:n].trace() / n
        )
        """Mean squared length of an image's centred features."""

    def spectrum(self, some: NDArray[np.int64] | None = None) -> Spectrum:
        """Decompose; of ``some`` of the fitted images alone, centred anew, where they are given by position."""
        table, n = self._table, self._n
        if some is not None:
            index = torch.from_numpy(np.concatenate([some, np.arange(n, len(table))]))
            table, n = table[index.to(table.device)], len(some)
            if self.primal:
                table = table - table[:n].mean(0)
            else:
                table = table[:, index[:n].to(table.device)]
                table = table - table.mean(1, keepdim=True)
                table = table - table[:n].mean(0)
        if self.primal:
            values, right = _eigh(table[:n].T @ table[:n], n)
            root = values.sqrt()
            return Spectrum(values, table[:n] @ (right / root), table[n:] @ (right * root))
        values, vectors = _eigh(table[:n], n)
        return Spectrum(values, vectors, table[n:] @ vectors)


def _eigh(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues that are not rounding, and their vectors."""
    values, vectors = torch.linalg.eigh(matrix)
    least = n * torch.finfo(matrix.dtype).eps * values[-1].clamp(min=0)
    begin = int((values <= least).sum())
    return values[begin:], vectors[:, begin:]


def _add_products(table: Tensor, piece: Tensor, n: int) -> None:
    """Add inner products of a piece of all images with its first ``n``, of a symmetric part one half only."""
    step = max(_ROWS, -(-n // 8))
    for begin in range(0, n, step):
        rows = slice(begin, min(begin + step, n))
        block = piece[rows] @ piece[: rows.stop].T
        table[rows, : rows.stop] += block
        table[:begin, rows] += block[:, :begin].T
    if len(piece) > n:
        table[n:] += piece[n:] @ piece[:n].T


def piece_bytes(plan: Plan) -> int:
    """Memory of the features that are held at once."""
    return min(_PIECE, plan.memory // 8)


def units_at_once(plan: Plan, features: int) -> int:
    """Units whose weights are made together: each four times while it is blurred."""
    return max(1, plan.memory // (32 * features))


def _by_channels(
    features: Maps, rows: NDArray[np.int64], prior: SpatialPrior, plan: Plan, device: str
) -> Iterator[Tensor]:
    """Projected features of all rows, ``(len(rows), c * size)``, some channels at a time."""
    channels = features.shape[1]
    item = torch.finfo(plan.products).bits // 8
    step = max(1, piece_bytes(plan) // (item * prior.size * max(1, len(rows))))
    for begin in range(0, channels, step):
        some = slice(begin, min(begin + step, channels))
        piece = torch.empty(
            len(rows), (some.stop - begin) * prior.size, dtype=plan.products, device=device
        )
        for start in range(0, len(rows), _ROWS):
            maps = _read(features, (rows[start : start + _ROWS], some), plan.products, device)
            piece[start : start + _ROWS] = prior.project(maps)
        yield piece


def transposed_product(
    features: Maps, rows: NDArray[np.int64], coefficients: Tensor, plan: Plan, device: str
) -> Tensor:
    """``A^T X``: coefficients ``(len(rows), k)`` times features ``(len(rows), F)`` of some images, as ``(k, F)``."""
    size = int(np.prod(features.shape[1:]))
    dtype = coefficients.dtype
    out = torch.zeros(coefficients.shape[1], size, dtype=dtype, device=device)
    step = max(1, min(_ROWS, piece_bytes(plan) // (2 * out.itemsize * size)))
    for start in range(0, len(rows), step):
        maps = _read(features, rows[start : start + step], dtype, device)
        out.addmm_(coefficients[start : start + step].T, maps.flatten(1))
    return out


def _read(features: Maps, index: Any, dtype: torch.dtype, device: str) -> Tensor:
    piece = torch.from_numpy(np.asarray(features[index])).to(device).to(dtype)
    # A sum is finite where all are, unless it overflows: a tenth of the time of looking at each.
    if not (bool(piece.sum().isfinite()) or bool(piece.isfinite().all())):
        raise ValueError("features contain values that are not finite")
    return piece
