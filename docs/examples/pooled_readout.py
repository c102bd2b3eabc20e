"""An example of a readout: one weight per channel on the mean over space, with an L2 penalty.

y = sum_c f_c mean_p x_cp / sqrt(C) + b
"""

from __future__ import annotations

import math

import torch

from tuner.readouts import penalties
from tuner.readouts.readout import ColumnKernel, adam_proximal, update_bias


class PooledReadout:
    """The kind of readout: its name, its penalties, and how it predicts."""

    name = "pooled"
    penalties = ("weight_decay",)
    closed_form = False

    def kernel(self, shape, device, *, compiled=False, dtype=torch.float32):
        """Bind it to a feature shape."""
        return PooledKernel(shape, device, dtype)

    def predict(self, parameters, x):
        """Responses (B, n) to feature maps (B, C, h, w), unit by unit, differentiable."""
        scale = 1 / math.sqrt(x.shape[1])
        rows = zip(parameters["mask"], parameters["features"], parameters["bias"], strict=True)
        each = [((x * m).sum((2, 3)) * f).sum(1) * scale + b for m, f, b in rows]
        return torch.stack(each, dim=1)

    def parameter_shapes(self, shape, units, members=1):
        """Shapes of what is stored; the mean of several is one, for the response is linear in the weights."""
        return {
            "mask": (units, shape.height, shape.width),
            "features": (units, shape.channels),
            "bias": (units,),
        }

    def start(self, weight, bias):
        """Training starts at the kernel's own parameters, whatever the closed form says."""
        return

    def fused_pays(self, shape):
        """It has no step in C."""
        return False

    def spatial_profile(self, parameters):
        """Where each unit reads (n, h, w)."""
        return parameters["mask"]


class PooledKernel(ColumnKernel):
    """Columns: parameters with one row per (trial, unit), and the gradients written out."""

    def __init__(self, shape, device, dtype):
        self.shape, self.device, self.dtype = shape, device, dtype
        self._scale = 1 / math.sqrt(shape.channels)

    def initial(self, units, seed):
        """The start; it may depend on (seed, unit), never on the trial."""
        zeros = {"features": self.shape.channels, "bias": 1}
        return {
            name: torch.zeros(len(units), size, dtype=self.dtype, device=self.device)
            for name, size in zeros.items()
        }

    def forward(self, parameters, x):
        """Responses (K, B) to feature vectors (B, F), and what the gradient needs again."""
        pooled = x.view(len(x), self.shape.channels, -1).mean(2) * self._scale
        return parameters["features"] @ pooled.T + parameters["bias"], pooled

    def gradients(self, parameters, x, saved, residual):
        """Gradient of the data term, from its derivative by the response (K, B)."""
        return {"features": residual @ saved, "bias": residual.sum(1, keepdim=True)}

    def penalty(self, parameters, weights):
        """Value of all penalties (K,)."""
        return weights["weight_decay"] * penalties.weight_decay(parameters["features"])

    def penalty_gradients(self, parameters, weights):
        """Gradient of all penalties but an L1 one."""
        return {
            "features": 2 * weights["weight_decay"][:, None] * parameters["features"],
            "bias": torch.zeros_like(parameters["bias"]),
        }

    def update(self, descent, gradients, c):
        """One Adam step, in place; a penalty that no column has is left out of ``weights``."""
        decay = descent.penalty("weight_decay")
        f, total = descent.parameters["features"], gradients["features"]
        if decay is not None:
            total = total + 2 * decay * f
        moments = descent.first["features"], descent.second["features"]
        adam_proximal(f, *moments, total, None, c)
        update_bias(descent, gradients["bias"], c)

    def export(self, parameters):
        """What predict reads and encoders store; the mask says that every place counts alike."""
        shape = self.shape
        size = (len(parameters["bias"]), shape.height, shape.width)
        return {
            "mask": torch.full(size, 1 / shape.cells, dtype=self.dtype, device=self.device),
            "features": parameters["features"].clone(),
            "bias": parameters["bias"][:, 0].clone(),
        }

    def restore(self, exported):
        """Undo export."""
        moved = {k: v.to(self.device, self.dtype) for k, v in exported.items()}
        return {"features": moved["features"], "bias": moved["bias"][:, None]}

    def bytes_per_column(self, batch_size):
        """Parameters, moments, gradients and the best so far, and the responses of a batch."""
        return 4 * (6 * (self.shape.channels + 1) + 4 * batch_size)
