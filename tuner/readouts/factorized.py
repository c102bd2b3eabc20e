r"""The factorized readout of Bashivan et al. 2019: a spatial mask times feature weights.

:math:`y = \sum_c f_c \sum_p \hat m_p x_{cp} / \sqrt{C} + b` with :math:`\hat m = |m| / \lVert m \rVert_2`, renormalised
after each step, so that no penalty can be lowered by moving scale between mask and features. Penalties per unit:
``smoothness`` :math:`\sum (L * \hat m)^2` on the mask, ``sparsity`` :math:`\sum |f|` and ``weight_decay``
:math:`\sum f^2` on the feature weights.

The average of several, such as those of the folds, is no single mask times weights: exported parameters then have an axis
of members, whose responses are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tuner.readouts import penalties, sizes
from tuner.readouts.native import steps
from tuner.readouts.readout import (
    LEARNING_RATE,
    Batch,
    ColumnKernel,
    Descent,
    FeatureShape,
    Parameters,
    StepCoefficients,
    adam_proximal,
    step_fields,
    update_bias,
)

FEATURE_SD = 0.01
"""Standard deviation of the initial feature weights."""

_NUMBERS = 1 << 25
"""Numbers between two contractions that responses may take: columns are taken some at a time, which bounds memory."""

_CELLS_AS_MATRIX = 1024
"""Grids up to this many cells have their Laplacian as a matrix, larger ones by shifted sums."""

FUSED_CELLS = 64
"""Grids up to this many cells have their step compiled from C; on larger ones it is seldom faster."""

Order = Literal["features", "mask", "outer"]


class FactorizedReadout:
    """Factorized readout; see the module's docstring."""

    name: str = "factorized"
    penalties: tuple[str, ...] = ("sparsity", "smoothness", "weight_decay")
    closed_form: bool = False

    def kernel(
        self,
        shape: FeatureShape,
        device: torch.device,
        *,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> FactorizedKernel:
        """Bind to a feature shape."""
        return FactorizedKernel(shape, device, compiled=compiled, dtype=dtype)

    def predict(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Responses ``(B, n)`` to feature maps ``(B, C, h, w)``."""
        mask, features, bias = parameters["mask"], parameters["features"], parameters["bias"]
        scale = 1.0 / math.sqrt(x.shape[1])

        def one(m: Tensor, f: Tensor) -> Tensor:
            if m.ndim == 3:
                each = [one(*member) for member in zip(m, f, strict=True)]
                return torch.stack(each).mean(0)
            return ((x * m).sum((2, 3)) * f).sum(1) * scale

        return torch.stack(
            [one(m, f) + b for m, f, b in zip(mask, features, bias, strict=True)], dim=1
        )

    def parameter_shapes(
        self, shape: FeatureShape, units: int, members: int = 1
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the exported parameters; with several members ``mask`` and ``features`` have an axis of them."""
        rows = (units,) if members == 1 else (units, members)
        return {
            "mask": (*rows, shape.height, shape.width),
            "features": (*rows, shape.channels),
            "bias": (units,),
        }

    def spatial_profile(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The mask, ``(n, h, w)``; of several members their mean, each by the norm of its feature weights."""
        mask = parameters["mask"].abs()
        if mask.ndim == 3:
            return mask
        share: Tensor = parameters["features"].norm(dim=2)
        share = share / share.sum(1, keepdim=True).clamp_min(1e-30)
        return (mask * share[:, :, None, None]).sum(1)

    def start(self, weight: Tensor, bias: Tensor) -> Parameters | None:
        """The mask that the channels' weights share most of, and each channel's share of it.

        The mask is the first right singular vector of the weights ``(C, cells)``, which is turned to be mostly positive and
        is 0 where it then is negative; the feature weights are the least-squares ones under that mask.
        """
        maps = weight.flatten(2)
        between = maps @ maps.transpose(1, 2) if maps.shape[1] < maps.shape[2] else None
        if between is None:
            mask = torch.linalg.eigh(maps.transpose(1, 2) @ maps)[1][:, :, -1]
        else:
            leading = torch.linalg.eigh(between)[1][:, :, -1:]
            mask = (maps.transpose(1, 2) @ leading)[:, :, 0]
        mask = (mask * mask.sum(1, keepdim=True).sign()).clamp_min(0)
        norm = mask.norm(dim=1, keepdim=True)
        flat = torch.full_like(mask, 1 / math.sqrt(mask.shape[1]))
        mask = torch.where(norm > 0, mask / norm.clamp_min(1e-30), flat)
        features = (maps @ mask[:, :, None])[:, :, 0] / math.sqrt(mask.shape[1])
        return {"mask": mask.view(len(mask), *weight.shape[2:]), "features": features, "bias": bias}

    def fused_pays(self, shape: FeatureShape) -> bool:
        """On small grids only; ``python -m benchmarks.fused`` has the times."""
        return shape.cells <= FUSED_CELLS


def contraction_order(shape: FeatureShape, batch_size: int) -> Order:
    """Which contraction leaves the smallest intermediate result; all three cost the same products."""
    sizes = _between(shape, batch_size)
    return min(sizes, key=lambda order: sizes[order])


def _between(shape: FeatureShape, batch_size: int) -> dict[Order, int]:
    """Numbers a column that lie between the two contractions.

    ``features`` first leaves B * cells, ``mask`` first B * channels, and the ``outer`` product of mask and features
    channels * cells.
    """
    return {
        "features": batch_size * shape.cells,
        "mask": batch_size * shape.channels,
        "outer": shape.size,
    }


def _update_features(
    f: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Tensor,
    sparse: Tensor | None,
    decay: Tensor | None,
    c: tuple[Tensor, ...],
) -> None:
    total = gradient if decay is None else gradient + 2 * decay * f
    coefficients = StepCoefficients(*c)
    threshold = None if sparse is None else sparse * coefficients.rate
    adam_proximal(f, m, v, total, threshold, coefficients)


def _update_mask(
    mask: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Tensor,
    rough: Tensor | None,
    smooth: Tensor | None,
    rate: Tensor,
    c: tuple[Tensor, ...],
) -> None:
    """Step of the raw mask through its normalisation, then back to unit norm; ``mask`` has unit norm on entry."""
    total = gradient
    if rough is not None and smooth is not None:
        total = total + 2 * smooth * rough
    positive = mask.abs()
    total = mask.sign() * (total - positive * (positive * total).sum(1, keepdim=True))
    coefficients = StepCoefficients(rate, *c)
    adam_proximal(mask, m, v, total, None, coefficients)
    mask.div_(mask.norm(dim=1, keepdim=True).clamp_min(1e-12))


class FactorizedKernel(ColumnKernel):
    """Columns of the factorized readout; ``mask`` (K, P) of unit norm, ``features`` (K, C), ``bias`` (K, 1)."""

    def __init__(
        self, shape: FeatureShape, device: torch.device, *, compiled: bool, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.device = device
        self.dtype = dtype
        self._scale = 1.0 / math.sqrt(shape.channels)
        self._mask_rate = 1.0 / math.sqrt(shape.cells)
        native_there = compiled and device.type == "cpu" and dtype == torch.float32
        self._native = steps.FactorizedStep(shape.channels, shape.cells) if native_there else None
        self._square: Tensor | None = None
        if shape.cells <= _CELLS_AS_MATRIX:
            square = penalties.squared_laplacian_matrix(shape.height, shape.width, dtype)
            self._square = square.to(device)

    def initial(self, units: Sequence[int], seed: int) -> Parameters:
        """Uniform mask; feature weights drawn from (seed, unit), so every trial of a unit starts alike."""
        shape = self.shape
        drawn = {
            unit: np.random.default_rng((seed, unit)).standard_normal(shape.channels)
            for unit in set(units)
        }
        features = np.stack([drawn[unit] for unit in units]) * FEATURE_SD
        k = len(units)
        return {
            "mask": torch.full(
                (k, shape.cells), self._mask_rate, dtype=self.dtype, device=self.device
            ),
            "features": torch.from_numpy(features).to(self.device, self.dtype),
            "bias": torch.zeros(k, 1, dtype=self.dtype, device=self.device),
        }

    def size_factors(self) -> Mapping[str, float]:
        """Of the feature weights; the mask, of norm 1, means the same on every grid, as its own rate does.

        With ``k`` times the cells under one and the same mask the sum over them is larger by the root of ``k``, and the
        feature weights smaller by that.
        """
        channels = sizes.by_root(sizes.CHANNELS, self.shape.channels)
        cells = sizes.by_root(sizes.CELLS, self.shape.cells)
        return {
            LEARNING_RATE: channels * cells,
            "sparsity": channels / cells,
            "weight_decay": 1 / cells**2,
        }

    def forward(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, Any]:
        """``(K, B)`` responses, and the arranged batch with the first contraction."""
        k, batch = len(parameters["mask"]), len(x)
        channels, cells = self.shape.channels, self.shape.cells
        mask, features = parameters["mask"].abs(), parameters["features"]
        order = contraction_order(self.shape, batch)
        if order == "features":
            arranged = x.view(batch, channels, cells).transpose(0, 1).reshape(channels, -1)
            inner = (features @ arranged).view(k, batch, cells)
            y = torch.bmm(inner, mask[:, :, None])[:, :, 0]
        elif order == "mask":
            arranged = x.view(batch * channels, cells)
            inner = (mask @ arranged.T).view(k, batch, channels)
            y = torch.bmm(inner, features[:, :, None])[:, :, 0]
        else:
            arranged = x
            inner = torch.bmm(features[:, :, None], mask[:, None, :]).view(k, -1)
            y = inner @ x.T
        return torch.add(parameters["bias"], y, alpha=self._scale), (order, arranged, inner)

    def gradients(
        self, parameters: Parameters, x: Tensor, saved: Any, residual: Tensor
    ) -> Parameters:
        """Gradient of the data term; that of ``mask`` is by the normalised mask."""
        order, arranged, inner = saved
        mask, features = parameters["mask"].abs(), parameters["features"]
        k = len(mask)
        scaled = residual * self._scale
        if order == "features":
            by_mask = torch.bmm(scaled[:, None, :], inner)[:, 0]
            by_features = torch.bmm(scaled[:, :, None], mask[:, None, :]).view(k, -1) @ arranged.T
        elif order == "mask":
            by_features = torch.bmm(scaled[:, None, :], inner)[:, 0]
            by_mask = torch.bmm(scaled[:, :, None], features[:, None, :]).view(k, -1) @ arranged
        else:
            outer = (scaled @ x).view(k, self.shape.channels, self.shape.cells)
            by_features = torch.bmm(outer, mask[:, :, None])[:, :, 0]
            by_mask = torch.bmm(features[:, None, :], outer)[:, 0]
        return {
            "mask": by_mask,
            "features": by_features,
            "bias": residual.sum(1, keepdim=True),
        }

    def _rough(self, mask: Tensor) -> Tensor:
        """The Laplacian, twice; ``(K, P)``."""
        if self._square is not None:
            return mask @ self._square
        return penalties.laplacian(penalties.laplacian(self._maps(mask))).flatten(1)

    def _maps(self, mask: Tensor) -> Tensor:
        return mask.view(-1, self.shape.height, self.shape.width)

    def penalty(self, parameters: Parameters, weights: Mapping[str, Tensor]) -> Tensor:
        """Weighted penalties per column."""
        value = weights["sparsity"] * penalties.sparsity(parameters["features"])
        value = value + weights["weight_decay"] * penalties.weight_decay(parameters["features"])
        mask = self._maps(parameters["mask"].abs())
        return value + weights["smoothness"] * penalties.smoothness(mask)

    def penalty_gradients(
        self, parameters: Parameters, weights: Mapping[str, Tensor]
    ) -> Parameters:
        """Gradient of smoothness (by the normalised mask) and weight decay."""
        rough = self._rough(parameters["mask"].abs())
        return {
            "mask": 2 * weights["smoothness"][:, None] * rough,
            "features": 2 * weights["weight_decay"][:, None] * parameters["features"],
            "bias": torch.zeros_like(parameters["bias"]),
        }

    def update(self, descent: Descent, gradients: Parameters, c: StepCoefficients) -> None:
        """One step of features, mask and bias."""
        of_features = c.of_weights
        _update_features(
            descent.parameters["features"],
            descent.first["features"],
            descent.second["features"],
            gradients["features"],
            descent.penalty("sparsity"),
            descent.penalty("weight_decay"),
            (of_features.rate, c.new1, c.new2, c.correct1, c.root2),
        )
        self._step_mask(descent, gradients["mask"], c)
        update_bias(descent, gradients["bias"], c)

    def _step_mask(self, descent: Descent, gradient: Tensor, c: StepCoefficients) -> None:
        smooth = descent.penalty("smoothness")
        mask = descent.parameters["mask"]
        _update_mask(
            mask,
            descent.first["mask"],
            descent.second["mask"],
            gradient,
            None if smooth is None else self._rough(mask.abs()),
            smooth,
            c.rate * self._mask_rate,
            (c.new1, c.new2, c.correct1, c.root2),
        )

    def step(
        self,
        descent: Descent,
        c: StepCoefficients,
        batch: Batch,
        saved: Any,
        following: Tensor | None,
    ) -> Any:
        """One step."""
        if self._native is None or batch.loss not in steps.LOSSES:
            super().step(descent, c, batch, saved, following)
            return
        decay = descent.penalty("weight_decay")
        by_mask, by_bias = self._native.step(
            descent.parameters["features"],
            descent.first["features"],
            descent.second["features"],
            descent.parameters["mask"].abs(),
            step_fields(
                c.of_weights,
                descent.penalty("sparsity"),
                None if decay is None else 2 * decay,
                descent.parameters["bias"],
            ),
            self._native.pack(batch.x),
            batch.target,
            batch.share,
            batch.loss,
        )
        self._step_mask(descent, by_mask, c)
        update_bias(descent, by_bias, c)

    def responses(self, parameters: Parameters, x: Tensor) -> Tensor:
        """``(K, B)`` responses."""
        mask, features, bias = (parameters[name] for name in ("mask", "features", "bias"))
        if self._native is not None:
            fields = torch.zeros(len(mask), steps.FACTORIZED_FIELDS)
            fields[:, -1:] = bias
            return self._native.responses(
                features, mask.abs(), fields, self._native.pack(x), len(x)
            )
        rows = max(1, _NUMBERS // min(_between(self.shape, len(x)).values()))
        parts = [
            self.forward({name: part[start : start + rows] for name, part in parameters.items()}, x)
            for start in range(0, len(mask), rows)
        ]
        return torch.cat([y for y, _ in parts])

    def export(self, parameters: Parameters) -> Parameters:
        """``mask`` (K, h, w), normalised and never negative, ``features`` (K, C), ``bias`` (K,)."""
        return {
            "mask": self._maps(parameters["mask"].abs()).clone(),
            "features": parameters["features"].clone(),
            "bias": parameters["bias"][:, 0].clone(),
        }

    def averaged(self, members: Sequence[Parameters], shares: Tensor | None = None) -> Parameters:
        """All of them, side by side: the response is a product of two parameters; only the bias is averaged.

        What a member counts is in its feature weights; members that are averages themselves bring their own.
        """
        if len(members) == 1:
            return members[0]
        bias = super().averaged([{"bias": member["bias"]} for member in members], shares)
        masks, features = [], []
        for i, member in enumerate(members):
            several = member["mask"].ndim == 4
            masks.append(member["mask"] if several else member["mask"][:, None])
            each = member["features"] if several else member["features"][:, None]
            if shares is not None:
                each = each * (len(members) * shares[i]).to(each.dtype)[:, None, None]
            features.append(each)
        if len({mask.shape[1] for mask in masks}) > 1:
            raise ValueError("members of different size cannot be averaged")
        return bias | {"mask": torch.cat(masks, dim=1), "features": torch.cat(features, dim=1)}

    def restore(self, exported: Mapping[str, Tensor]) -> Parameters:
        """Undo :meth:`export`; members become rows, one unit's after another's."""
        members = exported["mask"].shape[1] if exported["mask"].ndim == 4 else 1
        bias = exported["bias"].repeat_interleave(members)[:, None]
        return {
            "mask": exported["mask"].reshape(len(bias), -1).to(self.device, self.dtype),
            "features": exported["features"].reshape(len(bias), -1).to(self.device, self.dtype),
            "bias": bias.to(self.device, self.dtype),
        }

    def answer(self, exported: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """``(K, B)`` responses, of members their mean."""
        y = super().answer(exported, x)
        return (
            y if exported["mask"].ndim == 3 else y.view(len(exported["mask"]), -1, len(x)).mean(1)
        )

    def bytes_per_column(self, batch_size: int) -> int:
        """Parameters, moments and best; gradients and temporaries of an update, and what lies between the contractions."""
        shape = self.shape
        own = 4 * (shape.cells + shape.channels) + 8 * shape.cells + 8 * batch_size
        if self._native is not None:
            return 4 * (own + 2 * shape.channels)
        return 4 * (own + 5 * shape.channels + 3 * min(_between(shape, batch_size).values()))
