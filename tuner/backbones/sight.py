"""Where the cells of a layer look, and how far: measured, since trained weights look past the middle.

The support of a cell is known from the architecture (:attr:`LayerInfo.offset`), but its weight is not
spread evenly over it. Strided layers pad on one side, and training moves the weight away from that side:
at 128 px the cells of EfficientNet-Lite0's `_blocks.4` look 3.7 px left of and above the middle of their
support, those of `_blocks.5` 5.3 px. At a border of the image half of the support is padding. So the
squared gradient of a cell is averaged over photographs and over random mixtures of its channels, and its
quantiles along either axis say where the cell looks and how widely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.backbones.backbone import Backbone

Floats = NDArray[np.float64]

_ALL = 8
"""Up to so many cells along an axis every one is measured, beyond it those near the borders and some between."""
_NEAR = 3
_SEED = 0x516


@dataclass(frozen=True)
class Sight:
    """Where cells look, px of the image, pixel i having its centre at i, rows downwards.

    Attributes
    ----------
    rows, columns
        ``(h,)`` and ``(w,)``: the y of each row of cells and the x of each column, the median of the squared gradient.
    row_sigmas, column_sigmas
        ``(h,)`` and ``(w,)``: how widely, as the standard deviation of a Gaussian envelope: the root of 2 times that of
        the squared gradient, since the square of a Gaussian is narrower by that root.
    """

    rows: Floats
    columns: Floats
    row_sigmas: Floats
    column_sigmas: Floats

    def place(self, row: Floats, column: Floats) -> tuple[Floats, Floats]:
        """Return x and y, px, of positions on the map, in cells; beyond the outermost cells linearly."""
        return _beyond(column, self.columns), _beyond(row, self.rows)

    def size_at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Standard deviations along x and along y, px, of the cells that look at these places."""
        return (
            _between(x, self.columns, self.column_sigmas),
            _between(y, self.rows, self.row_sigmas),
        )

    def steps_at(self, row: Floats, column: Floats) -> tuple[Floats, Floats]:
        """Pixels per cell along x and along y around positions on the map, in cells; 0 where there is one cell only."""
        return _step(column, self.columns), _step(row, self.rows)


def _between(at: Floats, places: Floats, values: Floats) -> Floats:
    order = np.argsort(places)
    return np.asarray(np.interp(at, places[order], values[order]))


def _beyond(cells: Floats, places: Floats) -> Floats:
    """Interpolate, and go on with the first and the last step outside."""
    if len(places) < 2:
        return np.full(np.shape(cells), places[0])
    last = len(places) - 1
    inside = np.interp(cells, np.arange(last + 1), places)
    before = np.minimum(cells, 0.0) * (places[1] - places[0])
    after = np.maximum(np.asarray(cells) - last, 0.0) * (places[-1] - places[-2])
    return np.asarray(inside + before + after)


def _step(cells: Floats, places: Floats) -> Floats:
    return np.abs(_beyond(cells + 0.5, places) - _beyond(cells - 0.5, places))


def measure(
    backbone: Backbone,
    layer: str,
    images: NDArray[np.uint8],
    shape: Callable[[Tensor], Tensor] = lambda output: output,
) -> Sight:
    """Measure where the cells of a layer look.

    Parameters
    ----------
    backbone, layer
        The network and the layer.
    images
        ``(n, S, S, 3)`` uint8 photographs, at which the gradient is taken; a dozen suffice.
    shape
        What becomes of the layer's output before it is read, ``(B, C, h, w)`` to the same with other cells: scaling,
        rectification, pooling.

    Returns
    -------
    Sight
        The cells are measured along the diagonal of the map, where each tells of its row and of its column.
    """
    drawn = torch.Generator().manual_seed(_SEED)
    energy: Floats | None = None
    pairs: list[tuple[int, int]] = []
    grid = (1, 1)
    for image in images:
        batch = torch.from_numpy(np.ascontiguousarray(image)[None]).to(backbone.device)
        batch = batch.permute(0, 3, 1, 2).float().div_(255).contiguous().requires_grad_(True)
        cells = shape(backbone.features(batch, [layer])[layer])
        if energy is None:
            grid = int(cells.shape[2]), int(cells.shape[3])
            pairs = _diagonal(*grid)
            energy = np.zeros((len(pairs), *image.shape[:2]))
        # Mixed by signs at random, the expected squared gradient is the sum of those of the channels: none cancels another.
        signs = torch.randint(0, 2, (cells.shape[1],), generator=drawn).to(cells) * 2 - 1
        for number, (row, column) in enumerate(pairs):
            mixed = (cells[0, :, row, column] * signs).sum()
            (gradient,) = torch.autograd.grad(mixed, batch, retain_graph=True)
            energy[number] += gradient[0].double().square().sum(0).cpu().numpy()
    assert energy is not None
    rows, row_sigmas = _described(energy.sum(2))
    columns, column_sigmas = _described(energy.sum(1))
    of_rows, of_columns = (np.array(axis, dtype=np.float64) for axis in zip(*pairs, strict=True))

    def spread(cells: int, measured: Floats, values: Floats) -> Floats:
        return np.asarray(np.interp(np.arange(cells), measured, values))

    return Sight(
        spread(grid[0], of_rows, rows),
        spread(grid[1], of_columns, columns),
        spread(grid[0], of_rows, row_sigmas),
        spread(grid[1], of_columns, column_sigmas),
    )


def _diagonal(height: int, width: int) -> list[tuple[int, int]]:
    """Cells along the diagonal: all, or those near the borders, where sight changes from cell to cell, and some between."""
    longest = max(height, width)
    if longest <= _ALL:
        chosen = list(range(longest))
    else:
        middle = np.linspace(_NEAR, longest - 1 - _NEAR, _NEAR).round().astype(int).tolist()
        chosen = sorted({*range(_NEAR), *middle, *range(longest - _NEAR, longest)})
    scale = max(longest - 1, 1)
    pairs = [(round(k * (height - 1) / scale), round(k * (width - 1) / scale)) for k in chosen]
    return list(dict.fromkeys(pairs))


def _described(profiles: Floats) -> tuple[Floats, Floats]:
    """Median, and standard deviation of the envelope, of profiles ``(n, S)`` of the squared gradient.

    Quantiles, because a faint energy far away moves a mean and a variance, and says nothing of where a cell looks.
    """
    size = profiles.shape[1]
    edges = np.arange(size + 1) - 0.5
    centres, sigmas = np.empty(len(profiles)), np.empty(len(profiles))
    for number, profile in enumerate(profiles):
        total = profile.sum()
        if not total > 0:  # nothing moves this cell: it may look anywhere
            centres[number], sigmas[number] = (size - 1) / 2, size / 2
            continue
        below = np.concatenate([[0.0], np.cumsum(profile) / total])
        low, centres[number], high = np.interp([0.1587, 0.5, 0.8413], below, edges)
        sigmas[number] = (high - low) / 2**0.5
    return centres, sigmas
