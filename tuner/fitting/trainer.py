r"""The hot loop: train a matrix of columns in lockstep over one stream of feature batches.

Every step reads one batch of features for all columns: one product forward, the derivative of the loss, one product
back, and one fused pass over the weights. The objective of a column is

.. math:: \frac{1}{|V|} \sum_{i \in V} \ell(y_i, t_i) + \text{penalties}

over the valid responses :math:`V` of the batch; a column without any is not updated at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.fitting import losses
from tuner.fitting.columns import Columns, ColumnState
from tuner.fitting.schedule import BatchStream, learning_rates
from tuner.readouts.readout import (
    ADAM_BETA1,
    ADAM_BETA2,
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
    """

    fit: NDArray[np.float32]
    validation: NDArray[np.float32]
    fit_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    half: NDArray[np.int64]


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
        parking: Path | None = None,
    ) -> None:
        self.kernel = kernel
        self.center = None if center is None else center.to(device, dtype)
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
            parked=parked,
            folder=self.parking,
        )

    @torch.no_grad()
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
            saved = self.kernel.turn(
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
            share, active = None, None
            if self._fit_valid is not None:
                valid = self._block(self._fit_valid, rows, len(some))
                count = valid.sum(2, keepdim=True)
                share = valid / count.clamp_min(1)
                active = (count > 0).to(self.dtype).index_select(1, state.unit)
            coefficients = self._coefficients(state, first + begin, len(some), active)
            for i in range(len(some)):
                yield (
                    target[i].index_select(0, state.unit),
                    even if share is None else share[i].index_select(0, state.unit),
                    StepCoefficients(*(part[i] for part in coefficients)),
                )

    @staticmethod
    def _block(table: Tensor, rows: Tensor, steps: int) -> Tensor:
        """Columns of ``(n_units, n_fit)`` as ``(steps, n_units, B)``."""
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
    def validate(self, state: ColumnState) -> NDArray[np.float64]:
        """Sum of the loss over the valid validation images of each half, ``(K, 2)``; divide by the counts."""
        total = torch.zeros(len(state), 2, dtype=torch.float64, device=self.device)
        n = len(self._validation_rows)
        chunk = validation_chunk(self.kernel.shape)
        chunks = [slice(begin, min(begin + chunk, n)) for begin in range(0, n, chunk)]
        batches = self._read([self._validation_rows[some] for some in chunks])
        for some, x in zip(chunks, batches, strict=True):
            y = self.kernel.responses(state.parameters, x)
            target = self._validation[:, some].index_select(0, state.unit)
            loss = losses.value(self.loss, y, target)
            if self._validation_valid is not None:
                # Not a product with the mask: a diverged prediction must not turn a missing response into NaN.
                valid = self._validation_valid[:, some].index_select(0, state.unit)
                loss = torch.where(valid > 0, loss, torch.zeros_like(loss))
            half = self._half[some]
            total[:, 0] += loss[:, ~half].sum(1, dtype=torch.float64)
            total[:, 1] += loss[:, half].sum(1, dtype=torch.float64)
        return total.cpu().numpy()

    def objective(self, state: ColumnState, x: Tensor, rows: Tensor) -> Tensor:
        """Value of the written-out objective per column on one batch, ``(K,)``; what the steps descend."""
        y, _ = self.kernel.forward(state.parameters, x)
        target = self._fit[:, rows].index_select(0, state.unit)
        loss = losses.value(self.loss, y, target)
        if self._fit_valid is not None:
            valid = self._fit_valid[:, rows].index_select(0, state.unit)
            data = (loss * valid).sum(1) / valid.sum(1).clamp_min(1)
        else:
            data = loss.mean(1)
        zero = torch.zeros(len(state), dtype=self.dtype, device=self.device)
        weights = dict.fromkeys(state.columns.hyperparameters, zero) | state.weights
        return data + self.kernel.penalty(state.parameters, weights)
