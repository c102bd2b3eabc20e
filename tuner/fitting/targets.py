"""What columns are trained to answer, and which answers count: valid ones, outside the column's own fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tuner.fitting.columns import ColumnState
from tuner.recordings.split import Split


@dataclass(frozen=True)
class Targets:
    """Scaled responses of all units, split as the search uses them.

    Attributes
    ----------
    fit, validation
        ``(n_fit, n_units)`` and ``(n_validation, n_units)``, NaN = missing.
    fit_rows, validation_rows
        Row of each in the features.
    half
        ``(n_validation,)`` 0 or 1: per-unit choices are made on half 0 and reported on half 1.
    fold
        ``(n_fit,)`` fold of each image, where fit and validation images are the same ones; None for a single cut.
    """

    fit: NDArray[np.float32]
    validation: NDArray[np.float32]
    fit_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    half: NDArray[np.int64]
    fold: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, scaled: NDArray[np.float32], splits: Sequence[Split], half: NDArray[np.int64]
    ) -> Targets:
        """Targets of a single cut, or of folds.

        Parameters
        ----------
        scaled
            ``(n_train, n_units)`` responses of all training images.
        splits
            One cut, or one for each fold.
        half
            Of the validation images in order; with folds of all training images.
        """
        if len(splits) == 1:
            fit, held_out = splits[0].fit, splits[0].validation
            return cls(scaled[fit], scaled[held_out], fit, held_out, half)
        every = np.arange(len(scaled))
        fold = np.empty(len(scaled), dtype=np.int64)
        for k, split in enumerate(splits):
            fold[split.validation] = k
        return cls(scaled, scaled, every, every, half, fold)

    @property
    def judged(self) -> tuple[NDArray[np.int64], ...]:
        """For each fold the positions, among the validation images, of those that its columns are judged on."""
        if self.fold is None:
            return (np.arange(len(self.validation_rows)),)
        return tuple(np.flatnonzero(self.fold == k) for k in range(self.fold.max() + 1))


@dataclass(frozen=True)
class Shares:
    """What each response of some steps' batches counts in its column's mean.

    Attributes
    ----------
    valid
        ``(steps, n_units, B)`` which are there; None: all.
    seen
        ``(steps, folds, B)`` which are outside a fold; None with a single cut.
    count
        ``(steps, folds or 1, n_units or 1)`` how many count; with only one of the two ``(steps, n, 1)``.
    """

    valid: Tensor | None
    seen: Tensor | None
    count: Tensor

    def _of_columns(self, table: Tensor, state: ColumnState) -> Tensor:
        """Numbers ``(..., folds, units)`` or ``(..., n, 1)`` of each column, ``(..., K, 1)``."""
        if self.valid is None:
            return table.index_select(-2, state.fold)
        if self.seen is None:
            return table.index_select(-2, state.unit)
        both = state.fold * table.shape[-1] + state.unit
        return table.flatten(-2).index_select(-1, both)[..., None]

    def active(self, state: ColumnState) -> Tensor:
        """1 where a column has any response in a step's batch, else 0, ``(steps, K, 1)``."""
        return (self._of_columns(self.count, state) > 0).to(self.count.dtype)

    def of(self, state: ColumnState, step: int) -> Tensor:
        """Shares of a step, ``(K, B)``."""
        count = self.count[step].clamp_min(1)
        if self.valid is None or self.seen is None:
            table, index = (
                (self.seen, state.fold) if self.valid is None else (self.valid, state.unit)
            )
            assert table is not None
            return (table[step] / count).index_select(0, index)
        there = self.valid[step].index_select(0, state.unit)
        there = there * self.seen[step].index_select(0, state.fold)
        return there / self._of_columns(count, state)
