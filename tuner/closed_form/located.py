r"""Smooth ridge that knows where a unit looks: weights are expected under a Gaussian envelope, and smooth there.

The envelope is that of the unit's Gaussian mask (:mod:`tuner.closed_form.fwrf`), wider by a factor; the covariance of the
weights of a channel is :math:`D B B^T D`, with :math:`B` the blur of smooth ridge and :math:`D` the envelope (locality and
smoothness as in the automatic locality determination of Park & Pillow 2011, PLoS Comput Biol 7, e1002219, the field found by
a search instead of by evidence). Units that share an envelope share its decompositions. With folds, the setting is chosen by
the loss of each image under the fit that did not see its fold, and there are weights for each fold's fit: where the columns
of the full readout start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tuner.closed_form.fwrf import best_masks
from tuner.closed_form.gram import Gram, Maps, Plan, Spectrum, transposed_product
from tuner.closed_form.leave_out import LeaveOut
from tuner.closed_form.prior import SpatialPrior
from tuner.closed_form.smooth import Pattern, among, by_missing, mean_loss, together
from tuner.exact import exact

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

VERSION = 1
"""Of what comes out: raised when the same input gives something else."""

SPREAD = 2.0
"""How much wider the envelope is than the mask."""

SHARES: tuple[float, ...] = (0.14, 0.22, 0.35, 0.6)
"""Standard deviations of the masks that are tried, as shares of the grid's longer side: an envelope need not be finer."""

WIDTHS: tuple[float, ...] = (0.7, 1.5, 3.0)
PENALTIES: tuple[float, ...] = tuple(float(10.0**power) for power in np.arange(-1.0, 2.0, 0.5))

NEGLIGIBLE = 1e-3
"""Under an envelope few directions of a smooth prior matter; the others would only cost time."""

_FEW = 24
"""Units that are turned into weights at the same time: bounds memory."""


@dataclass(frozen=True)
class LocatedFit:
    """Each unit's fits.

    Attributes
    ----------
    masks
        ``(n_units, h, w)`` float32, of unit norm: the Gaussian that each unit's envelope is made from.
    widths, penalties
        ``(n_units,)`` chosen settings, as in :class:`tuner.closed_form.smooth.Setting`.
    held_out
        ``(n_rows, n_units)`` float32 predictions of each image by the fit that did not see its fold (without folds: the
        image itself); NaN where there is no response.
    loss
        ``(n_units,)`` mean loss of these.
    weight, bias
        ``(n_fits, n_units, C, h, w)`` and ``(n_fits, n_units)`` float32, as the full readout has them: one fit a fold, to
        the images outside it; without folds one fit, to all.
    """

    masks: NDArray[np.float32]
    widths: Floats
    penalties: Floats
    held_out: NDArray[np.float32]
    loss: Floats
    weight: Tensor
    bias: Tensor


@exact()
def fit_located(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    *,
    folds: Sequence[Rows] = (),
    groups: NDArray[np.int64] | None = None,
    widths: Sequence[float] | None = None,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "mse",
    memory: int = 4 << 30,
    device: str = "cpu",
    tell: Callable[[int, int], None] | None = None,
) -> LocatedFit:
    """Fit every unit under its own envelope.

    Parameters
    ----------
    features
        ``(n, C, h, w)`` of all images; may be a memory map.
    targets
        ``(n, n_units)`` scaled responses; NaN = missing.
    rows
        Images that are fitted.
    folds
        Positions in `rows` of the images of each fold, which together are all of them; none: the setting is chosen by
        leaving out one group at a time.
    groups
        ``(n,)`` group of each image; None: every image is one.
    widths, penalties
        The grid, as for smooth ridge; widths not given: those of :data:`WIDTHS` up to a quarter of the layer's.
    loss
        What settings are compared by.
    memory
        Bytes it may take.
    device
        Where the algebra runs.
    tell
        Called with (done, total) after each distinct envelope.

    Raises
    ------
    EnvironmentFailure
        If ``memory`` does not hold the decomposition.

    Examples
    --------
    A unit that reads one place:

    >>> import numpy as np
    >>> from tuner.closed_form.located import fit_located
    >>> x = np.random.default_rng(0).normal(size=(80, 2, 9, 9))
    >>> place = np.exp(-((np.arange(9) - 2) ** 2) / 4)
    >>> y = np.einsum("ncij,i,j->n", x, place, place)[:, None]
    >>> fit = fit_located(x, y / y.std(), np.arange(80), folds=np.split(np.arange(80), 4))
    >>> fit.weight.shape
    torch.Size([4, 1, 2, 9, 9])
    >>> bool(fit.loss[0] < 0.1)
    True
    """
    (fit,) = fits_located(
        features,
        targets,
        rows,
        [folds],
        groups=groups,
        widths=widths,
        penalties=penalties,
        loss=loss,
        memory=memory,
        device=device,
        tell=tell,
    )
    return fit()


@exact()
def fits_located(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    foldings: Sequence[Sequence[Rows]],
    *,
    groups: NDArray[np.int64] | None = None,
    widths: Sequence[float] | None = None,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "mse",
    memory: int = 4 << 30,
    device: str = "cpu",
    tell: Callable[[int, int], None] | None = None,
) -> list[Callable[[], LocatedFit]]:
    """Fit every unit under its own envelope, for several ways to deal the same images into folds.

    Masks and decompositions do not depend on folds, and are made once for all of them; each fit is as alone.

    Parameters
    ----------
    foldings
        Each the folds that :func:`fit_located` takes, whose other parameters are the same.

    Returns
    -------
    list of callable
        One for each folding; called, it makes the weights and returns the fit, so that only one needs to be in memory.
    """
    y = np.asarray(targets, dtype=np.float64)[rows]
    masks = best_masks(features, targets, rows, shares=SHARES, device=device)
    if widths is None:
        most = max(min(WIDTHS), min(features.shape[2:]) / 4)
        widths = [width for width in WIDTHS if width <= most]
    plan = Plan.of(len(rows), int(np.prod(features.shape[1:])), memory)
    patterns = by_missing(np.isnan(y))
    choices = [
        _Choice(features, rows, y, patterns, masks, folds, groups, loss, plan, device)
        for folds in foldings
    ]
    distinct, which = np.unique(masks.reshape(len(masks), -1), axis=0, return_inverse=True)
    for number, mask in enumerate(distinct):
        units = np.flatnonzero(which.ravel() == number)
        sharing = [
            Pattern(mine, pattern.missing, pattern.own)
            for pattern in patterns
            if len(mine := np.intersect1d(pattern.units, units))
        ]
        for width in widths:
            prior = SpatialPrior(
                width,
                *features.shape[2:],
                envelope=envelope(mask.reshape(masks.shape[1:])),
                negligible=NEGLIGIBLE,
                dtype=plan.products,
                device=device,
            )
            gram = Gram(features, rows, np.zeros(0, dtype=np.int64), prior, plan, device)
            for pattern in sharing:
                spectrum = gram.spectrum(pattern.own)
                for choice in choices:
                    choice.compare(pattern, spectrum, prior, width, penalties, gram.scale or 1.0)
        if tell is not None:
            tell(number + 1, len(distinct))
    return [choice.fit for choice in choices]


def envelope(mask: NDArray[np.float32], spread: float = SPREAD) -> tuple[Floats, Floats]:
    """Rows and columns of a Gaussian mask ``(h, w)`` made wider by a factor, 1 at its peak."""
    power = 1 / spread**2
    up = mask.max(1).astype(np.float64)
    along = mask.max(0).astype(np.float64)
    return (up / up.max()) ** power, (along / along.max()) ** power


class _Choice:
    """Each unit's best setting so far, and what its fits are combined from."""

    def __init__(
        self,
        features: Maps,
        rows: Rows,
        y: Floats,
        patterns: Sequence[Pattern],
        masks: NDArray[np.float32],
        folds: Sequence[Rows],
        groups: NDArray[np.int64] | None,
        loss: str,
        plan: Plan,
        device: str,
    ) -> None:
        self._features, self._rows, self._y = features, rows, y
        self._folds, self._apart = folds, folds if folds else together(groups, rows)
        self._fits = max(1, len(folds))
        self._loss, self._plan, self._device = loss, plan, device
        self._offset = 1.0 if loss == "poisson" else 0.0
        self._patterns, self._masks = patterns, masks
        units = y.shape[1]
        self.loss = np.full(units, np.inf)
        self.widths, self.penalties = np.zeros(units), np.zeros(units)
        self.held_out = np.full(y.shape, np.nan, dtype=np.float32)
        self._priors: list[SpatialPrior | None] = [None] * units
        self._mean = np.zeros((self._fits, units))
        # By image: the weights are the features' combination by these.
        self._coefficients = torch.zeros(self._fits, len(rows), units, dtype=plan.matrix)

    def compare(
        self,
        pattern: Pattern,
        spectrum: Spectrum,
        prior: SpatialPrior,
        width: float,
        penalties: Sequence[float],
        scale: float,
    ) -> None:
        """Fit units that share an envelope, and miss the same responses, under every penalty of a width."""
        units = pattern.units
        kept = np.arange(len(self._rows)) if pattern.own is None else pattern.own
        measured = self._y[np.ix_(kept, units)]
        responses = self._tensor(measured - self._offset)
        folds, apart = among(self._folds, kept), among(self._apart, kept)
        gone = self._index(pattern.missing)
        fits = LeaveOut(spectrum, responses, gone, [self._index(some) for some in apart])
        improved = np.zeros(len(units), dtype=bool)
        for penalty in penalties:
            left = fits.at(penalty * scale).predictions.cpu().numpy()
            found = mean_loss(self._loss, left, measured)
            better = found < self.loss[units]
            improved |= better
            mine = units[better]
            self.loss[mine] = found[better]
            self.widths[mine], self.penalties[mine] = width, penalty
            self.held_out[np.ix_(kept, mine)] = np.where(
                np.isnan(measured[:, better]), np.nan, left[:, better]
            )
        for unit in units[improved]:
            self._priors[unit] = prior
        for penalty in np.unique(self.penalties[units[improved]]):
            some = np.flatnonzero(improved & (self.penalties[units] == penalty))
            for number in range(self._fits):
                without = pattern.missing
                if folds:
                    without = np.union1d(without, folds[number])
                # The fit to the others is the fit to responses completed by its own predictions.
                fit = LeaveOut(spectrum, responses[:, some], self._index(without), ()).at(
                    float(penalty) * scale
                )
                mine = units[some]
                self._mean[number, mine] = fit.mean.cpu().numpy()
                self._coefficients[
                    number, torch.from_numpy(kept)[:, None], torch.from_numpy(mine)
                ] = (spectrum.vectors @ fit.coefficients).cpu()

    def _tensor(self, array: Floats) -> Tensor:
        return torch.from_numpy(array).to(self._device, self._plan.matrix)

    def _index(self, positions: Rows) -> Tensor:
        return torch.from_numpy(positions).to(self._device)

    @exact()
    def fit(self) -> LocatedFit:
        """Each unit's best, with its weights."""
        return LocatedFit(
            *(self._masks, self.widths, self.penalties, self.held_out, self.loss),
            *self._weights(),
        )

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of every fit."""
        shape, units = self._features.shape[1:], len(self.loss)
        size = int(np.prod(shape))
        weight = torch.zeros(self._fits, units, *shape)
        bias = torch.zeros(self._fits, units)
        for pattern in self._patterns:
            kept = np.arange(len(self._rows)) if pattern.own is None else pattern.own
            level = torch.full((len(kept), 1), 1 / len(kept), dtype=self._plan.matrix)
            for start in range(0, len(pattern.units), _FEW):
                some = pattern.units[start : start + _FEW]
                columns = self._coefficients[:, kept][:, :, some].permute(1, 0, 2).flatten(1)
                products = transposed_product(
                    self._features,
                    self._rows[kept],
                    torch.cat([columns, level], dim=1).to(self._device),
                    self._plan,
                    self._device,
                )
                found = products[:-1].view(self._fits, len(some), *shape)
                for i, unit in enumerate(some):
                    prior = self._priors[unit]
                    assert prior is not None
                    mine = prior.covary(found[:, i].to(self._plan.products))
                    weight[:, unit] = (mine * math.sqrt(size)).cpu().float()
                    ahead = mine.flatten(1).to(products) @ products[-1]
                    mean = torch.from_numpy(self._mean[:, unit])
                    bias[:, unit] = (mean - ahead.cpu()).float()
        return weight, bias
