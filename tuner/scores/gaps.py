"""How far one fit's loss of a unit lies above another's, on the same held-out images, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.scores.jackknife import interval, parts
from tuner.scores.moments import Floats

Choice = Literal["sure", "undecided"]


def by_part(losses: ArrayLike, groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Sum losses over the parts that images are left out by, see :func:`tuner.scores.jackknife.parts`.

    Parameters
    ----------
    losses
        ``(images, units)``; NaN where there is no response, which adds nothing.
    groups
        ``(images,)`` codes of the images that are alike; None: each image is its own.

    Returns
    -------
    numpy.ndarray
        ``(parts, units)``; single precision, as all studies' of an experiment are held together.
    """
    each = np.asarray(losses, dtype=np.float64)
    member = parts(len(each), groups)
    out = np.zeros((int(member.max(initial=-1)) + 1, each.shape[1]))
    np.add.at(out, member, np.where(np.isnan(each), 0.0, each))
    return out.astype(np.float32)


@dataclass(frozen=True)
class Gaps:
    """Losses of rivals less that of the best.

    Attributes
    ----------
    difference
        ``(rivals,)``; above 0: the rival is worse.
    low, high
        Limits of each difference by itself; NaN where the data give none.
    """

    difference: Floats
    low: Floats
    high: Floats

    @property
    def worse(self) -> NDArray[np.bool_]:
        """``(rivals,)``: which are surely worse than the best."""
        return np.asarray(self.low > 0)

    @property
    def choice(self) -> Choice:
        """Whether all are."""
        return "sure" if self.worse.all() else "undecided"


def loss_gaps(
    best: ArrayLike,
    rivals: Sequence[ArrayLike],
    weights: ArrayLike,
    *,
    overlap: float = 0.0,
    level: float = 0.95,
) -> Gaps:
    r"""Compare the losses of one unit under several fits with that under the best of them.

    A fit's loss is :math:`\sum_j l_j / \sum_j w_j` over parts :math:`j` of the images, and all fits' are of the same
    images: what makes an image hard for all of them cancels in their difference. Limits are by leaving out one part after
    the other (:func:`tuner.scores.jackknife.interval`). That takes the fits as given, but with other images they would have
    come out otherwise, and fits of several folds share most of theirs: so the standard error is multiplied by
    :math:`\sqrt{1 + k n_2 / n_1}` for k folds of n\ :sub:`1` images fitted to and n\ :sub:`2` held out [1]_.

    The best was chosen as the lowest of all, and yet its rivals need not share the error that is allowed: the more of them
    are as good, the nearer is the next, so that all are wrongly called worse most often where only two layers are equally
    good [2]_. ``python -m benchmarks.intervals`` counts.

    Parameters
    ----------
    best
        ``(parts,)`` summed losses, from :func:`by_part`.
    rivals
        ``(parts,)`` of each rival.
    weights
        ``(parts,)`` numbers of responses, or what losses are divided by otherwise.
    overlap
        :math:`k n_2 / n_1`; 0 speaks of these fits alone.
    level
        How often an interval is to hold the difference between such fits on endless images, were the best not chosen by it;
        and how rarely a best that is called sure is not.

    References
    ----------
    .. [1] Nadeau & Bengio (2003), Machine Learning 52:239.
    .. [2] Gutmann & Maymin (1987), Annals of Statistics 15:456; Hung & Fithian (2019), Annals of Statistics 47:758.

    Examples
    --------
    >>> import numpy as np
    >>> hard = np.random.default_rng(0).exponential(size=100)
    >>> gaps = loss_gaps(hard, [hard + 0.1, hard[::-1] + 0.01], np.ones(100))
    >>> gaps.difference.round(2).tolist(), gaps.worse.tolist(), gaps.choice
    ([0.1, 0.01], [True, False], 'undecided')
    """
    w = np.asarray(weights, dtype=np.float64)[:, None]
    shape = (len(w), len(rivals))
    others = np.asarray(rivals, dtype=np.float64).reshape(shape[::-1]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = others - np.asarray(best, dtype=np.float64)[:, None]
        whole = gap.sum(axis=0) / w.sum()
        without = (gap.sum(axis=0) - gap) / (w.sum() - w)
    there = np.broadcast_to(w > 0, shape)
    low, high = interval(whole, without, level, there=there)
    wider = np.sqrt(1.0 + overlap)
    return Gaps(whole, whole - wider * (whole - low), whole + wider * (high - whole))
