"""Half precision: close to single, part of every name, and kept by encoders; on a CPU, where bfloat16 is there too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.features.tiny import Pictures, Tiny
from tuner.backbones import Backbone, load_backbone
from tuner.backbones.precision import Precision, computing
from tuner.backbones.preprocessing import IMAGENET
from tuner.backbones.weights import initialise
from tuner.encoder import Encoder, load_encoder, save_encoder
from tuner.errors import InputError
from tuner.features.extract import extract
from tuner.features.layout import feature_key
from tuner.readouts import FeatureShape, get


def tiny(precision: Precision) -> Backbone:
    family = Tiny()
    module = family.build("tiny")
    initialise(module, 0)
    return Backbone("tiny", module, IMAGENET, family, precision=precision)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 3e-2), ("float16", 4e-3)])
def test_half_is_close_to_single(precision: Precision, tolerance: float) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    exact = tiny("float32").features(images, ["third"])["third"]
    half = tiny(precision).features(images, ["third"])["third"]
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert float((half - exact).norm() / exact.norm()) < tolerance


def test_features_in_half_precision_have_names_of_their_own() -> None:
    pictures, half, full = Pictures(40), tiny("bfloat16"), tiny("float32")
    assert half.digest != full.digest
    assert half.digest_upto("third") != full.digest_upto("third")
    assert feature_key(half, "third", pictures, 4) != feature_key(full, "third", pictures, 4)
    (one,) = extract(half, ["third"], pictures, max_grid=4, cache=None).values()
    (other,) = extract(full, ["third"], pictures, max_grid=4, cache=None).values()
    both = (
        torch.from_numpy(one.train).float().flatten(),
        torch.from_numpy(other.train).float().flatten(),
    )
    assert float(torch.corrcoef(torch.stack(both))[0, 1]) > 0.999


def test_encoders_compute_as_their_features_were(tmp_path: Path) -> None:
    backbone = load_backbone("squeezenet1_1", "random", precision="bfloat16")
    pictures = Pictures(6, size=32)
    (found,) = extract(backbone, ["features.0"], pictures, max_grid=4, cache=None).values()
    shapes = get("full").parameter_shapes(FeatureShape(*found.shape), 2)
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(
        backbone=backbone,
        layer="features.0",
        normalization=found.normalization,
        readout="full",
        parameters={k: torch.randn(s, generator=generator) for k, s in shapes.items()},
        response_mean=torch.zeros(2),
        response_scale=torch.ones(2),
        loss="mse",
        image_size=32,
        weights="random",
    )
    for embedded in (False, True):
        path = tmp_path / str(embedded)
        save_encoder(path, encoder, check_images=pictures.pixels[:2], with_backbone=embedded)
        again = load_encoder(path)
        assert again.backbone.precision == "bfloat16"
        image = torch.rand(1, 3, 32, 32, generator=generator).requires_grad_(True)
        torch.testing.assert_close(again(image), encoder(image))
        (gradient,) = torch.autograd.grad(again(image)[0, 0], image)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: False)
    with pytest.raises(
        InputError, match='does not compute in bfloat16; set backbone.precision = "float32" or "fl'
    ):
        computing("bfloat16", torch.device("cuda"))


class Fixed(nn.Module):
    """Takes images of 24 px alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 24 * 24, 4 * 24 * 24)
        self.back = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.head(self.stem(x).flatten(1))
        out: Tensor = self.back(flat.reshape(-1, 4, 24, 24))
        return out


def fixed() -> nn.Module:
    return Fixed()


def test_a_network_of_one_size_says_so() -> None:
    name = f"{__name__}:fixed"
    unit = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    assert "back" not in load_backbone(name, **unit).layers  # at 224 px it fails half way
    backbone = load_backbone(name, image_size=24, size=24, **unit)
    assert backbone.layers == ("stem", "back")
    assert backbone.features(torch.rand(1, 3, 24, 24), ["back"])["back"].shape == (1, 2, 24, 24)
    with pytest.raises(InputError, match="built for images of 24 px, not of 32 x 32"):
        backbone.features(torch.rand(1, 3, 32, 32), ["back"])
    with pytest.raises(InputError, match="size is 24 and data.image_size 32, .* make them equal"):
        load_backbone(name, image_size=32, size=24, **unit)
