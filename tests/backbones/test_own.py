"""Networks of one's own, and what every network has to beat: pixels and Gabor filters."""

from __future__ import annotations

import math
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from tuner.backbones import list_backbones, load_backbone
from tuner.backbones.functions import beside
from tuner.encoder import load_encoder
from tuner.errors import InputError

MODULE = '''
import torch
from torch import nn
from torchvision.transforms import Compose, Normalize


class Patches(nn.Module):
    """Patches of 8 px as tokens behind a class token, mixed once."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 8, stride=8)
        self.mix = nn.Linear(6, 6)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.mix(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))


def plain():
    return Patches()


def with_transform():
    return Patches(), Compose([Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))])


def wrong():
    return 3


def failing():
    raise OSError("no weights there")
'''
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_networks_for_tests.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "own_networks_for_tests", raising=False)
    return tmp_path


def test_a_function_beside_the_config_file(folder: Path) -> None:
    with beside(folder):
        backbone = load_backbone("own_networks_for_tests:with_transform")
        again = load_backbone("own_networks_for_tests:with_transform")
    assert str(folder) not in sys.path
    assert backbone.preprocessing.mean == (0.5, 0.4, 0.3)
    assert backbone.digest == again.digest  # its weights are drawn, and the same each time
    images = torch.rand(2, 3, 32, 32)
    (info,) = backbone.describe(["mix"], 32)
    assert (info.channels, info.height, info.width, info.whole_image) == (6, 4, 4, True)
    tokens = backbone.module(backbone.preprocess(images))
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, 6, 4, 4)
    assert torch.equal(backbone.features(images, ["mix"])["mix"], expected)
    assert load_backbone("own_networks_for_tests:plain", "random", **UNIT).digest != again.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_networks_for_tests:plain", r"needs mean and std.*\[0.485, 0.456, 0.406\]"),
        ("own_networks_for_tests:wrong", "returned int; it must return an nn.Module"),
        ("own_networks_for_tests:failing", r"the function failed \(OSError: no weights there"),
        ("own_networks_for_tests:nothing", "has no 'nothing'"),
        ("no_such_module_anywhere:f", "'no_such_module_anywhere' is not installed nor in"),
    ],
)
def test_functions_that_cannot_be_used(folder: Path, name: str, message: str) -> None:
    with beside(folder), pytest.raises(InputError, match=message):
        load_backbone(name)


def test_weights_of_a_file_go_into_a_function_s_network(folder: Path) -> None:
    with beside(folder):
        other = load_backbone("own_networks_for_tests:plain", "random", seed=5, **UNIT)
        torch.save(other.module.state_dict(), folder / "w.pth")
        found = load_backbone("own_networks_for_tests:plain", folder / "w.pth", **UNIT)
    assert torch.equal(found.module.mix.weight, other.module.mix.weight)


def test_installed_packages_offer_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("ours", "own_networks_for_tests:with_transform", "tuner.backbones")
    monkeypatch.setattr("tuner.backbones.functions._offered", lambda: {"ours": entry})
    with beside(folder):
        assert load_backbone("ours").name == "ours"
    assert [row["name"] for row in list_backbones("our*")] == ["ours"]


def test_no_file_makes_a_module_be_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.backbones.test_timm import encoder_on
    from tuner.encoder import save_encoder

    with beside(folder):
        backbone = load_backbone("own_networks_for_tests:with_transform")
        pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8).numpy()
        encoder = encoder_on(backbone, "mix", 32)
        save_encoder(folder / "e", encoder, check_images=pixels, with_backbone=True)
        monkeypatch.delitem(sys.modules, "own_networks_for_tests")
        with pytest.raises(InputError, match="no code is run because a file names it"):
            load_encoder(folder / "e")
        assert "own_networks_for_tests" not in sys.modules
        images = torch.rand(1, 3, 32, 32)
        again = load_encoder(folder / "e", backbone=backbone)
    assert torch.equal(again(images), encoder(images))


def test_pixels_are_the_image() -> None:
    backbone = load_backbone("pixels")
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(backbone.features(images, ["pixels"])["pixels"], images)
    assert backbone.rectified("pixels")
    with pytest.raises(InputError, match="no weights to draw"):
        load_backbone("pixels", "random")


def gratings(wavelength: float, angle: float, phases: int = 8) -> torch.Tensor:
    axis = torch.arange(96, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    shifts = [2 * math.pi * k / phases for k in range(phases)]
    images = torch.stack(
        [0.5 + 0.4 * torch.cos(2 * math.pi * along / wavelength + s) for s in shifts]
    )
    return images[:, None].expand(-1, 3, -1, -1).float().contiguous()


@pytest.mark.parametrize("size", range(4))
def test_gabor_cells_prefer_their_wavelength_and_orientation(size: int) -> None:
    backbone = load_backbone("gabor")
    found = backbone.features(
        gratings([4.0, 8.0, 16.0, 32.0][size], 3 * math.pi / 8), backbone.layers
    )
    middle = {layer: maps[:, :, 12, 12] for layer, maps in found.items()}
    energy = middle["complex"]
    best = int(energy.mean(0).argmax())
    assert best == 8 * size + 3
    # a complex cell answers alike to all phases, a simple cell to its own and not to the opposite one
    assert float(energy[:, best].std() / energy[:, best].mean()) < 0.05
    simple = middle["simple"][:, best]
    assert float(simple.min()) == 0.0
    assert float(simple.max()) == pytest.approx(float(energy[:, best].mean()), rel=0.05)
    assert torch.equal(found["both"], torch.cat([found["simple"], found["complex"]], 1))
    assert all(backbone.rectified(layer) for layer in backbone.layers)


def test_a_bank_of_filters_sees_no_edge_in_grey() -> None:
    backbone = load_backbone("gabor")
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert float(backbone.features(grey, ["both"])["both"].max()) < 1e-4
    image = grey.clone().requires_grad_(True)
    backbone.features(image, ["complex"])["complex"].sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert isinstance(backbone.module, nn.Module)
