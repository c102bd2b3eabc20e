r"""The factorized readout in closed form: a Gaussian mask and ridge regression on what lies under it.

The feature-weighted receptive field of St-Yves & Naselaris 2018 (NeuroImage 180, 188): of a grid of Gaussians over the
layer's cells, each unit is given the one under which ridge regression on the pooled features, one a channel, predicts it
best. The grid is compared by generalised cross-validation (Golub, Heath & Wahba 1979, Technometrics 21, 215), for which a
mask takes one decomposition of channels by channels, whatever the number of images, units and penalties; under the mask
that was chosen the penalty follows from exact leave-one-out, as everywhere else here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tuner.closed_form.gram import EXACT_IMAGES, Maps
from tuner.closed_form.smooth import PENALTIES, Pattern, by_missing, fit_smooth
from tuner.exact import exact

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SHARES: tuple[float, ...] = (0.04, 0.08, 0.14, 0.22, 0.35, 0.6)
"""Standard deviations of the Gaussians, as shares of the grid's longer side."""

_NARROWEST = 0.5
"""Cells. Below it a Gaussian is one cell."""

_CHUNK = 256
_PIECE = 1 << 27
_NEGLIGIBLE = 1e-7
"""Eigenvalues below this share of the largest are rounding of half-precision features."""


@dataclass(frozen=True)
class FwrfFit:
    """Each unit's mask and fit.

    Attributes
    ----------
    masks
        ``(n_units, h, w)`` float32, of unit norm.
    left_out_loss
        ``(n_units,)`` mean loss of each image predicted by the fit to the images outside its group.
    left_out
        ``(n_rows, n_units)`` these predictions; NaN where there is no response.
    others
        ``(n_others, n_units)`` predictions of the other images.
    parameters
        ``mask``, ``features`` and ``bias`` as the factorized readout has them. Empty where they were not asked for.
    """

    masks: NDArray[np.float32]
    left_out_loss: Floats
    left_out: NDArray[np.float32]
    others: NDArray[np.float32]
    parameters: dict[str, Tensor]


@dataclass(frozen=True)
class _Lattice:
    """Gaussians of one width, centred a width apart: rows ``(a, h)`` and columns ``(b, w)`` of unit norm."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @property
    def masks(self) -> NDArray[np.float32]:
        """``(a * b, h, w)``, of unit norm."""
        product = self.rows[:, None, :, None] * self.columns[None, :, None, :]
        return product.reshape(-1, *product.shape[2:]).astype(np.float32)


def lattices(height: int, width: int, shares: Sequence[float] = SHARES) -> list[_Lattice]:
    """Every Gaussian that is tried on a grid of cells, by width."""
    sizes = dict.fromkeys(max(_NARROWEST, share * max(height, width)) for share in shares)
    return [_Lattice(_profiles(height, size), _profiles(width, size)) for size in sizes]


def _profiles(cells: int, size: float) -> NDArray[np.float64]:
    """Gaussians along a line of cells, at most one standard deviation and at least one cell apart."""
    count = max(1, min(cells, int(np.ceil(cells / size))))
    centres = (np.arange(count) + 0.5) / count * cells - 0.5
    found = np.exp(-((np.arange(cells) - centres[:, None]) ** 2) / (2 * size**2))
    unit: NDArray[np.float64] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


@exact()
def best_masks(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    *,
    penalties: Sequence[float] = PENALTIES,
    shares: Sequence[float] = SHARES,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """The Gaussian under which each unit is predicted best.

    Parameters
    ----------
    features
        ``(n, C, h, w)`` of all images.
    targets
        ``(n, n_units)`` scaled responses; NaN = missing. A unit that misses one in eight or more is fitted to those that
        it has; for the others the few missing count as the mean.
    rows
        Images that are fitted.
    penalties
        In units of the mean squared length of an image's centred pooled features.
    shares
        Standard deviations of the Gaussians, as shares of the grid's longer side.
    device
        Where the algebra runs.

    Returns
    -------
    numpy.ndarray
        ``(n_units, h, w)`` float32, of unit norm.
    """
    y = np.asarray(targets, dtype=np.float64)[rows]
    choices = [
        _Choice(y, pattern, penalties, len(rows), device) for pattern in by_missing(np.isnan(y))
    ]
    _, channels, height, width = features.shape
    masks = np.zeros((y.shape[1], height, width), dtype=np.float32)
    step = max(1, _PIECE // (len(rows) * channels))
    for lattice in lattices(height, width, shares):
        every = lattice.masks
        for begin in range(0, len(every), step):
            some = every[begin : begin + step]
            pooled = _pooled(features, rows, lattice, slice(begin, begin + len(some)), device)
            for choice in choices:
                units, best = choice.compare(pooled)
                masks[units] = some[best]
            del pooled
    return masks


def _pooled(features: Maps, rows: Rows, lattice: _Lattice, some: slice, device: str) -> Tensor:
    """Features under some masks of a lattice, ``(masks, len(rows), C)``."""
    up, along = (
        torch.from_numpy(part).to(device, torch.float32) for part in (lattice.rows, lattice.columns)
    )
    across = len(along)
    first, last = some.start // across, -(-some.stop // across)
    out = torch.empty(some.stop - some.start, len(rows), features.shape[1], device=device)
    inside = slice(some.start - first * across, some.stop - first * across)
    for start in range(0, len(rows), _CHUNK):
        maps = np.asarray(features[rows[start : start + _CHUNK]], dtype=np.float32)
        narrow = torch.from_numpy(maps).to(device) @ along.T
        found = torch.einsum("nchb,ah->abnc", narrow, up[first:last])
        out[:, start : start + _CHUNK] = found.flatten(0, 1)[inside]
    return out


class _Choice:
    """Units that miss the same responses, and the least score of each so far."""

    def __init__(
        self, y: Floats, pattern: Pattern, penalties: Sequence[float], images: int, device: str
    ) -> None:
        self._units = pattern.units
        own = pattern.own
        mine = y[:, self._units] if own is None else y[np.ix_(own, self._units)]
        self._own = None if own is None else torch.from_numpy(own).to(device)
        centred = np.nan_to_num(mine - np.nanmean(mine, axis=0))
        self._dtype = torch.float64 if images <= EXACT_IMAGES else torch.float32
        self._y = torch.from_numpy(centred).to(device, self._dtype)
        self._power = self._y.square().sum(0)
        self._penalties = torch.tensor(penalties, dtype=self._dtype, device=device)
        self._best = np.full(len(self._units), np.inf)

    def compare(self, pooled: Tensor) -> tuple[Rows, Rows]:
        """Units that are predicted better than before, and by which of the masks ``(masks, n, C)``."""
        z = pooled if self._own is None else pooled[:, self._own]
        n = z.shape[1]
        z = (z - z.mean(1, keepdim=True)).to(self._dtype)
        values, vectors = torch.linalg.eigh(z.transpose(1, 2) @ z)
        values = values.clamp_min(0)
        turned = vectors.transpose(1, 2) @ (z.transpose(1, 2) @ self._y)
        kept = values > _NEGLIGIBLE * values[:, -1:]
        inverse = torch.where(kept, values, torch.ones_like(values)).reciprocal() * kept
        explained = turned.square() * inverse[:, :, None]
        level = self._penalties * values.sum(1, keepdim=True).clamp_min(1e-30) / n
        shrink = values[:, None] / (values[:, None] + level[:, :, None])
        left = self._power - (1 - (1 - shrink).square()) @ explained
        freedom = 1 - (1 + shrink.sum(2)) / n
        score = (left / freedom.square()[:, :, None]).amin(1).cpu().numpy()
        least = score.argmin(0)
        value = score[least, np.arange(len(least))]
        better = value < self._best
        self._best[better] = value[better]
        return self._units[better], least[better]


@exact()
def fit_fwrf(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    *,
    others: Rows | None = None,
    groups: Rows | None = None,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "mse",
    weights: bool = True,
    device: str = "cpu",
) -> FwrfFit:
    """Give every unit its mask, and fit the features under it by ridge regression.

    Parameters
    ----------
    features, targets, rows, others, groups, penalties, loss, weights, device
        As in :func:`tuner.closed_form.smooth.fit_smooth`.

    Raises
    ------
    ValueError
        As there.

    Examples
    --------
    A unit that reads one channel in one place:

    >>> import numpy as np
    >>> from tuner.closed_form.fwrf import fit_fwrf
    >>> x = np.random.default_rng(0).normal(size=(80, 2, 9, 9))
    >>> place = np.exp(-((np.arange(9) - 2) ** 2) / 2)
    >>> y = np.einsum("nij,i,j->n", x[:, 0], place, place)[:, None]
    >>> fit = fit_fwrf(x, y / y.std(), np.arange(80))
    >>> [int(at) for at in np.unravel_index(fit.masks[0].argmax(), (9, 9))]
    [2, 2]
    >>> bool(fit.left_out_loss[0] < 0.2)
    True
    """
    y = np.asarray(targets, dtype=np.float64)
    beyond = np.zeros(0, dtype=np.int64) if others is None else others
    masks = best_masks(features, y, rows, penalties=penalties, device=device)
    units, (_, channels) = y.shape[1], features.shape[:2]
    left_out = np.full((len(rows), units), np.nan, dtype=np.float32)
    predicted = np.zeros((len(beyond), units), dtype=np.float32)
    left_out_loss = np.zeros(units)
    readout = torch.zeros(units, channels)
    bias = torch.zeros(units)
    both = np.concatenate([rows, beyond])
    own = None if groups is None else np.asarray(groups)[both]
    distinct, which = np.unique(masks.reshape(units, -1), axis=0, return_inverse=True)
    for number, mask in enumerate(distinct):
        mine = np.flatnonzero(which.ravel() == number)
        fit = fit_smooth(
            _under(features, both, mask),
            y[np.ix_(both, mine)],
            np.arange(len(rows)),
            others=np.arange(len(rows), len(both)),
            groups=own,
            widths=[0.0],
            penalties=penalties,
            loss=loss,
            weights=weights,
            device=device,
        )
        left_out_loss[mine] = fit.left_out_loss[fit.chosen, np.arange(len(mine))]
        left_out[:, mine], predicted[:, mine] = fit.left_out, fit.others
        if weights:
            at = torch.from_numpy(mine)
            readout[at] = fit.parameters["weight"].flatten(1)
            bias[at] = fit.parameters["bias"]
    parameters = {"mask": torch.from_numpy(masks), "features": readout, "bias": bias}
    return FwrfFit(masks, left_out_loss, left_out, predicted, parameters if weights else {})


def _under(features: Maps, rows: Rows, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features ``(len(rows), C)`` under a mask ``(h * w,)``."""
    out = np.empty((len(rows), features.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        maps = np.asarray(features[rows[start : start + _CHUNK]], dtype=np.float32)
        out[start : start + _CHUNK] = maps.reshape(*maps.shape[:2], -1) @ mask
    return out
