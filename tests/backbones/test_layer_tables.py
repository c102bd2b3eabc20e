"""Shapes, receptive fields and centres of the three main backbones, from published tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tuner.backbones import Backbone, LayerInfo

Load = Callable[[str], Backbone]

# layer: receptive field, stride, channels, side at 224 px
VGG19 = {
    "features.0": (3, 1, 64, 224),
    "features.2": (5, 1, 64, 224),
    "features.5": (10, 2, 128, 112),
    "features.7": (14, 2, 128, 112),
    "features.10": (24, 4, 256, 56),
    "features.12": (32, 4, 256, 56),
    "features.14": (40, 4, 256, 56),
    "features.16": (48, 4, 256, 56),
    "features.19": (68, 8, 512, 28),
    "features.21": (84, 8, 512, 28),
    "features.23": (100, 8, 512, 28),
    "features.25": (116, 8, 512, 28),
    "features.28": (156, 16, 512, 14),
    "features.30": (188, 16, 512, 14),
    "features.32": (220, 16, 512, 14),
    "features.34": (252, 16, 512, 14),
}
# the last number: how far padding moves the centre right and down of the cell's centre
INCEPTIONV1 = {
    "conv2d0": (7, 2, 64, 112, 0.5),
    "conv2d1": (11, 4, 64, 56, 1.5),
    "conv2d2": (19, 4, 192, 56, 1.5),
    "mixed3a": (59, 8, 256, 28, 3.5),
    "mixed3b": (91, 8, 480, 28, 3.5),
    "mixed4a": (171, 16, 508, 14, 7.5),
    "mixed4b": (235, 16, 512, 14, 7.5),
    "mixed4c": (299, 16, 512, 14, 7.5),
    "mixed4d": (363, 16, 528, 14, 7.5),
    "mixed4e": (427, 16, 832, 14, 7.5),
    "mixed5a": (587, 32, 832, 7, 15.5),
    "mixed5b": (715, 32, 1024, 7, 15.5),
}
# channels, side at 64 px, side at 224 px, receptive field
LITE0 = (
    (16, 32, 112, 7),
    (24, 16, 56, 11),
    (24, 16, 56, 19),
    (40, 8, 28, 35),
    (40, 8, 28, 67),
    (80, 4, 14, 83),
    (80, 4, 14, 115),
    (80, 4, 14, 147),
    (112, 4, 14, 211),
    (112, 4, 14, 275),
    (112, 4, 14, 339),
    (192, 2, 7, 403),
    (192, 2, 7, 531),
    (192, 2, 7, 659),
    (192, 2, 7, 787),
    (320, 2, 7, 851),
)


def _excess(info: LayerInfo) -> float:
    """How far the receptive field's centre lies from the centre of the cell's own pixels."""
    return info.offset - (info.stride - 1) / 2


@pytest.mark.parametrize("size", [64, 224])
def test_vgg19(backbone_named: Load, size: int) -> None:
    infos = backbone_named("vgg19").describe("all", size)
    assert [info.name for info in infos] == list(VGG19)
    for info in infos:
        field, stride, channels, side = VGG19[info.name]
        assert (info.receptive_field, info.stride, info.channels) == (field, stride, channels)
        assert info.height == info.width == side * size // 224
        assert _excess(info) == 0  # padding is even
        assert not info.rectified


@pytest.mark.parametrize("size", [64, 224, 256])
def test_inceptionv1(backbone_named: Load, size: int) -> None:
    infos = backbone_named("inceptionv1").describe("all", size)
    assert [info.name for info in infos] == list(INCEPTIONV1)
    for info in infos:
        field, stride, channels, side, excess = INCEPTIONV1[info.name]
        assert (info.receptive_field, info.stride, info.channels) == (field, stride, channels)
        assert info.height == info.width == side * size // 224
        assert _excess(info) == excess
        assert info.rectified


@pytest.mark.parametrize("size", [64, 224])
def test_efficientnet_lite0(backbone_named: Load, size: int) -> None:
    infos = backbone_named("efficientnet_lite0").describe("all", size)
    assert [info.name for info in infos] == [f"_blocks.{i}" for i in range(16)]
    for info, (channels, small, large, field) in zip(infos, LITE0, strict=True):
        side = small if size == 64 else large
        assert (info.channels, info.height, info.width) == (channels, side, side)
        assert info.receptive_field == field
        assert info.stride == 224 // large
        assert _excess(info) == {2: 0.5, 4: 1.5, 8: 3.5, 16: 7.5, 32: 15.5}[info.stride]
        assert not info.rectified


def test_costs(backbone_named: Load) -> None:
    infos = backbone_named("vgg19").describe("all", 224)
    pixels = 224 * 224
    assert infos[0].macs == 3 * 64 * 9 * pixels
    assert infos[1].macs - infos[0].macs == 64 * 64 * 9 * pixels
    # 19.6 billion multiply-adds in all are usually given, 0.1 of them in the classifier
    assert infos[-1].macs == pytest.approx(19.5e9, rel=0.01)


def test_depth_order_is_that_of_execution(backbone_named: Load) -> None:
    # lucent registers all convolutions before the layers that end in them
    registered = [name for name, _ in backbone_named("inceptionv1").module.named_modules()]
    assert registered.index("mixed3a_pool_reduce_pre_relu_conv") < registered.index("conv2d0")
    wanted = ["mixed3a", "mixed3a_5x5", "conv2d2", "mixed3a_pool_reduce_pre_relu_conv"]
    resolved = backbone_named("inceptionv1").resolve(wanted, 64)
    assert resolved[0] == "conv2d2"
    assert resolved[-1] == "mixed3a"
    index = [info.index for info in backbone_named("inceptionv1").describe(wanted, 64)]
    assert index == sorted(index)
    assert len(set(index)) == 4
