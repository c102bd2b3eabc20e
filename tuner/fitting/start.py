"""Where training starts: parameters before the first step, where a closed form knows better ones than the readout."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.readouts.readout import ColumnKernel, Parameters, Readout

_AT_ONCE = 1 << 23
"""Weights that are brought in at once: bounds memory."""


class Start:
    """First parameters of the columns of some units, the same under every trial, one set a fold.

    Parameters
    ----------
    parameters
        As the readout exports them, a row for every unit of the first fold, then of the second; they answer to features less
        their mean.
    units
        ``(n,)`` which units these are.
    mean
        ``(F,)`` of the features.
    """

    def __init__(self, parameters: Parameters, units: NDArray[np.int64], mean: Tensor) -> None:
        self._parameters = parameters
        self._mean = mean
        self._count = len(units)
        self._place = {int(unit): i for i, unit in enumerate(units)}

    @classmethod
    def of(
        cls, readout: Readout, weight: Tensor, bias: Tensor, mean: Tensor, units: NDArray[np.int64]
    ) -> Start | None:
        """What a readout makes of the full readout's weights; None where it starts by itself.

        Parameters
        ----------
        weight, bias
            ``(folds, n, C, h, w)`` and ``(folds, n)``, acting on features as they come.
        mean
            ``(F,)`` of the features.
        """
        each = weight.flatten(0, 1)
        flat = each.flatten(1)
        level = mean.to(flat.device, torch.float64) / math.sqrt(flat.shape[1])
        step = max(1, _AT_ONCE // flat.shape[1])
        answers = torch.cat([some.double() @ level for some in torch.split(flat, step)])
        found = readout.start(each, (bias.flatten().double() + answers).float())
        return None if found is None else cls(found, units, mean)

    def fill(
        self,
        parameters: Parameters,
        unit: NDArray[np.int64],
        fold: NDArray[np.int64],
        kernel: ColumnKernel,
        center: Tensor | None,
    ) -> None:
        """Overwrite the parameters of columns, in place.

        Parameters
        ----------
        unit, fold
            ``(K,)`` of each column.
        center
            ``(F,)`` what is taken from the features that the columns are trained on, or None.
        """
        place = np.array([self._place[int(one)] for one in unit], dtype=np.int64)
        rows = torch.from_numpy(fold * self._count + place)
        step = max(1, _AT_ONCE // kernel.shape.size)
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            mine = kernel.restore({name: v[some] for name, v in self._parameters.items()})
            if center is None:
                mine = kernel.uncentered(mine, self._mean.to(kernel.device))
            for name, value in mine.items():
                parameters[name][begin : begin + len(some)].copy_(value)
