r"""The full readout of Cadena et al. 2019: a weight for every channel and place.

:math:`y = W \cdot x / \sqrt{F} + b` with :math:`F` features per image, so that learning rates and penalties mean the
same at every layer size. Penalties on the scaled :math:`W`, per unit: ``sparsity`` (L1), ``smoothness`` (squared true
Laplacian per channel), ``group_sparsity`` (L2 norm over space, summed over channels), ``weight_decay`` (squared L2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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

_CHUNK = 1 << 17
"""Weights that the eager update takes at once on a CPU, so that its temporaries stay in the cache."""


class FullReadout:
    """Full readout; see the module's docstring."""

    name: str = "full"
    penalties: tuple[str, ...] = ("sparsity", "smoothness", "group_sparsity", "weight_decay")
    closed_form: bool = False

    def kernel(
        self,
        shape: FeatureShape,
        device: torch.device,
        *,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> FullKernel:
        """Bind to a feature shape."""
        return FullKernel(shape, device, compiled=compiled, dtype=dtype)

    def predict(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Responses ``(B, n)`` to feature maps ``(B, C, h, w)``."""
        weight, bias = parameters["weight"], parameters["bias"]
        flat = x.flatten(1) / math.sqrt(weight[0].numel())
        return torch.stack(
            [(flat * w.reshape(1, -1)).sum(1) + b for w, b in zip(weight, bias, strict=True)], dim=1
        )

    def parameter_shapes(
        self, shape: FeatureShape, units: int, members: int = 1
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the exported parameters; an average has no more of them."""
        return {
            "weight": (units, shape.channels, shape.height, shape.width),
            "bias": (units,),
        }

    def spatial_profile(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Norm of the weights over channels, ``(n, h, w)``."""
        return parameters["weight"].square().sum(1).sqrt()

    def start(self, weight: Tensor, bias: Tensor) -> Parameters | None:
        """The weights themselves."""
        return {"weight": weight, "bias": bias}

    def fused_pays(self, shape: FeatureShape) -> bool:
        """Always: a chain of tensor operations reads and writes all weights many times."""
        return True


def _update(
    w: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Tensor,
    sparse: Tensor | None,
    smooth: Tensor | None,
    group: Tensor | None,
    decay: Tensor | None,
    c: tuple[Tensor, ...],
    shape: tuple[int, int, int],
) -> None:
    """All of a step but the two products, on ``(K, F)`` rows, in place; one pass over the weights when compiled."""
    maps = w.view(-1, *shape)
    total = gradient
    if smooth is not None:
        rough = penalties.laplacian(penalties.laplacian(maps)).view_as(w)
        total = rough.mul_(2 * smooth).add_(total)
    if group is not None:
        flat = maps.flatten(2)
        inverse = (flat.square().sum(-1, keepdim=True) + penalties.GROUP_EPSILON).rsqrt()
        total = total + (flat * (inverse * group[..., None])).view_as(w)
    if decay is not None:
        total = total + 2 * decay * w
    coefficients = StepCoefficients(*c)
    threshold = None if sparse is None else sparse * coefficients.rate
    adam_proximal(w, m, v, total, threshold, coefficients)


def gradient_bytes(device: torch.device) -> int:
    """Size of the gradient that is made at once: large products are efficient, small ones need no memory."""
    return 1 << (24 if device.type == "cpu" else 28)


class FullKernel(ColumnKernel):
    """Columns of the full readout; parameters ``weight`` (K, F) and ``bias`` (K, 1)."""

    def __init__(
        self, shape: FeatureShape, device: torch.device, *, compiled: bool, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.device = device
        self.dtype = dtype
        self.compiled = compiled
        self._scale = 1.0 / math.sqrt(shape.size)
        native_there = compiled and device.type == "cpu" and dtype == torch.float32
        self._native = (
            steps.FullStep(shape.channels, shape.height, shape.width) if native_there else None
        )
        compile_it = compiled and not native_there and device.type != "meta"
        self._fused = torch.compile(_update, dynamic=True) if compile_it else _update
        self._gradient = torch.empty(0)

    def initial(self, units: Sequence[int], seed: int) -> Parameters:
        """Zeros: the problem is convex under the squared error."""
        k = len(units)
        return {
            "weight": torch.zeros(k, self.shape.size, dtype=self.dtype, device=self.device),
            "bias": torch.zeros(k, 1, dtype=self.dtype, device=self.device),
        }

    def size_factors(self) -> Mapping[str, float]:
        """A group is a channel, so its penalty goes by their number."""
        rate = sizes.by_root(sizes.FEATURES, self.shape.size)
        group = sizes.by_root(sizes.CHANNELS, self.shape.channels)
        return {LEARNING_RATE: rate, "sparsity": rate, "group_sparsity": group}

    def forward(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, Any]:
        """``(K, B)`` responses."""
        y = torch.addmm(parameters["bias"], parameters["weight"], x.T, alpha=self._scale)
        return y, None

    def gradients(
        self, parameters: Parameters, x: Tensor, saved: Any, residual: Tensor
    ) -> Parameters:
        """Gradient of the data term."""
        return {
            "weight": torch.mm(residual * self._scale, x),
            "bias": residual.sum(1, keepdim=True),
        }

    def _maps(self, weight: Tensor) -> Tensor:
        return weight.view(-1, self.shape.channels, self.shape.height, self.shape.width)

    def penalty(self, parameters: Parameters, weights: Mapping[str, Tensor]) -> Tensor:
        """Weighted penalties per column."""
        maps = self._maps(parameters["weight"])
        value = weights["sparsity"] * penalties.sparsity(maps)
        value = value + weights["smoothness"] * penalties.smoothness(maps)
        value = value + weights["group_sparsity"] * penalties.group_sparsity(maps)
        return value + weights["weight_decay"] * penalties.weight_decay(maps)

    def penalty_gradients(
        self, parameters: Parameters, weights: Mapping[str, Tensor]
    ) -> Parameters:
        """Gradient of smoothness, group sparsity and weight decay."""
        weight = parameters["weight"]
        maps = weight.view(weight.shape[0], self.shape.channels, -1)
        inverse = (maps.square().sum(-1, keepdim=True) + penalties.GROUP_EPSILON).rsqrt()
        group = (maps * inverse).view_as(weight) * weights["group_sparsity"][:, None]
        rough = penalties.laplacian(penalties.laplacian(self._maps(weight))).view_as(weight)
        smooth = 2 * weights["smoothness"][:, None] * rough
        decay = 2 * weights["weight_decay"][:, None] * weight
        return {"weight": smooth + group + decay, "bias": torch.zeros_like(parameters["bias"])}

    def update(self, descent: Descent, gradients: Parameters, c: StepCoefficients) -> None:
        """One step: penalties, Adam and the proximal map."""
        self._update_rows(descent, gradients["weight"], c, 0)
        update_bias(descent, gradients["bias"], c)

    def step(
        self,
        descent: Descent,
        c: StepCoefficients,
        batch: Batch,
        saved: Any,
        following: Tensor | None,
    ) -> Any:
        """One step; no gradient is ever stored whole."""
        if self._native is not None:
            return self._fused_step(descent, c, batch, saved, following)
        residual = batch.residual(self.responses(descent.parameters, batch.x))
        scaled = residual * self._scale
        update_bias(descent, residual.sum(1, keepdim=True), c)
        rows = max(1, gradient_bytes(self.device) // (4 * self.shape.size))
        for start in range(0, len(scaled), rows):
            some = scaled[start : start + rows]
            gradient = self._room(len(some))
            torch.mm(some, batch.x, out=gradient)
            self._update_rows(descent, gradient, c, start)
        return None

    def _fused_step(
        self,
        descent: Descent,
        c: StepCoefficients,
        batch: Batch,
        saved: tuple[Tensor, Tensor] | None,
        following: Tensor | None,
    ) -> tuple[Tensor, Tensor] | None:
        """By the code in C, which meets the batch that follows while it has the weights at hand."""
        assert self._native is not None
        if saved is None:
            saved = self.responses(descent.parameters, batch.x), self._native.pack(batch.x)
        y, now = saved
        residual = batch.residual(y)
        update_bias(descent, residual.sum(1, keepdim=True), c)
        sparse, smooth, group, decay = map(descent.penalty, FullReadout.penalties)
        smooth2, decay2 = (None if p is None else 2 * p for p in (smooth, decay))
        ahead = None if following is None else self._native.pack(following)
        products = self._native.step(
            descent.parameters["weight"],
            descent.first["weight"],
            descent.second["weight"],
            residual * self._scale,
            step_fields(c.of_weights, sparse, smooth2, group, decay2),
            now,
            ahead,
        )
        if products is None or ahead is None:
            return None
        return torch.add(descent.parameters["bias"], products, alpha=self._scale), ahead

    def _room(self, rows: int) -> Tensor:
        """Where a gradient goes, the same memory every time."""
        wanted = rows * self.shape.size
        if len(self._gradient) < wanted:
            self._gradient = torch.empty(wanted, dtype=self.dtype, device=self.device)
        return self._gradient[:wanted].view(rows, self.shape.size)

    def _update_rows(
        self, descent: Descent, gradient: Tensor, c: StepCoefficients, begin: int
    ) -> None:
        """Step of the weights of the columns from ``begin`` on, as many as ``gradient`` has rows."""
        shape = self.shape
        columns = [descent.penalty(name) for name in FullReadout.penalties]
        c = c.of_weights
        coefficients = (c.rate, c.new1, c.new2, c.correct1, c.root2)
        k = len(gradient)
        whole = self._fused is not _update or self.device.type != "cpu"
        step = k if whole else max(1, _CHUNK // shape.size)
        for start in range(0, k, step):
            rows = slice(begin + start, begin + min(start + step, k))
            sparse, smooth, group, decay = (None if p is None else p[rows] for p in columns)
            self._fused(
                descent.parameters["weight"][rows],
                descent.first["weight"][rows],
                descent.second["weight"][rows],
                gradient[start : start + step],
                sparse,
                smooth,
                group,
                decay,
                tuple(part[rows] for part in coefficients),
                (shape.channels, shape.height, shape.width),
            )

    def export(self, parameters: Parameters) -> Parameters:
        """``weight`` (K, C, h, w) and ``bias`` (K,)."""
        return {
            "weight": self._maps(parameters["weight"]).clone(),
            "bias": parameters["bias"][:, 0].clone(),
        }

    def restore(self, exported: Mapping[str, Tensor]) -> Parameters:
        """Undo :meth:`export`."""
        weight, bias = exported["weight"], exported["bias"]
        return {
            "weight": weight.flatten(1).to(self.device, self.dtype),
            "bias": bias[:, None].to(self.device, self.dtype),
        }

    def bytes_per_column(self, batch_size: int) -> int:
        """Weights, two moments and the remembered best; responses, targets and the like of a batch."""
        return 4 * (4 * self.shape.size + 8 * batch_size)
