"""The columns of a fit: one (trial, unit) pair each, with its own hyperparameters and its own state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.readouts.readout import ColumnKernel, Parameters

LEARNING_RATE = "learning_rate"
DROP = "drop"


@dataclass(frozen=True)
class Columns:
    """Which unit under which trial's hyperparameters each column is.

    Attributes
    ----------
    trial
        ``(K,)`` position of the column's trial among those that are fitted together.
    unit
        ``(K,)`` index of its unit in the recording.
    hyperparameters
        Name to ``(K,)`` values: the penalties of the readout, ``learning_rate`` and ``drop``.
    """

    trial: NDArray[np.int64]
    unit: NDArray[np.int64]
    hyperparameters: dict[str, NDArray[np.float64]]

    @classmethod
    def of_trials(
        cls, trials: Sequence[Mapping[str, float]], units: Sequence[NDArray[np.int64]]
    ) -> Columns:
        """Columns of trials in order, trial ``i`` over the units ``units[i]``.

        Parameters
        ----------
        trials
            Hyperparameters of each trial.
        units
            Unit indices of each trial.
        """
        counts = [len(group) for group in units]
        names = trials[0].keys()
        return cls(
            trial=np.repeat(np.arange(len(trials)), counts),
            unit=np.concatenate(list(units)).astype(np.int64),
            hyperparameters={
                name: np.repeat(np.array([float(t[name]) for t in trials]), counts)
                for name in names
            },
        )

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """The columns at ``rows``."""
        return Columns(
            self.trial[rows],
            self.unit[rows],
            {name: values[rows] for name, values in self.hyperparameters.items()},
        )


class ColumnState:
    """Parameters, optimiser moments and remembered best of some columns.

    Pruned columns are taken out with :meth:`keep`, and the rest speeds up.
    """

    def __init__(self, columns: Columns, kernel: ColumnKernel, seed: int) -> None:
        self.columns = columns
        self.kernel = kernel
        self.parameters: Parameters = kernel.initial([int(u) for u in columns.unit], seed)
        zeros = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.first: Parameters = zeros
        self.second: Parameters = {name: torch.zeros_like(value) for name, value in zeros.items()}
        some = next(iter(self.parameters.values()))
        self._device, self._dtype = some.device, some.dtype
        self.updates = torch.zeros(len(columns), 1, dtype=self._dtype, device=self._device)
        self.best: Parameters = {}
        self._bind()

    def _bind(self) -> None:
        """Put what the columns say onto the device, once for every change of the columns."""
        hyper = {
            name: torch.from_numpy(values).to(self._device, self._dtype)
            for name, values in self.columns.hyperparameters.items()
        }
        self.learning_rate = hyper.pop(LEARNING_RATE)
        self.drop = hyper.pop(DROP)
        # A penalty that no column has is left out, and costs nothing.
        self.weights = {
            name: values
            for name, values in hyper.items()
            if bool((self.columns.hyperparameters[name] != 0).any())
        }
        self.unit = torch.from_numpy(self.columns.unit).to(self._device)

    def __len__(self) -> int:
        return len(self.columns)

    def remember(self, rows: NDArray[np.int64]) -> None:
        """Copy the parameters of the columns at ``rows`` as their best so far."""
        if not len(rows):
            return
        if not self.best:
            self.best = {name: value.clone() for name, value in self.parameters.items()}
            return
        index = torch.from_numpy(rows).to(self._device)
        for name, value in self.parameters.items():
            self.best[name].index_copy_(0, index, value.index_select(0, index))

    def best_of(self, rows: NDArray[np.int64]) -> Parameters:
        """Best parameters of the columns at ``rows``, exported, on the host."""
        index = torch.from_numpy(rows).to(self._device)
        chosen = {name: value.index_select(0, index) for name, value in self.best.items()}
        return {name: value.cpu() for name, value in self.kernel.export(chosen).items()}

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only the columns at ``rows``, in that order."""
        if len(rows) == len(self):
            return
        index = torch.from_numpy(rows).to(self._device)
        self.columns = self.columns.take(rows)
        # One array at a time, so that old and new exist twice for one of them only.
        for store in (self.parameters, self.first, self.second, self.best):
            for name in list(store):
                store[name] = store[name].index_select(0, index)
        self.updates = self.updates.index_select(0, index)
        self._bind()

    def tensors(self) -> dict[str, Tensor]:
        """All that must be kept to go on later, by name."""
        stores = {"w": self.parameters, "m": self.first, "v": self.second, "best": self.best}
        out = {f"{key}.{name}": t for key, store in stores.items() for name, t in store.items()}
        return out | {"updates": self.updates}
