"""Receptive fields from tracing, against windows worked out by hand and measured by gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.backbones import Backbone
from tuner.backbones.trace import trace
from tuner.backbones.views import Window

Load = Callable[[str], Backbone]


class Bare(nn.Module):
    """Branches, padding by hand and bare functions, as converted networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, stride=2)
        self.wide = nn.Conv2d(4, 2, (1, 7), padding=(0, 3))
        self.dilated = nn.Conv2d(4, 2, 3, dilation=2, padding="same")
        self.joined = nn.Identity()
        self.mixed = nn.ReLU(inplace=True)
        self.gate = nn.Conv2d(4, 4, 1)
        self.scaled = nn.Identity()
        self.gone = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(functional.pad(x, (1, 2, 1, 2)))
        x = self.joined(torch.cat([self.wide(x), self.dilated(x)], 1))
        x = self.mixed(x)
        x = self.scaled(x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1))))
        x = functional.avg_pool2d(x, 2)
        return self.gone(x.flatten(2).transpose(1, 2))


def test_windows_by_hand() -> None:
    found = trace(Bare().eval(), 32)
    assert found["stem"].window == Window((-1, -1), (3, 3), (2, 2))
    assert found["wide"].window == Window((-1, -7), (3, 9), (2, 2))
    assert found["dilated"].window == Window((-5, -5), (7, 7), (2, 2))
    # a concatenation sees what any of its branches sees
    assert found["joined"].window == Window((-5, -7), (7, 9), (2, 2))
    # a gate scales channels by the whole image and is not counted
    assert found["gate"].window is None
    assert found["scaled"].window == found["joined"].window
    assert found["gone"].shape is None
    assert found["stem"].shape == (4, 16, 16)


def test_signs() -> None:
    found = trace(Bare().eval(), 32)
    assert not found["joined"].nonnegative  # although a ReLU overwrites it afterwards
    assert found["mixed"].nonnegative
    assert found["scaled"].nonnegative
    clipped = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU6(), nn.Hardtanh(-1, 1), nn.MaxPool2d(2))
    signs = [entry.nonnegative for entry in trace(clipped.eval(), 8).values()]
    assert signs == [False, True, False, False]
    pooled = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(2))
    signs = [entry.nonnegative for entry in trace(pooled.eval(), 8).values()]
    assert signs == [False, True, True, False]


def test_stops_where_told_and_where_it_must() -> None:
    assert list(trace(Bare().eval(), 32, upto=["wide"])) == ["stem", "wide"]
    network = nn.Sequential(nn.Conv2d(3, 2, 5), nn.Conv2d(2, 2, 9), nn.Conv2d(2, 2, 1))
    assert list(trace(network.eval(), 10)) == ["0"]


def _support(backbone: Backbone, layer: str, size: int, cell: int) -> tuple[int, int, int, int]:
    """First and last pixel (y, x) that moves a cell, over random images, by gradient."""
    generator = torch.Generator().manual_seed(1)
    seen = torch.zeros(size, size, dtype=torch.bool)
    for _ in range(3):
        image = torch.rand(4, 3, size, size, generator=generator, requires_grad=True)
        output = backbone.features(image, [layer])[layer][:, :, cell, cell]
        mix = torch.rand(output.shape, generator=generator)
        (gradient,) = torch.autograd.grad((output * mix).sum(), image)
        seen |= (gradient.abs().amax((0, 1)) > 0).bool()
    rows, columns = torch.where(seen.any(1))[0], torch.where(seen.any(0))[0]
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vgg19", "features.10"),
        ("inceptionv1", "conv2d2"),
        ("inceptionv1", "mixed3a"),
        ("efficientnet_lite0", "_blocks.1"),
        ("efficientnet_lite0", "_blocks.3"),
        ("resnet18", "layer1"),
        ("alexnet", "features.3"),
    ],
)
def test_the_gradient_agrees(backbone_named: Load, name: str, layer: str) -> None:
    backbone, size = backbone_named(name), 96
    (info,) = backbone.describe([layer], size)
    cell = info.height // 2
    top, bottom, left, right = _support(backbone, layer, size, cell)
    assert (top, bottom) == (left, right)
    centre = info.offset + cell * info.stride
    half = (info.receptive_field - 1) / 2
    assert centre - half > 0
    assert centre + half < size - 1
    # nothing outside; inside, a maximum may leave a rim of a pixel or two without gradient
    assert centre - half <= left <= centre - half + 2
    assert centre + half - 2 <= right <= centre + half


def test_a_module_at_two_paths_and_a_weight_of_two_modules_keep_their_numbers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 3, 3, padding=1)
            self.two = nn.Sequential(self.one, nn.ReLU())  # the same module, as in CoaT
            self.three = nn.Conv2d(3, 3, 3, padding=1)
            self.three.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.three(self.two(x))
            return out

    module = Shared()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert trace(module, 16)["three"].shape == (3, 16, 16)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert module.three.weight is module.one.weight
