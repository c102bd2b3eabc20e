"""Simulated V4 and IT: sparse mixtures of a backbone's features under a Gaussian mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tuner.backbones.backbone import Backbone

Kind = Literal["local", "global"]
"""``"local"``: a mask some cells wide, as in V4; ``"global"``: nearly position-free, as in IT."""

CHANNELS: dict[Kind, int] = {"local": 5, "global": 8}
"""Channels that a unit mixes."""

_BATCH = 50
_LOCAL_SIGMA = 0.16
_GLOBAL_SIGMA = 0.6


@dataclass(frozen=True)
class Mixtures:
    """Units that mix a few channels of one layer; per-unit arrays have one row per unit.

    A unit's response is ``sum_k a_k sum_p g_p r_(c_k, p)``: r are the layer's maps, each channel
    centred and scaled by its mean and standard deviation over the training images and then
    half-rectified (only scaled where the layer is rectified already), g is a Gaussian over the
    cells that sums to 1, and the c_k are the unit's channels.

    Parameters
    ----------
    layer
        Name of the layer.
    kind
        Kind of the mask over the layer.
    mean, sd
        Of each channel, shape (C,); the mean is 0 for a rectified layer.
    channels, coefficients
        c and a, shape (n_units, k).
    mask_x, mask_y, mask_sigma
        Centre and standard deviation of the mask in cells; cell i has its centre at i.
    """

    layer: str
    kind: Kind
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    channels: NDArray[np.int64]
    coefficients: NDArray[np.float64]
    mask_x: NDArray[np.float64]
    mask_y: NDArray[np.float64]
    mask_sigma: NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        layer: str,
        kind: Kind,
        maps: NDArray[np.float32],
        rectified: bool,
        count: int,
        rng: np.random.Generator,
        margin: float = 0.25,
    ) -> Mixtures:
        """Draw units at random.

        Parameters
        ----------
        layer, kind
            The layer's name and the kind of the mask, as in :class:`Mixtures`.
        maps
            The layer's output for the training images, (n, C, h, w).
        rectified
            Whether the layer is rectified already.
        count
            Number of units.
        rng
            Where randomness comes from.
        margin
            Share of the map along each border where no mask has its centre.
        """
        height, width = maps.shape[2:]
        mean = maps.mean((0, 2, 3), dtype=np.float64)
        sd = maps.std((0, 2, 3), dtype=np.float64)
        live = np.flatnonzero(sd > 1e-3 * np.median(sd))
        k = min(CHANNELS[kind], live.size)
        share = _LOCAL_SIGMA if kind == "local" else _GLOBAL_SIGMA
        return cls(
            layer=layer,
            kind=kind,
            mean=np.zeros_like(mean) if rectified else mean,
            sd=np.maximum(sd, 1e-12),
            channels=np.array([rng.choice(live, k, replace=False) for _ in range(count)]),
            coefficients=rng.choice([-1, 1], (count, k)) * rng.uniform(0.5, 1.5, (count, k)),
            mask_x=rng.uniform(margin, 1 - margin, count) * width - 0.5,
            mask_y=rng.uniform(margin, 1 - margin, count) * height - 0.5,
            mask_sigma=np.full(count, max(share * max(height, width), 0.6)),
        )

    @classmethod
    def from_truth(
        cls, truth: Mapping[str, NDArray[Any]], region: str, units: NDArray[np.int64]
    ) -> Mixtures:
        """Restore units from the truth of a recording."""
        kind: Kind = "local" if str(truth["units/kind"][units[0]]) == "local" else "global"
        used = truth["units/channels"][units[0]] >= 0
        return cls(
            layer=str(truth["units/layer"][units[0]]),
            kind=kind,
            mean=truth[f"population/{region}/mean"],
            sd=truth[f"population/{region}/sd"],
            channels=truth["units/channels"][units][:, used],
            coefficients=truth["units/coefficients"][units][:, used],
            mask_x=truth["units/mask_x"][units],
            mask_y=truth["units/mask_y"][units],
            mask_sigma=truth["units/mask_sigma"][units],
        )

    def truth(self) -> dict[str, NDArray[Any]]:
        """Tell what is known of each unit, as columns."""
        return {
            "channels": self.channels,
            "coefficients": self.coefficients,
            "mask_x": self.mask_x,
            "mask_y": self.mask_y,
            "mask_sigma": self.mask_sigma,
        }

    def masks(self, height: int, width: int) -> NDArray[np.float64]:
        """Draw the masks: (n_units, height, width), each of sum 1."""
        row, column = np.mgrid[:height, :width].astype(np.float64)
        dx = column - self.mask_x[:, None, None]
        dy = row - self.mask_y[:, None, None]
        mask = np.exp(-(dx**2 + dy**2) / (2 * self.mask_sigma[:, None, None] ** 2))
        return np.asarray(mask / mask.sum((1, 2), keepdims=True))

    def respond(self, maps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Respond to the layer's output.

        Parameters
        ----------
        maps
            (n, C, h, w), as the layer returns it.

        Returns
        -------
        ndarray
            (n, n_units).
        """
        masks = self.masks(*maps.shape[2:])
        out = np.empty((len(maps), len(self.mask_x)))
        for unit, channels in enumerate(self.channels):
            scaled = maps[:, channels].astype(np.float64) - self.mean[channels, None, None]
            scaled = np.maximum(scaled / self.sd[channels, None, None], 0)
            out[:, unit] = np.einsum("nchw,c,hw->n", scaled, self.coefficients[unit], masks[unit])
        return out


def layer_maps(
    backbone: Backbone, layers: list[str], images: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    """Run images through a backbone.

    Parameters
    ----------
    backbone
        The network.
    layers
        Whose outputs are wanted.
    images
        (n, size, size, 3), uint8 or floats in [0, 1].

    Returns
    -------
    dict
        Layer to its output, (n, C, h, w).
    """
    import torch

    chunks: dict[str, list[NDArray[np.float32]]] = {layer: [] for layer in layers}
    threads = torch.get_num_threads()
    # One thread: the order of summation, and so the last bits, must not depend on the machine's
    # cores, or a recording simulated anew would differ from the one that a search was begun on.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
                batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
                found = backbone.features(batch.permute(0, 3, 1, 2).contiguous(), layers)
                for layer in layers:
                    chunks[layer].append(found[layer].numpy())
    finally:
        torch.set_num_threads(threads)
    return {layer: np.concatenate(parts) for layer, parts in chunks.items()}
