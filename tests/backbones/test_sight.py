"""Where the cells of a layer look, against networks for which it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuner.backbones import Backbone, load_backbone
from tuner.backbones.family import Family
from tuner.backbones.preprocessing import Preprocessing
from tuner.backbones.sight import Sight, measure
from tuner.recordings.simulated.photographs import crops


class _OneSided(nn.Module):
    """A strided convolution that weighs one pixel of its window only: the first, at its upper left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5, stride=4, padding=2, bias=False)
        weight = torch.zeros_like(self.conv.weight)
        weight[:, :, 0, 0] = 1.0
        self.conv.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class _Plain(Family):
    """Of a network that is given as it is."""

    name = "plain"

    def names(self):
        return ("one-sided",)

    def build(self, name):
        return _OneSided()

    def source(self, name):
        raise NotImplementedError

    def canonical(self, name, module, traced):
        return ("conv",)


def _backbone(module: nn.Module) -> Backbone:
    return Backbone("one-sided", module, Preprocessing((0.0,) * 3, (1.0,) * 3), _Plain())


def test_a_cell_looks_where_its_weights_are_and_not_at_the_middle_of_its_window():
    network = _backbone(_OneSided())
    (info,) = network.describe(["conv"], 32)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    seen = measure(network, "conv", images)
    middles = info.offset + info.stride * np.arange(info.width)
    # the first cell's weighted pixel lies in the padding: nothing moves it
    np.testing.assert_allclose(seen.columns[1:], middles[1:] - 2, atol=0.01)
    np.testing.assert_allclose(seen.rows[1:], middles[1:] - 2, atol=0.01)
    assert (seen.column_sigmas[1:] < 1).all()


def test_trained_cells_look_up_and_left_of_the_middle_of_their_support():
    """As an audit measured it at 128 px, of cells in the middle of the image: 3.7 and 5.3 px."""
    network = load_backbone("efficientnet_lite0")
    photographs, _ = crops(6, 1, 128, seed=0)
    for layer, away in (("_blocks.4", -3.7), ("_blocks.5", -5.3)):
        seen = measure(network, layer, photographs.images)
        (info,) = network.describe([layer], 128)
        middles = info.offset + info.stride * np.arange(info.width)
        inner = slice(len(middles) // 2 - 1, len(middles) // 2 + 1)
        for places in (seen.rows, seen.columns):
            assert np.mean(places[inner] - middles[inner]) == pytest.approx(away, abs=1.5)
        assert (np.diff(seen.rows) > 0).all()
        # at the border half of the support is padding: the cell looks inwards of its middle
        assert seen.rows[-1] < 128 - 1
        assert seen.rows[0] > 0


def test_a_large_map_is_measured_near_its_borders_and_filled_in_between():
    network = _backbone(_OneSided())
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    seen = measure(network, "conv", images)
    assert len(seen.rows) == 24
    np.testing.assert_allclose(np.diff(seen.rows[1:]), 4.0, atol=0.01)


def test_places_between_and_beyond_cells():
    seen = Sight(
        rows=np.array([2.0, 10.0, 20.0]),
        columns=np.array([1.0, 9.0]),
        row_sigmas=np.array([1.0, 2.0, 3.0]),
        column_sigmas=np.array([2.0, 4.0]),
    )
    x, y = seen.place(np.array([0.5, -0.5, 2.5]), np.array([0.5, -0.5, 2.0]))
    assert x.tolist() == [5.0, -3.0, 17.0]
    assert y.tolist() == [6.0, -2.0, 25.0]
    across, down = seen.size_at(np.array([5.0, 100.0]), np.array([6.0, -100.0]))
    assert across.tolist() == [3.0, 4.0]
    assert down.tolist() == [1.5, 1.0]
    assert seen.steps_at(np.array([1.0]), np.array([0.5]))[1].tolist() == [9.0]
