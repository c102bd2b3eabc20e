"""The cut of the training images into images to fit on and images to validate on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of training images that together are all of them.

    Parameters
    ----------
    fit, validation
        Sorted indices into the training images.
    """

    fit: NDArray[np.int64]
    validation: NDArray[np.int64]


def cut(n_train: int, groups: NDArray[np.int64] | None, fraction: float, seed: int) -> Split:
    """Cut training images into fit and validation images, whole groups at a time.

    The groups, in the order of their codes, are dealt into runs of equal length and one group of
    each run is drawn for validation. So whatever varies along that order (photographs, concepts,
    recording days) is on both sides. Without groups each image is its own.

    Parameters
    ----------
    n_train
        Number of training images.
    groups
        Group code of each image, shape (n_train,), or None.
    fraction
        Share of the groups that goes to validation, between 0 and 1.
    seed
        The same seed gives the same cut.

    Returns
    -------
    Split
        Neither side is empty.

    Raises
    ------
    InputError
        If the fraction is not between 0 and 1, or there are fewer than two groups.

    Examples
    --------
    >>> groups = np.repeat(np.arange(10), 3)
    >>> split = cut(30, groups, 0.2, seed=0)
    >>> len(split.fit), len(split.validation)
    (24, 6)
    """
    if not 0 < fraction < 1:
        raise InputError(
            f"data.validation_fraction must lie between 0 and 1 (both excluded), not {fraction:g}"
        )
    codes = np.arange(n_train) if groups is None else groups
    order, member = np.unique(codes, return_inverse=True)
    if order.size < 2:
        kind = "training image" if groups is None else "group of training images"
        raise InputError(
            f"there is only {order.size} {kind}; a validation set needs at least 2 to cut"
        )
    n_validation = min(max(1, round(fraction * order.size)), order.size - 1)
    rng = np.random.default_rng([0x5B117, seed])
    runs = np.array_split(np.arange(order.size), n_validation)
    chosen = np.zeros(order.size, dtype=bool)
    chosen[[int(rng.choice(run)) for run in runs]] = True
    is_validation = chosen[member.reshape(-1)]
    return Split(
        fit=np.flatnonzero(~is_validation).astype(np.int64),
        validation=np.flatnonzero(is_validation).astype(np.int64),
    )
