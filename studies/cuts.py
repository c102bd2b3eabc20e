"""On which training images studies are fitted, and on which they are judged: one cut, or one for each fold."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.split import Split, cut, deal

if TYPE_CHECKING:
    from studies.config.experiment import Experiment
    from tuner.recordings import Recording

FOLDS, FEW_IMAGES = 5, 4000
"""Folds that ``training.folds = "auto"`` means below so many training images."""


class Cuts:
    """The cuts of an experiment's training images; arrays are made when first asked for.

    Parameters
    ----------
    experiment
        Its ``training.folds``, ``data.validation_fraction`` and ``data.intervals`` count.
    recording
        The images and their groups.
    seed
        By default ``data.seed``; another one gives other cuts of the same kind.

    Attributes
    ----------
    splits : tuple of Split
        A single cut, or a cut for each fold.

    Raises
    ------
    InputError
        If there is too little to cut, naming the recording.
    """

    def __init__(
        self, experiment: Experiment, recording: Recording, seed: int | None = None
    ) -> None:
        data = experiment.data
        self.n_train = recording.n_train
        self.seed = data.seed if seed is None else seed
        self._groups = recording.train_groups
        self._drawn_by_groups = data.intervals != "images"
        folds = experiment.training.folds
        if folds == "auto":
            folds = FOLDS if self.n_train < FEW_IMAGES else 1
        self.splits: tuple[Split, ...]
        try:
            if folds == 1:
                fraction = data.validation_fraction
                self.splits = (cut(self.n_train, self._groups, fraction, self.seed),)
            else:
                self.splits = deal(self.n_train, self._groups, folds, self.seed)
        except InputError as error:
            raise InputError(f"{recording.source}: {error}") from error

    @property
    def n_folds(self) -> int:
        """Into how many folds the training images are dealt; 1: they are cut once."""
        return len(self.splits)

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """Fold of each training image, ``(n_train,)``; all 0 where they are cut once."""
        fold = np.zeros(self.n_train, dtype=np.int64)
        if self.n_folds > 1:
            for number, split in enumerate(self.splits):
                fold[split.validation] = number
        return fold

    @property
    def fitted(self) -> NDArray[np.int64]:
        """Rows of the training images that are fitted to, with folds in one fold or another."""
        return self.splits[0].fit if self.n_folds == 1 else np.arange(self.n_train)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Rows of the training images that a trial is judged on: the validation images, with folds all images."""
        return self.splits[0].validation if self.n_folds == 1 else np.arange(self.n_train)

    @property
    def judged(self) -> int:
        """Images of a fold, at most, the answers to which are kept with each fit; 0 with a single cut."""
        sizes = [len(split.validation) for split in self.splits]
        return max(sizes) if len(sizes) > 1 else 0

    @property
    def overlap(self) -> float:
        """How much less sure differences of held-out losses are than such images make them: fits share theirs.

        :math:`k n_2 / n_1` of :func:`tuner.scores.loss_gaps`.
        """
        first = self.splits[0]
        return self.n_folds * len(first.validation) / len(first.fit)

    @cached_property
    def halves(self) -> NDArray[np.int64]:
        """Half of each held-out image, 0 or 1, whole groups at a time."""
        mine = None if self._groups is None else self._groups[self.held_out]
        if mine is not None and len(np.unique(mine)) < 2:
            mine = None
        half = np.zeros(len(self.held_out), dtype=np.int64)
        half[cut(len(half), mine, 0.5, self.seed).validation] = 1
        return half

    @cached_property
    def held_out_groups(self) -> NDArray[np.int64] | None:
        """Group of each held-out image, where intervals are drawn over groups and there are any."""
        if self._groups is None or not self._drawn_by_groups:
            return None
        return self._groups[self.held_out]
