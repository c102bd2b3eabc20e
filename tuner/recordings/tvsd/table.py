"""Which image each presentation of a raw TVSD recording showed, and on which day."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError


@dataclass(frozen=True)
class TrialTable:
    """One row per presentation.

    Parameters
    ----------
    train, test
        Index of the image that was shown, from 0; -1 where it was not of that set. Shape (n,).
    day
        Code of the day, from 0, shape (n,).
    position
        Place in the sequence of images of its trial, from 1, shape (n,).
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    day: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def parse(cls, path: Path, table: NDArray[Any], n_train: int, n_test: int) -> TrialTable:
        """Read the rows of ``ALLMAT``.

        Its second column is the training image (from 1, or 0), its third the test image, its
        fifth the place in the sequence, its last the day.

        Parameters
        ----------
        path
            The file, for error messages.
        table
            (columns, presentations).
        n_train, n_test
            Number of images.

        Raises
        ------
        InputError
            If a row names no image, two, or one that the stimuli do not list.
        """
        if len(table) < 5:
            raise InputError(f"{path}: ALLMAT must have at least 5 columns, not {len(table)}")
        train, test, day = table[1], table[2], table[-1]
        for name, values in (("training image", train), ("test image", test), ("day", day)):
            if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
                raise InputError(f"{path}: ALLMAT's {name} column must hold whole numbers")
        both = np.flatnonzero((train > 0) == (test > 0))
        if both.size:
            raise InputError(
                f"{path}: presentation {both[0]} in ALLMAT names no image, or both a training and "
                f"a test image ({both.size} such); the file is damaged, get it again"
            )
        for part, values, count in (("train", train, n_train), ("test", test, n_test)):
            beyond = np.flatnonzero((values > count) | (values < 0))
            if beyond.size:
                raise InputError(
                    f"{path}: presentation {beyond[0]} in ALLMAT showed {part} image "
                    f"{values[beyond[0]]:g}, but the stimuli list {count}"
                )
        return cls(
            train=train.astype(np.int64) - 1,
            test=test.astype(np.int64) - 1,
            day=np.unique(day, return_inverse=True)[1].reshape(-1).astype(np.int64),
            position=_whole(table[4]) if len(table) > 5 else np.zeros(len(day), dtype=np.int64),
        )

    @property
    def n_days(self) -> int:
        """Number of days."""
        return int(self.day.max()) + 1

    def repeat_of(self) -> NDArray[np.int64]:
        """Count the presentations of each image so far: 0 for its first, 1 for its second."""
        image = np.where(self.test >= 0, self.test, -1 - self.train)
        order = np.argsort(image, kind="stable")
        grouped = image[order]
        starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
        lengths = np.diff(np.r_[starts, grouped.size])
        repeat = np.empty(image.size, dtype=np.int64)
        repeat[order] = np.arange(image.size) - np.repeat(starts, lengths)
        return repeat


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    """Codes of a column, of which nothing is known where it does not hold whole numbers."""
    if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        return np.zeros(len(values), dtype=np.int64)
    return np.asarray(values).astype(np.int64)
