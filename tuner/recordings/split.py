"""The cut of the training images into images to fit on and images to validate on, once or fold by fold."""

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
    count, member = _groups(n_train, groups)
    n_validation = min(max(1, round(fraction * count)), count - 1)
    rng = np.random.default_rng([0x5B117, seed])
    runs = np.array_split(np.arange(count), n_validation)
    chosen = np.zeros(count, dtype=bool)
    chosen[[int(rng.choice(run)) for run in runs]] = True
    return _split(chosen[member])


def deal(
    n_train: int, groups: NDArray[np.int64] | None, folds: int, seed: int
) -> tuple[Split, ...]:
    """Deal training images into folds, whole groups at a time; each fold is once what is validated on.

    The groups, in the order of their codes, are dealt a run at a time, one to each fold in an order that is drawn for
    the run: so whatever varies along that order is in every fold.

    Parameters
    ----------
    n_train, groups, seed
        As for :func:`cut`.
    folds
        How many there are to be, at least 2; no more than there are groups are made.

    Returns
    -------
    tuple of Split
        Their validation images are disjoint and together all training images.

    Raises
    ------
    InputError
        If there are fewer than two groups.

    Examples
    --------
    >>> groups = np.repeat(np.arange(10), 3)
    >>> [len(split.validation) for split in deal(30, groups, 4, seed=0)]
    [9, 6, 6, 9]
    """
    count, member = _groups(n_train, groups)
    folds = min(folds, count)
    rng = np.random.default_rng([0xF01D5, seed])
    runs = [rng.permutation(folds) for _ in range(-(-count // folds))]
    fold = np.concatenate(runs)[:count][member]
    return tuple(_split(fold == k) for k in range(folds))


def _groups(n_train: int, groups: NDArray[np.int64] | None) -> tuple[int, NDArray[np.int64]]:
    """How many groups there are, and the place of each image's among them."""
    codes = np.arange(n_train) if groups is None else groups
    order, member = np.unique(codes, return_inverse=True)
    if order.size < 2:
        kind = "training image" if groups is None else "group of training images"
        raise InputError(
            f"there is only {order.size} {kind}; a validation set needs at least 2 to cut"
        )
    return order.size, member.reshape(-1)


def _split(is_validation: NDArray[np.bool_]) -> Split:
    return Split(
        fit=np.flatnonzero(~is_validation).astype(np.int64),
        validation=np.flatnonzero(is_validation).astype(np.int64),
    )
