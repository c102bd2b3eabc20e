r"""The hot loop: train a matrix of columns in lockstep over one stream of feature batches.

Every step reads one batch of features for all columns: one product forward, the derivative of the loss, one product
back, and one fused pass over the weights. The objective of a column is

.. math:: \frac{1}{|V|} \sum_{i \in V} \ell(y_i, t_i) + \text{penalties}

over the valid responses :math:`V` of the batch; a column without any is not updated at all. With folds a column's own
fold counts as not valid, and is what the column is judged on: all folds train in the same matrix, over the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.exact import exact
from tuner.fitting import losses
from tuner.fitting.columns import Columns, ColumnState
from tuner.fitting.schedule import BatchStream, learning_rates
from tuner.fitting.start import Start
from tuner.fitting.targets import Shares, Targets
from tuner.readouts.readout import (
    ADAM_BETA1,
    ADAM_BETA2,
    LEARNING_RATE,
    Batch,
    ColumnKernel,
    FeatureShape,
    StepCoefficients,
)

_VALIDATION_CHUNK = 256
_VALIDATION_NUMBERS = 1 << 25

STEPS_AHEAD = 64
"""Steps whose targets and coefficients are worked out together: bounds memory."""


def validation_chunk(shape: FeatureShape) -> int:
    """Validation images at once: bounds memory; set by the shape alone, so that sums are always taken in the same order."""
    return min(_VALIDATION_CHUNK, max(16, _VALIDATION_NUMBERS // shape.size))


class Features(Protocol):
    """Where feature batches come from; see :mod:`tuner.features.tiers`."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """Features ``(B, F)`` of the images at ``indices``, in memory of their own."""
        ...


def read(features: Features, indices: list[Tensor]) -> Iterator[Tensor]:
    """Feature batches, read ahead where the features know how."""
    batches: Callable[[list[Tensor]], Iterator[Tensor]] | None
    batches = getattr(features, "batches", None)
    return map(features.batch, indices) if batches is None else batches(indices)


class Trainer:
    """Trains columns of one readout on one layer.

    Parameters
    ----------
    kernel
        The readout bound to the layer's shape and to the device.
    features
        Features of all training images, fit and validation.
    targets
        Responses and split.
    loss
        ``mse`` or ``poisson``.
    batch_size
        Images a step.
    seed
        Seeds the batches and the initial parameters.
    center
        ``(F,)`` what is taken from each feature, see :mod:`tuner.fitting.center`; None for nothing. Exported parameters
        act on features as they come.
    size_invariant
        Whether learning rates and penalties mean the same at every size of the layer, see :mod:`tuner.readouts.sizes`.
    start
        What columns begin with; None for the readout's own start.
    parking
        Folder for the file of columns that wait while others are trained; None for the system's temporary one.
    """

    def __init__(
        self,
        kernel: ColumnKernel,
        features: Features,
        targets: Targets,
        *,
        loss: str,
        batch_size: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        center: Tensor | None = None,
        size_invariant: bool = False,
        start: Start | None = None,
        parking: Path | None = None,
    ) -> None:
        self.kernel = kernel
        self.center = None if center is None else center.to(device, dtype)
        self._factors = dict(kernel.size_factors()) if size_invariant else {}
        self._rate_of_weights = self._factors.pop(LEARNING_RATE, 1.0)
        self._start = start
        self.parking = parking
        self.features = features
        self.loss = loss
        self.seed = seed
        self.device = device
        self.dtype = dtype
        self.stream = BatchStream(len(targets.fit_rows), batch_size, seed)
        self._fit_rows = torch.from_numpy(targets.fit_rows)
        self._validation_rows = torch.from_numpy(targets.validation_rows)
        self._fit, self._fit_valid = self._place(targets.fit)
        self._validation, self._validation_valid = self._place(targets.validation)
        self._half = torch.from_numpy(targets.half == 1).to(device)
        self.judged = targets.judged
        self.folds = len(self.judged)
        self._seen: Tensor | None = None
        if targets.fold is not None:
            folds = np.arange(self.folds)[:, None]
            self._seen = torch.from_numpy(targets.fold != folds).to(device, dtype)
        self.validation_counts = self._counts(targets)
        self.batch_size = batch_size

    def _place(self, responses: NDArray[np.float32]) -> tuple[Tensor, Tensor | None]:
        """Targets as ``(n_units, n_images)``, missing ones 0, and which are valid (None: all)."""
        missing = np.isnan(responses)
        filled = np.where(missing, np.float32(0), responses).T.copy()
        valid = None
        if missing.any():
            valid = torch.from_numpy((~missing).T.astype(np.float32).copy())
            valid = valid.to(self.device, self.dtype)
        return torch.from_numpy(filled).to(self.device, self.dtype), valid

    @staticmethod
    def _counts(targets: Targets) -> NDArray[np.int64]:
        """Valid validation images of each unit in each half, ``(n_units, 2)``."""
        valid = ~np.isnan(targets.validation)
        return np.stack([valid[targets.half == h].sum(0) for h in (0, 1)], axis=1)

    def start(self, columns: Columns, *, parked: bool = False) -> ColumnState:
        """State of ``columns`` before the first step; parked, it takes no memory before it is resumed."""
        return ColumnState(
            columns,
            self.kernel,
            self.seed,
            center=self.center,
            start=self._start,
            factors=self._factors,
            judged=0 if self.folds == 1 else max(map(len, self.judged)),
            parked=parked,
            folder=self.parking,
        )

    @torch.no_grad()
    @exact()
    def advance(self, state: ColumnState, first: int, last: int) -> None:
        """Train ``state`` from step ``first`` up to, not including, step ``last``, in place."""
        if last <= first or not len(state):
            return
        places = [torch.from_numpy(self.stream.batch(step)) for step in range(first, last)]
        batches = self._read([self._fit_rows[rows] for rows in places])
        derivative = partial(losses.derivative, self.loss)
        x, saved = next(batches), None
        for target, share, c in self._steps(state, places, first):
            following = next(batches, None)
            saved = self.kernel.step(
                state.descent,
                c,
                Batch(x, target, share, self.loss, derivative),
                saved,
                following,
            )
            if following is not None:
                x = following

    def _read(self, indices: list[Tensor]) -> Iterator[Tensor]:
        """Feature batches as they are trained on."""
        batches = read(self.features, indices)
        return batches if self.center is None else (x.sub_(self.center) for x in batches)

    def _steps(
        self, state: ColumnState, places: list[Tensor], first: int
    ) -> Iterator[tuple[Tensor, Tensor, StepCoefficients]]:
        """Targets and shares ``(K, B)``, and coefficients of each step.

        Worked out for many steps at once: what is left of a step is what depends on the weights.
        """
        even = torch.full(
            (len(state), self.batch_size), 1 / self.batch_size, dtype=self.dtype, device=self.device
        )
        for begin in range(0, len(places), STEPS_AHEAD):
            some = places[begin : begin + STEPS_AHEAD]
            rows = torch.cat(some).to(self.device)
            target = self._block(self._fit, rows, len(some))
            shares = self._shares(rows, len(some))
            active = None if shares is None else shares.active(state)
            coefficients = self._coefficients(state, first + begin, len(some), active)
            for i in range(len(some)):
                yield (
                    target[i].index_select(0, state.unit),
                    even if shares is None else shares.of(state, i),
                    StepCoefficients(
                        *(part[i] for part in coefficients), size=self._rate_of_weights
                    ),
                )

    def _shares(self, rows: Tensor, steps: int) -> Shares | None:
        """What each response of some batches counts; None where all count alike in all columns."""
        valid = None if self._fit_valid is None else self._block(self._fit_valid, rows, steps)
        seen = None if self._seen is None else self._block(self._seen, rows, steps)
        if valid is not None and seen is not None:
            return Shares(valid, seen, torch.einsum("sfb,sub->sfu", seen, valid))
        one = seen if valid is None else valid
        return None if one is None else Shares(valid, seen, one.sum(2, keepdim=True))

    @staticmethod
    def _block(table: Tensor, rows: Tensor, steps: int) -> Tensor:
        """Columns of ``(n, n_fit)`` as ``(steps, n, B)``."""
        return table.index_select(1, rows).view(len(table), steps, -1).transpose(0, 1).contiguous()

    def _coefficients(
        self, state: ColumnState, first: int, steps: int, active: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Fields of :class:`StepCoefficients` for steps from ``first`` on, each ``(steps, K, 1)``."""
        rates = [
            learning_rates(state.learning_rate, state.drop, step)
            for step in range(first, first + steps)
        ]
        rate = torch.stack(rates)[:, :, None]
        ones = torch.ones_like(rate) if active is None else active
        updates = state.updates + ones.cumsum(0)
        state.updates = updates[-1].clone()
        # A column that has never had a valid response has made no update; its corrections are never used.
        made = updates.clamp_min(1)
        return (
            rate * ones,
            (1 - ADAM_BETA1) * ones,
            (1 - ADAM_BETA2) * ones,
            1 / (1 - ADAM_BETA1**made),
            (1 - ADAM_BETA2**made).rsqrt(),
        )

    @torch.no_grad()
    @exact()
    def validate(self, state: ColumnState) -> NDArray[np.float64]:
        """Sum of the loss over the valid images of each half that a column is judged on, ``(K, 2)``.

        A unit's loss is the sum over its folds by the counts. With folds the answers are left in the state: no encoder can
        make them later.
        """
        total = torch.zeros(len(state), 2, dtype=torch.float64, device=self.device)
        for mine, at, images, x in self._judgements(state):
            some = {name: value[mine] for name, value in state.parameters.items()}
            y = self.kernel.responses(some, x)
            if self.folds > 1:
                state.answers[mine, at : at + len(images)] = y
            unit = state.unit[mine]
            target = self._validation.index_select(1, images).index_select(0, unit)
            loss = losses.value(self.loss, y, target)
            if self._validation_valid is not None:
                # Not a product with the mask: a diverged prediction must not turn a missing response into NaN.
                valid = self._validation_valid.index_select(1, images).index_select(0, unit)
                loss = torch.where(valid > 0, loss, torch.zeros_like(loss))
            half = self._half[images]
            total[mine, 0] += loss[:, ~half].sum(1, dtype=torch.float64)
            total[mine, 1] += loss[:, half].sum(1, dtype=torch.float64)
        return total.cpu().numpy()

    def _judgements(self, state: ColumnState) -> Iterator[tuple[slice, int, Tensor, Tensor]]:
        """Columns of a fold, and some of the images that they are judged on: their place, positions, and features."""
        chunk = validation_chunk(self.kernel.shape)
        ends = np.searchsorted(state.columns.fold, np.arange(self.folds + 1))
        pieces = [
            (slice(int(ends[fold]), int(ends[fold + 1])), at, images[at : at + chunk])
            for fold, images in enumerate(self.judged)
            if ends[fold] < ends[fold + 1]
            for at in range(0, len(images), chunk)
        ]
        batches = self._read([self._validation_rows[images] for _, _, images in pieces])
        for (columns, at, images), x in zip(pieces, batches, strict=True):
            yield columns, at, torch.from_numpy(images).to(self.device), x

    def objective(self, state: ColumnState, x: Tensor, rows: Tensor) -> Tensor:
        """Value of the written-out objective per column on one batch, ``(K,)``; what the steps descend."""
        y, _ = self.kernel.forward(state.parameters, x)
        target = self._fit[:, rows].index_select(0, state.unit)
        loss = losses.value(self.loss, y, target)
        shares = self._shares(rows, 1)
        data = loss.mean(1) if shares is None else (loss * shares.of(state, 0)).sum(1)
        zero = torch.zeros(len(state), dtype=self.dtype, device=self.device)
        weights = dict.fromkeys(state.columns.hyperparameters, zero) | state.weights
        return data + self.kernel.penalty(state.parameters, weights)
