"""From what a layer returns to the map that readouts see: normalise, rectify, then pool.

The order matters: pooling before the nonlinearity averages a filter's two phases away and
destroys early layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tuner.errors import InputError

# A channel is called constant when its sd is below this share of the layer's typical sd, or of its
# own mean, where float32 sees little but rounding.
_CONSTANT_OF_LAYER = 1e-5
_CONSTANT_OF_MEAN = 1e-6
_PIECE = (
    1 << 15
)  # numbers that statistics are taken of at a time: as many as stay near the processor


@dataclass(frozen=True, eq=False)
class Normalization:
    """The fixed map from a layer's output to features.

    Signed layers become relu((x - mean) / sd), rectified ones x / sd, and those that keep their sign
    (x - mean) / sd; all are then averaged over windows of ``kernel`` by ``kernel`` cells, partial windows
    over the cells that they hold.

    Attributes
    ----------
    mean, sd
        (C,) float32, over all images and positions.
    rectified
        True where the layer cannot return values below 0: it is then scaled only.
    signed
        True where the layer keeps its sign: it is then centred and scaled only.
    kernel
        Side of the pooling window in cells; 1 for none.
    grid
        (h, w) after pooling.
    """

    mean: Tensor
    sd: Tensor
    rectified: bool
    kernel: int
    grid: tuple[int, int]
    signed: bool = False

    def apply(self, raw: Tensor) -> Tensor:
        """Turn a layer's output (B, C, H, W) into features (B, C, h, w); differentiable."""
        sd = self.sd.to(raw.device, raw.dtype).view(1, -1, 1, 1)
        if self.rectified:
            scaled = raw / sd
        else:
            mean = self.mean.to(raw.device, raw.dtype).view(1, -1, 1, 1)
            scaled = (raw - mean) / sd
            if not self.signed:
                scaled = functional.relu(scaled)
        if self.kernel == 1:
            return scaled
        return functional.avg_pool2d(scaled, self.kernel, ceil_mode=True, count_include_pad=False)

    def to(self, device: torch.device | str) -> Normalization:
        """Return a copy with its tensors on a device."""
        return replace(self, mean=self.mean.to(device), sd=self.sd.to(device))

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors; ``from_state`` takes it back."""
        state = {
            "mean": self.mean,
            "sd": self.sd,
            "rectified": torch.tensor(self.rectified),
            "kernel": torch.tensor(self.kernel),
            "grid": torch.tensor(self.grid),
        }
        # left away where it is not so, as in the files of before
        return state | ({"signed": torch.tensor(True)} if self.signed else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Normalization:
        """Rebuild from ``state``.

        Raises
        ------
        InputError
            If an entry is missing, of another shape, or not finite.
        """
        try:
            mean, sd, grid = state["mean"].float(), state["sd"].float(), state["grid"].tolist()
            rectified, kernel = bool(state["rectified"]), int(state["kernel"])
            signed = bool(state.get("signed", False))
            if mean.ndim != 1 or mean.shape != sd.shape or len(grid) != 2 or kernel < 1:
                raise ValueError("entries of other shapes")
            if not bool(torch.isfinite(mean).all()) or not bool((sd > 0).all()):
                raise ValueError("means that are not finite or sds that are not positive")
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"normalisation cannot be read: {error}") from error
        return cls(mean, sd, rectified, kernel, (int(grid[0]), int(grid[1])), signed)


def pooling(height: int, width: int, max_grid: int) -> tuple[int, tuple[int, int]]:
    """Return the side of the pooling window, and the grid after it, for at most ``max_grid`` cells.

    ``max_grid`` 0 never pools.
    """
    kernel = 1 if max_grid == 0 else math.ceil(max(height, width) / max_grid)
    return kernel, (math.ceil(height / kernel), math.ceil(width / kernel))


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per channel, in float64.

    Chunks are merged by the pairwise update of Chan, Golub & LeVeque (1979), so nothing cancels
    where a mean is large; in a fixed order the result is the same to the last bit.
    """

    count: int
    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]

    @classmethod
    def none(cls, channels: int) -> Moments:
        """Return the moments of no data."""
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, raw: Tensor) -> Moments:
        """Return the moments of (B, C, H, W) over images and positions."""
        if raw.device.type == "cpu":
            return reduce(Moments.merge, map(Moments._of_image, raw))
        # Apple's devices have no float64
        values = (raw.cpu() if raw.device.type == "mps" else raw).double()
        mean = values.mean(dim=(0, 2, 3))
        deviations = (values - mean.view(1, -1, 1, 1)).square_().sum(dim=(0, 2, 3))
        count = values.shape[0] * values.shape[2] * values.shape[3]
        return cls(count, mean.cpu().numpy(), deviations.cpu().numpy())

    @classmethod
    def _of_image(cls, raw: Tensor) -> Moments:
        """Return the moments of (C, H, W), in pieces that stay in a processor's own memory."""
        values = raw.flatten(1)
        count = values.shape[1]
        means, squares = [], []
        for part in torch.split(values, max(1, _PIECE // count)):
            exact = part.double()
            mean = exact.mean(1, keepdim=True)
            means.append(mean[:, 0])
            squares.append((exact - mean).square_().sum(1))  # two passes, as exact as can be
        return cls(count, torch.cat(means).numpy(), torch.cat(squares).numpy())

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of values."""
        if self.count == 0:
            return other
        count = self.count + other.count
        step = other.mean - self.mean
        share = other.count / count
        return Moments(
            count,
            self.mean + step * share,
            self.deviations + other.deviations + step**2 * self.count * share,
        )

    def finite(self) -> bool:
        """Tell whether no value was NaN or infinite."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.deviations).all())

    def normalization(
        self, *, rectified: bool, kernel: int, grid: tuple[int, int], signed: bool = False
    ) -> Normalization:
        """Return the normalisation that these moments ask for.

        A constant channel (a dead unit) is divided by the layer's root-mean-square sd in place of
        its own, 1 if all are constant: it stays finite and small, and rounding noise is not blown
        up to unit variance.
        """
        sd = np.sqrt(self.deviations / max(self.count, 1))
        typical = float(np.sqrt(np.mean(sd**2)))
        floor = np.maximum(_CONSTANT_OF_LAYER * typical, _CONSTANT_OF_MEAN * np.abs(self.mean))
        constant = (sd <= floor) | (sd < np.finfo(np.float32).tiny)
        fallback = typical if typical > np.finfo(np.float32).tiny else 1.0
        scale = np.where(constant, fallback, sd)
        if bool(constant.all()):
            scale = np.ones_like(sd)
        return Normalization(
            torch.from_numpy(self.mean.astype(np.float32)),
            torch.from_numpy(scale.astype(np.float32)),
            rectified,
            kernel,
            grid,
            signed,
        )
