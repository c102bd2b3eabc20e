"""Features that are kept nowhere: an array that computes the rows it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.features.tiers import RecomputeStore


class ComputedFeatures:
    """Looks like a half-precision array ``(n, C, h, w)``, or ``(n, C * h * w)`` after ``reshape``; read by rows.

    Parameters
    ----------
    store
        What computes them.
    flat
        Whether rows are vectors.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, store: RecomputeStore, *, flat: bool = False) -> None:
        self.store = store
        self._row = (store.features,) if flat else store.shape
        self.shape: tuple[int, ...] = (len(store), *self._row)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What they would take."""
        return 2 * len(self) * self.store.features

    def __len__(self) -> int:
        return len(self.store)

    def reshape(self, *shape: int) -> ComputedFeatures:
        """Make each row a vector: the only shape that is asked for, ``(n, -1)``."""
        if shape != (len(self), -1):
            raise ValueError(f"computed features can be reshaped to ({len(self)}, -1), not {shape}")
        return ComputedFeatures(self.store, flat=True)

    def __getitem__(self, rows: Any) -> NDArray[np.float16]:
        """Compute some rows, given as a slice or as indices; more indices choose from what was computed."""
        rows, *rest = rows if isinstance(rows, tuple) else (rows,)
        chosen = np.arange(len(self))[rows]
        features = self.store.batch(torch.from_numpy(np.atleast_1d(chosen)))
        half: NDArray[np.float16] = features.half().cpu().numpy().reshape(-1, *self._row)
        return half[0 if np.ndim(chosen) == 0 else slice(None), *rest]
