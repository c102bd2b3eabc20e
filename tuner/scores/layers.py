r"""How sure the choice of a layer is: layers compared on several cuts of the data, and what could have come out otherwise.

Three things are samples, and a hierarchical bootstrap draws all of them again [1]_: the cuts (each with the seed of its
fits), the images, in whole groups where there are groups, and the units. All layers are drawn alike. Layers are compared
with the chosen one all at once, so intervals hold for all of them together: the quantile is that of the largest of their
deviations, each over its standard deviation [2]_.

Draws of crossed things spread too widely: noise of one image in one unit is drawn anew with the images and with the
units. So they give the shape, and the width is that of the analysis of variance, in which each main effect counts once,
what two share is taken off and what all three share is put back. And a bootstrap of few things is too narrow, as a normal
interval is where Student's is due; how few they are follows from the mean squares [3]_.

References
----------
.. [1] Owen (2007), Annals of Applied Statistics 1:386, the pigeonhole bootstrap.
.. [2] Dunnett (1955), Journal of the American Statistical Association 50:1096.
.. [3] Satterthwaite (1946), Biometrics Bulletin 2:110.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tuner.scores.moments import Floats, nan_mean

_SAMPLES = 20_000
"""Samples behind a quantile of several differences together."""

BUNCHES = 500
"""Groups, or images, beyond this number are drawn in so many random bunches: the spread is the same, the work bounded."""


@dataclass(frozen=True)
class Judged:
    """What one cut says of a layer.

    Attributes
    ----------
    rows
        ``(n_images,)`` training images that the fit was not fitted to.
    losses
        ``(n_images, n_units)``; NaN = not judged, infinite = the fit diverged.
    """

    rows: NDArray[np.int64]
    losses: Floats


@dataclass(frozen=True)
class LayerDifference:
    """A layer against the chosen one.

    Attributes
    ----------
    difference
        Its loss minus the chosen one's; negative: it is better.
    low, high
        Limits that hold for all layers of the comparison together; NaN where there are none.
    best
        Share of draws in which the layer is the best of all.
    """

    difference: float
    low: float
    high: float
    best: float


def compare_layers(
    cuts: Mapping[str, Sequence[Judged]],
    chosen: str,
    *,
    groups: NDArray[np.int64] | None = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, LayerDifference]:
    """Compare layers with the chosen one.

    Parameters
    ----------
    cuts
        Of every layer the same cuts in the same order.
    chosen
        The layer that the others are compared with.
    groups
        ``(n_train,)`` codes of groups of images, drawn whole; None: each image is its own.
    draws
        Bootstrap samples.
    seed
        Of the samples.
    level
        How often all intervals together are to hold the truth.
    """
    code = _codes(cuts[chosen], groups, seed)
    parts = {layer: [_Sums.of(one, code) for one in of] for layer, of in cuts.items()}
    n_groups, n_units = parts[chosen][0].total.shape
    image, cut, unit = (
        _counts(np.random.default_rng([seed, stream]), draws, n)
        for stream, n in enumerate((n_groups, len(parts[chosen]), n_units))
    )
    values = {
        layer: _weighted(np.stack([one.per_unit(image) for one in mine]), cut.T[:, :, None] * unit)
        for layer, mine in parts.items()
    }
    table = np.stack([np.where(np.isnan(v), np.inf, v) for v in values.values()])
    best = np.bincount(table.argmin(0), minlength=len(table)) / draws
    rivals = [layer for layer in parts if layer != chosen]
    gaps = {layer: _linearised(parts[layer], parts[chosen]) for layer in rivals}
    estimate = {layer: float(gap.mean()) for layer, gap in gaps.items()}
    with np.errstate(invalid="ignore"):
        moved = {layer: values[layer] - values[chosen] for layer in rivals}
    counted = [
        layer
        for layer in rivals
        if np.isfinite(estimate[layer]) and not np.isinf(moved[layer]).any()
    ]
    widths = {layer: spread(gaps[layer]) for layer in counted}
    quantile = together(
        np.stack([moved[layer] for layer in counted]) if counted else np.zeros((0, draws)),
        float(np.median([freedom for _, freedom in widths.values()])) if counted else np.inf,
        level,
        seed,
    )
    out = {}
    for share, layer in zip(best, parts, strict=True):
        if layer == chosen:
            out[layer] = LayerDifference(0.0, 0.0, 0.0, float(share))
            continue
        middle = estimate[layer]
        half = quantile * np.sqrt(widths[layer][0]) if layer in widths else np.nan
        out[layer] = LayerDifference(middle, middle - half, middle + half, float(share))
    return out


def _codes(cuts: Sequence[Judged], groups: NDArray[np.int64] | None, seed: int) -> dict[int, int]:
    """Group, or bunch of groups, of every image that any of the cuts holds out."""
    rows = np.unique(np.concatenate([one.rows for one in cuts]))
    own = rows if groups is None else groups[rows]
    distinct, member = np.unique(own, return_inverse=True)
    place = np.arange(len(distinct))
    if len(distinct) > BUNCHES:
        place = np.random.default_rng([seed, len(distinct)]).permutation(len(distinct)) % BUNCHES
    return dict(zip(rows.tolist(), place[member.reshape(-1)].tolist(), strict=True))


@dataclass(frozen=True)
class _Sums:
    """Losses of a layer on a cut, summed by group: ``(n_groups, n_units)`` each."""

    total: Floats
    count: Floats
    infinite: NDArray[np.bool_] | None

    @classmethod
    def of(cls, one: Judged, code: Mapping[int, int]) -> _Sums:
        """Sums by the groups of the images."""
        place = np.array([code[row] for row in one.rows.tolist()])
        shape = (1 + max(code.values()), one.losses.shape[1])
        there, finite = ~np.isnan(one.losses), np.isfinite(one.losses)
        total, count = np.zeros(shape), np.zeros(shape)
        np.add.at(total, place, np.where(finite, one.losses, 0.0))
        np.add.at(count, place, there.astype(np.float64))
        infinite = None
        if (there & ~finite).any():
            infinite = np.zeros(shape, dtype=bool)
            np.logical_or.at(infinite, place, there & ~finite)
        return cls(total, count, infinite)

    def per_unit(self, weights: Floats) -> Floats:
        """Mean loss of each unit where group g counts ``weights[:, g]`` times, ``(draws, n_units)``."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray((weights @ self.total) / (weights @ self.count))
        if self.infinite is not None:
            mean[weights @ self.infinite.astype(np.float64) > 0] = np.inf
        return mean


def _linearised(first: Sequence[_Sums], second: Sequence[_Sums]) -> Floats:
    """Differences ``(cuts, groups, units)`` whose mean is the difference of mean losses.

    A group counts by its size. One that a cut does not hold out takes no part, which is to deviate by 0; so does a unit that
    a cut does not judge, from its mean over the others.
    """
    gap = np.stack([a.total - b.total for a, b in zip(first, second, strict=True)])
    if any(one.infinite is not None for one in first):
        gap[...] = np.inf
    count = np.stack([one.count for one in first])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = gap.sum(1, keepdims=True) / count.sum(1, keepdims=True)
        middle = np.where(np.isnan(mean), nan_mean(mean, axis=0), mean)
        deviation = (gap - count * mean) / count.mean(1, keepdims=True)
    judged = ~np.isnan(middle).all((0, 1))
    out = middle + np.where(np.isnan(deviation), 0.0, deviation)
    return np.asarray(out[..., judged])


def spread(gap: Floats) -> tuple[float, float]:
    """Variance of the mean of a crossed table, every axis of which was sampled, and its degrees of freedom.

    Parameters
    ----------
    gap
        Of any number of axes; one of length 1 was not sampled.

    Returns
    -------
    variance
        Main effects less what two share plus what three share, each by its mean square; no less than half the largest main
        effect's, below which it falls by chance alone.
    freedom
        Satterthwaite's.
    """
    axes = [axis for axis, n in enumerate(gap.shape) if n > 1]
    total, below, largest = 0.0, 0.0, 0.0
    for size in range(1, len(axes) + 1):
        for chosen in combinations(axes, size):
            effect = gap
            for axis in range(gap.ndim):
                mean = effect.mean(axis, keepdims=True)
                effect = effect - mean if axis in chosen else mean
            freedom = int(np.prod([gap.shape[axis] - 1 for axis in chosen]))
            cells = int(np.prod([gap.shape[axis] for axis in chosen]))
            variance = float(np.square(effect).sum()) / freedom / cells
            total += variance if size % 2 else -variance
            below += variance**2 / freedom
            largest = max(largest, variance) if size == 1 else largest
    total = max(total, largest / 2)
    return total, total**2 / below if below > 0 else np.inf


def _counts(rng: np.random.Generator, draws: int, n: int) -> Floats:
    """How often each of n things is in each draw of n of them, ``(draws, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def _weighted(each: Floats, weights: Floats) -> Floats:
    """Mean over cuts and units of ``(cuts, draws, units)``, ``(draws,)``; NaN entries are left out."""
    counts = np.where(np.isnan(each), 0.0, weights)
    product = np.where(counts > 0, each, 0.0) * counts
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(product.sum((0, 2)) / counts.sum((0, 2)))


def together(moved: Floats, freedom: float, level: float, seed: int) -> float:
    """Standard errors on each side within which all of some differences lie, in a share `level` of recordings.

    The quantile of the largest of several of Student's t, as correlated as the differences are over draws (Dunnett).

    Parameters
    ----------
    moved
        ``(n, draws)`` differences; NaN where a draw has none.
    freedom
        Degrees of freedom of their standard errors.
    level, seed
        As of :func:`compare_layers`.
    """
    whole = moved[:, ~np.isnan(moved).any(axis=0)]
    if not whole.size:
        return 0.0
    deviation = whole - whole.mean(1, keepdims=True)
    size = np.sqrt(np.square(deviation).sum(1, keepdims=True))
    unit = np.divide(deviation, size, out=np.zeros_like(deviation), where=size > 0)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    rng = np.random.default_rng([seed, _SAMPLES])
    sample = rng.standard_normal((_SAMPLES, len(unit)))
    normal = sample @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    scale = np.ones(_SAMPLES)
    if np.isfinite(freedom):
        scale = np.sqrt(rng.chisquare(freedom, _SAMPLES) / freedom)
    return float(np.quantile(np.abs(normal).max(1) / scale, level))
