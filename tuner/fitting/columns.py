"""The columns of a fit: one (trial, unit, fold) each, with its own hyperparameters and its own state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.fitting.parking import Parked, park
from tuner.fitting.start import Start
from tuner.readouts.readout import LEARNING_RATE, ColumnKernel, Descent, Parameters

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
    fold
        ``(K,)`` fold whose images the column does not see and is judged on; ascending.
    """

    trial: NDArray[np.int64]
    unit: NDArray[np.int64]
    hyperparameters: dict[str, NDArray[np.float64]]
    fold: NDArray[np.int64]

    @classmethod
    def of_trials(
        cls,
        trials: Sequence[Mapping[str, float]],
        units: Sequence[NDArray[np.int64]],
        *,
        numbers: Sequence[int] | None = None,
        folds: int = 1,
    ) -> Columns:
        """Columns of trials in order, trial ``i`` over the units ``units[i]``, all of them for one fold after the other.

        Parameters
        ----------
        trials
            Hyperparameters of each trial.
        units
            Unit indices of each trial.
        numbers
            What each trial is called; its position where not given.
        folds
            Number of folds.
        """
        counts = [len(group) for group in units]
        names = trials[0].keys()
        called = np.arange(len(trials)) if numbers is None else np.asarray(numbers)

        def of_each(values: Sequence[float] | NDArray[np.int64]) -> NDArray[Any]:
            return np.tile(np.repeat(np.asarray(values), counts), folds)

        return cls(
            trial=of_each(called),
            unit=np.tile(np.concatenate(list(units)).astype(np.int64), folds),
            hyperparameters={name: of_each([float(t[name]) for t in trials]) for name in names},
            fold=np.repeat(np.arange(folds), sum(counts)),
        )

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """The columns at ``rows``."""
        return Columns(
            self.trial[rows],
            self.unit[rows],
            {name: values[rows] for name, values in self.hyperparameters.items()},
            self.fold[rows],
        )


ANSWERS = "answers"
"""What is remembered beside a readout's parameters, under this name."""

COPY_BYTES = 1 << 25
"""Bytes of a temporary copy, at most."""


class ColumnState:
    """Parameters, optimiser moments and remembered best of some columns.

    Pruned columns are taken out with :meth:`keep`, and the rest speeds up. While others are trained the tensors can be
    parked, out of the device's memory; what is done to the columns meanwhile takes effect when they are resumed.

    Parameters
    ----------
    columns
        Which columns.
    kernel
        The readout bound to a shape.
    seed
        Of the initial parameters.
    center
        ``(F,)`` what was taken from the features that the columns are trained on, or None.
    start
        What the columns begin with; None for the readout's own start.
    factors
        What hyperparameters are multiplied by on their way to the kernel, 1 where not named.
    judged
        Images that a column is judged on, at most, where its answers to them are to be remembered; else 0.
    parked
        Whether to wait with the tensors until :meth:`resume`.
    folder
        Where a file for parked columns may be made.
    """

    def __init__(
        self,
        columns: Columns,
        kernel: ColumnKernel,
        seed: int,
        *,
        center: Tensor | None = None,
        start: Start | None = None,
        factors: Mapping[str, float] = MappingProxyType({}),
        judged: int = 0,
        parked: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.columns = columns
        self.center = center
        self._start = start
        self.kernel = kernel
        self.parameters: Parameters = {}
        self.first: Parameters = {}
        self.second: Parameters = {}
        self.best: Parameters = {}
        self.updates = torch.zeros(0, 1)
        self.answers = torch.zeros(0, judged)
        self._judged = judged
        self._factors = factors
        self._seed = seed
        self._folder = folder
        self._present = False
        self._parked: Parked | None = None
        self._pending: list[tuple[str, NDArray[np.int64]]] = []
        self._begun_with = columns
        if not parked:
            self.resume()

    # -- here or parked ------------------------------------------------------------------------------

    def resume(self) -> None:
        """Have the tensors on the device, as they are after all that was done to the columns."""
        if self._present:
            return
        if self._parked is None:
            self._begin()
        else:
            for name in self._parked.names():
                self._set(name, self._parked.load(name))
            self._parked = None
        self._present = True
        pending, self._pending = self._pending, []
        for what, rows in pending:
            (self._remember if what == "remember" else self._keep)(rows)
        self._bind()

    def _begin(self) -> None:
        """Make the tensors of the first step."""
        units = [int(unit) for unit in self._begun_with.unit]
        self.parameters = self.kernel.initial(units, self._seed)
        if self._start is not None:
            begun = self._begun_with
            self._start.fill(self.parameters, begun.unit, begun.fold, self.kernel, self.center)
        for store in (self.first, self.second):
            store.update({name: torch.zeros_like(v) for name, v in self.parameters.items()})
        some = next(iter(self.parameters.values()))
        for name, width in (("updates", 1), ("answers", self._judged)):
            self._set(name, torch.zeros(len(units), width, dtype=some.dtype))

    def park(self) -> None:
        """Put the tensors where they cost the device nothing."""
        if not self._present:
            return
        self._parked = park(self.tensors(), self._folder)
        for store in (self.parameters, self.first, self.second, self.best):
            store.clear()
        self.updates = torch.zeros(0, 1)
        self.answers = torch.zeros(0, self._judged)
        self._present = False

    def _stores(self) -> dict[str, Parameters]:
        return {"w": self.parameters, "m": self.first, "v": self.second, "best": self.best}

    def tensors(self) -> dict[str, Tensor]:
        """All that must be kept to go on later, by name."""
        stores = self._stores().items()
        out = {f"{key}.{name}": t for key, store in stores for name, t in store.items()}
        return out | {"updates": self.updates} | self._answers()

    def _answers(self) -> Parameters:
        return {ANSWERS: self.answers} if self._judged else {}

    def _set(self, name: str, tensor: Tensor) -> None:
        tensor = tensor.to(self.kernel.device)
        store, _, key = name.partition(".")
        if key:
            self._stores()[store][key] = tensor
        elif name == "updates":
            self.updates = tensor
        else:
            self.answers = tensor

    def _bind(self) -> None:
        """Put what the columns say onto the device, once for every change of the columns."""
        some = next(iter(self.parameters.values()))
        hyper = {
            name: torch.from_numpy(values).to(some.device, some.dtype)
            for name, values in self.columns.hyperparameters.items()
        }
        self.learning_rate = hyper.pop(LEARNING_RATE)
        self.drop = hyper.pop(DROP)
        # A penalty that no column has is left out, and costs nothing.
        self.weights = {
            name: values * self._factors.get(name, 1.0)
            for name, values in hyper.items()
            if bool((self.columns.hyperparameters[name] != 0).any())
        }
        self.unit = torch.from_numpy(self.columns.unit).to(some.device)
        self.fold = torch.from_numpy(self.columns.fold).to(some.device)

    # -- what happens to columns ---------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def descent(self) -> Descent:
        """What the kernel's steps work on; good until columns are taken out."""
        return Descent(self.parameters, self.first, self.second, self.weights)

    def remember(self, rows: NDArray[np.int64]) -> None:
        """Copy the parameters of the columns at ``rows``, and their answers of the last validation, as their best so far."""
        if not len(rows):
            return
        if self._present:
            self._remember(rows)
        else:
            self._pending.append(("remember", rows))

    def _remember(self, rows: NDArray[np.int64]) -> None:
        now = self.parameters | self._answers()
        if not self.best:
            self.best.update({name: value.clone() for name, value in now.items()})
            return
        for name, value in now.items():
            step = max(1, COPY_BYTES // max(1, value[:1].numel() * value.element_size()))
            for start in range(0, len(rows), step):
                index = torch.from_numpy(rows[start : start + step]).to(value.device)
                self.best[name].index_copy_(0, index, value.index_select(0, index))

    def best_of(self, rows: NDArray[np.int64]) -> Parameters:
        """Best parameters of the columns at ``rows``, exported, on the host; they act on features as they come."""
        chosen = self._best(rows)
        chosen.pop(ANSWERS, None)
        if self.center is not None:
            chosen = self.kernel.uncentered(chosen, self.center)
        return {name: value.cpu() for name, value in self.kernel.export(chosen).items()}

    def best_answers(self, rows: NDArray[np.int64]) -> Tensor:
        """Answers at their best of the columns at ``rows`` to the images they are judged on, ``(len(rows), judged)``."""
        return self._best(rows, (ANSWERS,))[ANSWERS].cpu()

    def _best(self, rows: NDArray[np.int64], names: Sequence[str] | None = None) -> Parameters:
        """Some rows of what is remembered, on the device."""
        if self._pending:  # first of all they are to be as they should
            self.resume()
            self.park()
        if self._parked is None:
            return {name: rows_of(self.best[name], rows) for name in names or self.best}
        if names is None:
            there = (n for n in self._parked.names() if n.startswith("best."))
            names = [n.removeprefix("best.") for n in there]
        parts = {name: self._parked.rows(f"best.{name}", rows) for name in names}
        return {name: part.to(self.kernel.device) for name, part in parts.items()}

    def finish(self) -> None:
        """Training is over: let go of all but the best."""
        if self._present:
            for store in (self.parameters, self.first, self.second):
                store.clear()

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only the columns at ``rows``, in that order."""
        if len(rows) == len(self):
            return
        self.columns = self.columns.take(rows)
        if self._present:
            self._keep(rows)
            self._bind()
        else:
            self._pending.append(("keep", rows))

    def _keep(self, rows: NDArray[np.int64]) -> None:
        for store in self._stores().values():
            for name in list(store):
                store[name] = _taken(store[name], rows)
        self.updates = _taken(self.updates, rows)
        self.answers = _taken(self.answers, rows)


def rows_of(tensor: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Rows of a tensor: a view where they lie together."""
    if len(rows) and bool((np.diff(rows) == 1).all()):
        return tensor[int(rows[0]) : int(rows[-1]) + 1]
    return tensor.index_select(0, torch.from_numpy(rows).to(tensor.device))


def _taken(tensor: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Rows of a tensor, in order; moved together in place where they ascend, so that no second one is needed."""
    if not bool((np.diff(rows) > 0).all()):
        return tensor.index_select(0, torch.from_numpy(rows).to(tensor.device))
    done = 0
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        if not len(run):
            continue
        begin, shift = int(run[0]), int(run[0]) - done
        step = min(len(run), shift) if shift else len(run)
        for start in range(0, len(run) if shift else 0, step):  # pieces that do not overlap
            some = min(step, len(run) - start)
            tensor[done + start : done + start + some] = tensor[
                begin + start : begin + start + some
            ]
        done += len(run)
    return tensor[:done]
