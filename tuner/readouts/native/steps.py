"""Calls of the fused steps: what they take, checked before a pointer to it is handed over.

A CPU's memory is what limits a step; one pass over the weights is several times faster than the same formulas as a chain
of tensor operations, each of which reads and writes them anew. On a GPU torch.compile does the same job.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.readouts.native.build import library


class _Packing:
    """Batches as the fused steps read them."""

    def __init__(self, kind: str, channels: int, cells: int) -> None:
        self._sizes = channels, cells
        self._size = getattr(library(), f"{kind}_packed")
        self._pack = getattr(library(), f"{kind}_pack")
        self._packed = [torch.empty(0), torch.empty(0)]

    def pack(self, x: Tensor) -> Tensor:
        """A feature batch ``(B, F)``; valid until two more are packed.

        Raises
        ------
        ValueError
            If it is not contiguous float32 of that shape.
        """
        channels, cells = self._sizes
        _check("features", x, len(x), channels * cells)
        sizes = *self._sizes, len(x)
        size = self._size(*sizes)
        self._packed.reverse()
        if len(self._packed[0]) != size:
            self._packed[0] = torch.empty(size)
        self._pack(*sizes, x.data_ptr(), self._packed[0].data_ptr())
        return self._packed[0]

    def _check_packed(self, packed: Tensor, batch: int) -> None:
        _check("packed batch", packed, self._size(*self._sizes, batch))


FULL_FIELDS = 10
"""Numbers a column that the fused step of the full readout reads."""


class FullStep(_Packing):
    """The fused step of the full readout, bound to a feature shape.

    Parameters
    ----------
    channels, height, width
        Of the features.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__("full", channels, height * width)
        self._shape = channels, height, width

    def step(
        self,
        weight: Tensor,
        first: Tensor,
        second: Tensor,
        residual: Tensor,
        fields: Tensor,
        now: Tensor,
        following: Tensor | None,
    ) -> Tensor | None:
        """One step in place on ``(K, F)`` rows, then their products with the next batch.

        Parameters
        ----------
        weight, first, second
            ``(K, F)`` weights and moments.
        residual
            ``(K, B)`` derivative of the loss by the product of weights and features.
        fields
            ``(K, 10)``: those of ``readout.step_fields``, twice the smoothness, group sparsity, twice the weight decay.
        now, following
            Packed batches of equal size.

        Returns
        -------
        Tensor or None
            ``(K, B)`` if there is a next batch.

        Raises
        ------
        ValueError
            If one is not contiguous float32 of its shape.
        """
        k, batch = residual.shape
        size = self._sizes[0] * self._sizes[1]
        for name, rows in (("weight", weight), ("first", first), ("second", second)):
            _check(name, rows, k, size)
        _check("residual", residual, k, batch)
        _check("fields", fields, k, FULL_FIELDS)
        for packed in (now, *(() if following is None else (following,))):
            self._check_packed(packed, batch)
        y = None if following is None else torch.empty(k, -(-batch // 4) * 4)
        failed = library().full_step(
            k,
            *self._shape,
            batch,
            *_pointers(weight, first, second, residual, fields, now, following, y),
        )
        if failed:
            raise MemoryError("no memory for the fused step")
        return None if y is None else y[:, :batch]


LOSSES = {"mse": 0, "poisson": 1}
"""Losses whose derivative the fused step of the factorized readout knows."""

FACTORIZED_FIELDS = 9
"""Numbers a column that the fused step of the factorized readout reads."""


class FactorizedStep(_Packing):
    """The fused step of the factorized readout, bound to a feature shape.

    Parameters
    ----------
    channels, cells
        Of the features.
    """

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__("factorized", channels, cells)

    def step(
        self,
        features: Tensor,
        first: Tensor,
        second: Tensor,
        mask: Tensor,
        fields: Tensor,
        x: Tensor,
        target: Tensor,
        share: Tensor,
        loss: str,
    ) -> tuple[Tensor, Tensor]:
        """One step of the feature weights, in place, and the gradients of the rest.

        Parameters
        ----------
        features, first, second
            ``(K, C)`` feature weights and their moments.
        mask
            ``(K, P)``, never negative.
        fields
            ``(K, 9)``: those of ``readout.step_fields``, twice the weight decay, bias.
        x
            A packed batch.
        target, share
            ``(K, B)``; see :class:`tuner.readouts.readout.Batch`.
        loss
            One of :data:`LOSSES`.

        Returns
        -------
        tuple
            Gradients of the mask ``(K, P)`` and of the bias ``(K, 1)``, both before the mask's penalty.

        Raises
        ------
        ValueError
            If one is not contiguous float32 of its shape.
        """
        k, batch = target.shape
        channels, _ = self._sizes
        for name, rows in (("first", first), ("second", second)):
            _check(name, rows, k, channels)
        for name, rows in (("target", target), ("share", share)):
            _check(name, rows, k, batch)
        by_mask, by_bias = torch.empty_like(mask), torch.empty(k, 1)
        self._call(
            batch,
            LOSSES[loss],
            *(features, first, second, mask, fields, x, target, share, None, by_mask, by_bias),
        )
        return by_mask, by_bias

    def responses(
        self, features: Tensor, mask: Tensor, fields: Tensor, x: Tensor, batch: int
    ) -> Tensor:
        """``(K, B)`` responses; of ``fields`` only the bias is read."""
        y = torch.empty(len(mask), batch)
        self._call(batch, 0, features, None, None, mask, fields, x, None, None, y, None, None)
        return y

    def _call(self, batch: int, loss: int, *tensors: Tensor | None) -> None:
        features, _, _, mask, fields, x, *_ = tensors
        assert features is not None
        k, (channels, cells) = len(features), self._sizes
        shapes = {"features": channels, "mask": cells, "fields": FACTORIZED_FIELDS}
        for (name, width), rows in zip(shapes.items(), (features, mask, fields), strict=True):
            assert rows is not None
            _check(name, rows, k, width)
        assert x is not None
        self._check_packed(x, batch)
        if library().factorized_step(k, *self._sizes, batch, *_pointers(*tensors), loss):
            raise MemoryError("no memory for the fused step")


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check(name: str, tensor: Tensor, *shape: int) -> None:
    """The code in C trusts what it is given: another shape would be written out of bounds."""
    if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.shape != shape:
        raise ValueError(
            f"the fused step takes {name} as contiguous float32 {shape}, not {tensor.dtype} "
            f"{tuple(tensor.shape)}"
        )
