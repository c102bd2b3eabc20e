"""Smooth ridge: a linear readout under a prior of smooth weights, fitted exactly for a whole grid of settings.

Minimises ``sum_t (y_t - w.x_t - b)^2 + lambda w' M^-1 w`` with the covariance M of :class:`SpatialPrior`. One
decomposition a width gives every penalty, every unit of every region, and the prediction of every image by the fit that
did not see it; by these each unit's width and penalty are chosen. Width 0 is ordinary ridge regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tuner.closed_form.gram import (
    Gram,
    Maps,
    Plan,
    Spectrum,
    transposed_product,
    units_at_once,
)
from tuner.closed_form.leave_out import LeaveOut
from tuner.closed_form.prior import SpatialPrior
from tuner.exact import exact
from tuner.fitting.losses import value

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

WIDTHS: tuple[float, ...] = (0.0, 0.7, 1.5, 3.0)
PENALTIES: tuple[float, ...] = tuple(float(10.0**power) for power in np.arange(-4.0, 4.5, 0.5))

_COMPLETED = 8
"""A unit that misses less than one in so many responses shares the decomposition of all images."""


@dataclass(frozen=True)
class Setting:
    """A point of the grid.

    Attributes
    ----------
    width
        Of the prior, cells.
    penalty
        In units of the mean squared length of an image's centred features under the prior.
    """

    width: float
    penalty: float


@dataclass(frozen=True)
class SmoothFit:
    """The grid, and the best of it for every unit.

    Attributes
    ----------
    settings
        Points of the grid, widths outermost.
    left_out_loss
        ``(n_settings, n_units)`` mean loss of each image predicted by the fit to the images outside its group.
    other_loss
        ``(n_settings, n_units)`` mean loss on the other images; NaN where there is no response.
    chosen
        ``(n_units,)`` index of the setting with the least ``left_out_loss``.
    left_out
        ``(n_rows, n_units)`` float32 predictions of the fitted images, each by the fit that did not see its group, under
        each unit's chosen setting; NaN where there is no response.
    others
        ``(n_others, n_units)`` float32 predictions of the other images under each unit's chosen setting.
    parameters
        ``weight`` ``(n_units, C, h, w)`` and ``bias`` ``(n_units,)`` under each unit's chosen setting, as the full readout
        has them: responses are ``weight . x / sqrt(F) + bias``. Empty where they were not asked for.
    """

    settings: tuple[Setting, ...]
    left_out_loss: Floats
    other_loss: Floats
    chosen: Rows
    left_out: NDArray[np.float32]
    others: NDArray[np.float32]
    parameters: dict[str, Tensor]


@dataclass(frozen=True)
class Pattern:
    """Units that miss the same responses.

    Attributes
    ----------
    units
        Their indices.
    missing
        Positions, among the images that are decomposed for them, of those without a response.
    own
        Positions of the images that are decomposed for them, where these are not all: those of their session.
    """

    units: Rows
    missing: Rows
    own: Rows | None


@exact()
def fit_smooth(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    *,
    others: Rows | None = None,
    groups: NDArray[np.int64] | None = None,
    widths: Sequence[float] = WIDTHS,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "mse",
    weights: bool = True,
    memory: int = 4 << 30,
    device: str = "cpu",
    tell: Callable[[int, int], None] | None = None,
) -> SmoothFit:
    """Fit every unit under every setting, and choose each unit's by leave-one-out.

    Parameters
    ----------
    features
        ``(n, C, h, w)`` or ``(n, F)`` of all images; may be a memory map, or computed when asked for.
    targets
        ``(n, n_units)`` scaled responses; NaN = missing.
    rows
        Images that are fitted.
    others
        Images that are predicted besides.
    groups
        ``(n,)`` images of one group are left out together; None: one at a time.
    widths, penalties
        The grid; see `Setting`.
    loss
        What settings are compared by. Under ``poisson`` the fit is the least-squares fit to the response over its mean,
        less 1: the output to which ELU + 1 is applied.
    weights
        Whether weights are wanted: another pass over the features.
    memory
        Bytes it may take. Up to 4,096 images everything is float64; beyond, inner products are float32, and where four
        square matrices of float64 do not fit, the decomposition is too.
    device
        Where the algebra runs.
    tell
        Called with (done, total) after each width, and when the weights are there.

    Raises
    ------
    ValueError
        If shapes do not match, a unit has fewer than two responses among the fitted images, the grid is empty or not
        positive, or features are not finite.
    EnvironmentFailure
        If ``memory`` does not hold the decomposition.

    Examples
    --------
    A unit that reads one smooth patch is better fitted under a wide prior than by ordinary ridge:

    >>> import numpy as np
    >>> from tuner.closed_form.smooth import fit_smooth
    >>> x = np.random.default_rng(0).normal(size=(80, 2, 9, 9))
    >>> place = np.exp(-((np.arange(9) - 4) ** 2) / 8)
    >>> y = np.einsum("ncij,i,j->n", x, place, place)[:, None]
    >>> fit = fit_smooth(x, y / y.std(), np.arange(80))
    >>> fit.settings[fit.chosen[0]].width
    1.5
    >>> bool(fit.left_out_loss.min() < 0.1 < fit.left_out_loss[:17].min())
    True
    """
    steps = len(widths) + weights
    maps, patterns, (choice,) = _compared(
        features,
        targets,
        rows,
        [groups],
        others=others,
        widths=widths,
        penalties=penalties,
        loss=loss,
        memory=memory,
        device=device,
        tell=None if tell is None else lambda done, _: tell(done, steps),
    )
    parameters = choice.weights(maps, patterns) if weights else {}
    if tell is not None:
        tell(steps, steps)
    return choice.fit(parameters)


@exact()
def fits_smooth(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    groupings: Sequence[NDArray[np.int64] | None],
    *,
    others: Rows | None = None,
    widths: Sequence[float] = WIDTHS,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "mse",
    memory: int = 4 << 30,
    device: str = "cpu",
    tell: Callable[[int, int], None] | None = None,
) -> list[SmoothFit]:
    """Fits without weights for several ways to leave images out together, on the same decompositions; each is as alone.

    Parameters
    ----------
    groupings
        Each the groups that :func:`fit_smooth` takes, whose other parameters are the same.
    """
    _, _, choices = _compared(
        features,
        targets,
        rows,
        groupings,
        others=others,
        widths=widths,
        penalties=penalties,
        loss=loss,
        memory=memory,
        device=device,
        tell=tell,
    )
    return [choice.fit({}) for choice in choices]


def _compared(
    features: Maps,
    targets: ArrayLike,
    rows: Rows,
    groupings: Sequence[NDArray[np.int64] | None],
    *,
    others: Rows | None,
    widths: Sequence[float],
    penalties: Sequence[float],
    loss: str,
    memory: int,
    device: str,
    tell: Callable[[int, int], None] | None,
) -> tuple[Maps, list[Pattern], list[_Choice]]:
    """Features as maps, units by what they miss, and for each grouping the settings compared."""
    maps = features[:, :, None, None] if len(features.shape) == 2 else features
    y = np.asarray(targets, dtype=np.float64)
    _check(maps, y, rows, widths, penalties)
    plan = Plan.of(len(rows), int(np.prod(maps.shape[1:])), memory)
    ahead = np.zeros(0, dtype=np.int64) if others is None else others
    settings = [Setting(float(w), float(p)) for w in widths for p in penalties]
    choices = [_Choice(y, rows, ahead, settings, loss, plan, device) for _ in groupings]
    patterns = by_missing(np.isnan(y[rows]))
    apart = [together(groups, rows) for groups in groupings]
    for number, width in enumerate(widths):
        prior = SpatialPrior(width, *maps.shape[2:], dtype=plan.products, device=device)
        gram = Gram(maps, rows, ahead, prior, plan, device)
        spectrum, of = None, None
        for pattern in patterns:
            if spectrum is None or pattern.own is not of:
                spectrum, of = gram.spectrum(pattern.own), pattern.own
            for choice, parts in zip(choices, apart, strict=True):
                choice.compare(
                    pattern,
                    spectrum,
                    parts,
                    number * len(penalties),
                    [p * (gram.scale or 1.0) for p in penalties],
                )
        del gram, spectrum
        if tell is not None:
            tell(number + 1, len(widths))
    return maps, patterns, choices


class _Choice:
    """The grid's losses, and each unit's best fit so far."""

    def __init__(
        self,
        y: Floats,
        rows: Rows,
        others: Rows,
        settings: Sequence[Setting],
        loss: str,
        plan: Plan,
        device: str,
    ) -> None:
        self.rows, self.others = rows, others
        self.plan = plan
        self._measured, self._ahead = y[rows], y[others]
        # Under ELU + 1 an output of 0 is the mean response, which is 1.
        self._offset = 1.0 if loss == "poisson" else 0.0
        self._settings = tuple(settings)
        self._loss, self._device = loss, device
        units = y.shape[1]
        self._losses, self._other_losses = (
            np.full((len(settings), units), np.nan) for _ in range(2)
        )
        self._best = np.full(units, np.inf)
        self._chosen = np.zeros(units, dtype=np.int64)
        self._left_out = np.full((len(rows), units), np.nan, dtype=np.float32)
        self._beyond = np.zeros((len(others), units), dtype=np.float32)
        self._mean = np.zeros(units)
        # By image: the weights are the features' combination by these.
        self._coefficients = torch.zeros(len(rows), units, dtype=plan.matrix)

    def compare(
        self,
        pattern: Pattern,
        spectrum: Spectrum,
        apart: Sequence[Rows],
        first: int,
        penalties: Sequence[float],
    ) -> None:
        """Fit units of one pattern under all penalties of a width; ``first`` is the number of their first setting."""
        units = pattern.units
        kept = np.arange(len(self.rows)) if pattern.own is None else pattern.own
        measured = self._measured[np.ix_(kept, units)]
        fits = LeaveOut(
            spectrum,
            self._tensor(measured - self._offset),
            torch.from_numpy(pattern.missing).to(self._device),
            [torch.from_numpy(g).to(self._device) for g in among(apart, kept)],
        )
        improved = np.zeros(len(units), dtype=bool)
        coefficients = torch.zeros(
            len(spectrum.values), len(units), dtype=self.plan.matrix, device=self._device
        )
        for number, penalty in enumerate(penalties, start=first):
            fit = fits.at(penalty)
            left = fit.predictions.cpu().numpy()
            beyond = (spectrum.others @ fit.coefficients + fit.mean).cpu().numpy()
            self._losses[number, units] = mean_loss(self._loss, left, measured)
            self._other_losses[number, units] = mean_loss(self._loss, beyond, self._ahead[:, units])
            better = self._losses[number, units] < self._best[units]
            improved |= better
            mine = units[better]
            self._best[mine], self._chosen[mine] = self._losses[number, mine], number
            self._left_out[np.ix_(kept, mine)] = np.where(
                np.isnan(measured[:, better]), np.nan, left[:, better]
            )
            self._beyond[:, mine] = beyond[:, better]
            self._mean[mine] = fit.mean.cpu().numpy()[better]
            index = torch.from_numpy(better).to(self._device)
            coefficients[:, index] = fit.coefficients[:, index]
        if improved.any():
            whole = spectrum.vectors @ coefficients[:, torch.from_numpy(improved).to(self._device)]
            mine = torch.from_numpy(units[improved])
            self._coefficients[torch.from_numpy(kept)[:, None], mine] = whole.cpu()

    def _tensor(self, array: Floats) -> Tensor:
        return torch.from_numpy(array).to(self._device, self.plan.matrix)

    def weights(self, features: Maps, patterns: Sequence[Pattern]) -> dict[str, Tensor]:
        """Weights and biases of every unit under its chosen setting: one pass over the features for as many as fit."""
        shape = features.shape[1:]
        size = int(np.prod(shape))
        weight = torch.zeros(len(self._best), *shape)
        bias = torch.zeros(len(self._best))
        step = units_at_once(self.plan, size)
        widths = np.array([self._settings[chosen].width for chosen in self._chosen])
        units = np.concatenate([pattern.units for pattern in patterns])
        kept = [pattern.own for pattern in patterns for _ in pattern.units]
        for start in range(0, len(units), step):
            mine = units[start : start + step]
            products, levels = self._products(features, mine, kept[start : start + step])
            for width in np.unique(widths[mine]):
                prior = SpatialPrior(width, *shape[1:], dtype=products.dtype, device=self._device)
                here = torch.from_numpy(np.flatnonzero(widths[mine] == width)).to(self._device)
                found = prior.covary(products[here].view(-1, *shape)).flatten(1)
                level = torch.stack([w @ levels[i] for w, i in zip(found, here, strict=True)])
                some = mine[here.cpu().numpy()]
                weight[some] = (found * math.sqrt(size)).cpu().float().view(-1, *shape)
                bias[some] = (torch.from_numpy(self._mean[some]) - level.cpu()).float()
        return {"weight": weight, "bias": bias}

    def _products(
        self, features: Maps, units: Rows, kept: Sequence[Rows | None]
    ) -> tuple[Tensor, list[Tensor]]:
        """The features' combination for each unit, ``(len(units), F)``, and their mean over the images it has, ``(F,)``."""
        different = list({id(own): own for own in kept}.values())
        means = torch.zeros(len(self.rows), len(different), dtype=self.plan.matrix)
        for column, own in enumerate(different):
            means[slice(None) if own is None else torch.from_numpy(own), column] = 1 / (
                len(self.rows) if own is None else len(own)
            )
        columns = torch.cat([self._coefficients[:, units], means], dim=1).to(self._device)
        products = transposed_product(features, self.rows, columns, self.plan, self._device)
        place = {id(own): len(units) + column for column, own in enumerate(different)}
        return products[: len(units)], [products[place[id(own)]] for own in kept]

    def fit(self, parameters: dict[str, Tensor]) -> SmoothFit:
        """What came out."""
        return SmoothFit(
            self._settings,
            self._losses,
            self._other_losses,
            self._chosen,
            self._left_out,
            self._beyond,
            parameters,
        )


def _check(
    features: Maps, y: Floats, rows: Rows, widths: Sequence[float], penalties: Sequence[float]
) -> None:
    if y.ndim != 2 or features.shape[0] != len(y):
        raise ValueError(f"features {features.shape} and responses {y.shape} do not match")
    if not widths or min(widths) < 0:
        raise ValueError("widths must be at least 0, and at least one")
    if not penalties or min(penalties) <= 0:
        raise ValueError("penalties must be positive, and at least one")
    few = np.flatnonzero((~np.isnan(y[rows])).sum(axis=0) < 2)
    if few.size:
        raise ValueError(f"unit {few[0]} has fewer than two responses among the fitted images")


def by_missing(missing: NDArray[np.bool_]) -> list[Pattern]:
    """Units by the responses that they miss, ``(n_rows, n_units)``; those that share a decomposition one after the other.

    A unit that misses less than one response in eight shares that of all images. The others share those of the images
    that any unit like them has a response to, which are those of a session where recordings were joined.
    """
    found: dict[bytes, list[int]] = {}
    for unit in range(missing.shape[1]):
        found.setdefault(np.packbits(missing[:, unit]).tobytes(), []).append(unit)
    whole: list[tuple[Rows, NDArray[np.bool_]]] = []
    apart: list[tuple[Rows, NDArray[np.bool_]]] = []
    for units in found.values():
        gone = missing[:, units[0]]
        few = _COMPLETED * gone.sum() < len(missing)
        (whole if few else apart).append((np.array(units), ~gone))
    out = [Pattern(units, np.flatnonzero(~there), None) for units, there in whole]
    for members in _alike(apart):
        union = np.any([there for _, there in members], axis=0)
        own = np.flatnonzero(union)
        out += [Pattern(units, np.flatnonzero(~there[union]), own) for units, there in members]
    return out


def _alike(
    patterns: Sequence[tuple[Rows, NDArray[np.bool_]]],
) -> list[list[tuple[Rows, NDArray[np.bool_]]]]:
    """Patterns in sets of which each member has seven in eight of the responses that any of them has."""
    sets: list[list[tuple[Rows, NDArray[np.bool_]]]] = []
    unions: list[NDArray[np.bool_]] = []
    for pattern in sorted(patterns, key=lambda one: (-int(one[1].sum()), int(one[0][0]))):
        there = pattern[1]
        for number, union in enumerate(unions):
            both = union | there
            fewest = min(int(one.sum()) for _, one in [*sets[number], pattern])
            if _COMPLETED * (int(both.sum()) - fewest) < both.sum():
                sets[number].append(pattern)
                unions[number] = both
                break
        else:
            sets.append([pattern])
            unions.append(there)
    return sets


def together(groups: NDArray[np.int64] | None, rows: Rows) -> list[Rows]:
    """Positions of images of one group, for groups of more than one."""
    if groups is None:
        return []
    mine = np.asarray(groups)[rows]
    order = np.argsort(mine, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(mine[order])) + 1)
    return [part for part in parts if len(part) > 1]


def among(groups: Sequence[Rows], kept: Rows) -> list[Rows]:
    """Groups as positions in ``kept``, which is sorted."""
    return [np.searchsorted(kept, np.intersect1d(group, kept)) for group in groups]


def mean_loss(loss: str, predicted: Floats, measured: Floats) -> Floats:
    """``(n_units,)``; NaN for a unit without a response."""
    each = value(loss, torch.from_numpy(predicted).double(), torch.from_numpy(measured))
    there = ~torch.isnan(each)
    total = each.nan_to_num().sum(0)
    mean: Floats = (total / there.sum(0)).numpy()
    return mean
