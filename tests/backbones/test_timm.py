"""What timm's networks promise, convolutional, hierarchical and plain alike; random weights, nothing is downloaded."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.backbones import Backbone, load_backbone, load_truncated
from tuner.closed_form.fwrf import fit_fwrf
from tuner.encoder import Encoder, load_encoder, save_encoder
from tuner.errors import InputError
from tuner.features.extract import extract
from tuner.features.normalize import Moments, pooling
from tuner.readouts import FeatureShape, get
from tuner.recordings.images import PreparedImages
from tuner.recordings.sources import ArrayImages

pytest.importorskip("timm")

# network and side of the images, px: the smallest of each kind
MEMBERS = {
    "vit_tiny_patch16_224": 64,
    "vit_small_patch14_reg4_dinov2": 56,  # DINOv2 with registers
    "vit_xsmall_patch16_clip_224": 64,  # a CLIP tower
    "deit_tiny_distilled_patch16_224": 64,  # two tokens before the patches
    "eva02_tiny_patch14_224": 56,  # rotary positions
    "vit_tiny_r_s16_p8_224": 128,  # patches of a residual network's maps
    "swin_s3_tiny_224": 64,
    "mvitv2_tiny": 64,  # hands on its grid's size beside the tokens
    "xcit_nano_12_p16_224": 64,
    "hiera_tiny_224": 64,  # keeps patches that attend together together
    "tnt_s_patch16_224": 64,  # hands on tokens of pixels before those of patches
    "coat_lite_tiny": 64,  # modules at several paths
    "mobilevit_xxs": 64,
    "convnext_atto": 64,
    "resnet10t": 64,
    "efficientnet_b0": 64,
}


UNIT = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@cache
def loaded(name: str) -> Backbone:
    return load_backbone(f"timm/{name}", "random", image_size=MEMBERS[name])


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> tuple[Backbone, int]:
    return loaded(request.param), MEMBERS[request.param]


def pictures(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.rand(count, 3, size, size, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=size, mode="nearest") + fine) / 2


def test_layers_are_what_the_library_calls_its_features(member: tuple[Backbone, int]) -> None:
    backbone, size = member
    images = pictures(2, size)
    described = backbone.describe("all", size)
    found = backbone.features(images, backbone.layers)
    forward = backbone.module.forward_intermediates
    options = {"norm": False} if "norm" in inspect.signature(forward).parameters else {}
    with torch.no_grad():
        expected = forward(
            backbone.preprocess(images), intermediates_only=True, output_fmt="NCHW", **options
        )
    assert len(expected) == len(described) == len(backbone.layers)
    assert [info.index for info in described] == list(range(len(described)))
    for info, one in zip(described, expected, strict=True):
        assert found[info.name].shape == (2, info.channels, info.height, info.width)
        torch.testing.assert_close(found[info.name], one, rtol=1e-4, atol=1e-4)


def test_a_patch_moved_by_a_cell_moves_the_map_by_a_cell(member: tuple[Backbone, int]) -> None:
    backbone, size = member
    (info,) = backbone.describe([backbone.layers[0]], size)
    cell = size // info.width
    row, column = info.height // 2, info.width // 4

    def strongest(row: int, column: int) -> tuple[int, int]:
        images = torch.full((2, 3, size, size), 0.5)
        generator = torch.Generator().manual_seed(1)
        patch = torch.rand(3, cell, cell, generator=generator)
        images[1, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = patch
        blank, shown = backbone.features(images, [info.name])[info.name]
        change = (shown - blank).norm(dim=0)
        y, x = divmod(int(change.argmax()), info.width)
        return y, x

    start = strongest(row, column)
    assert abs(start[0] - row) <= 1 and abs(start[1] - column) <= 1  # noqa: PT018 - one place
    assert strongest(row + 1, column) == (start[0] + 1, start[1])
    assert strongest(row, column + 1) == (start[0], start[1] + 1)


def test_an_image_does_not_depend_on_its_company(member: tuple[Backbone, int]) -> None:
    backbone, size = member
    images, last = pictures(3, size), backbone.layers[-1]
    together = backbone.features(images, [last])[last]
    torch.testing.assert_close(
        backbone.features(images.flip(0), [last])[last].flip(0), together, rtol=1e-4, atol=1e-4
    )
    others = torch.cat([images[:1], torch.zeros_like(images[1:])])
    torch.testing.assert_close(
        backbone.features(others, [last])[last][0], together[0], rtol=1e-4, atol=1e-4
    )


def test_truncated_equals_whole_and_only_the_needed_part_runs(
    member: tuple[Backbone, int],
) -> None:
    backbone, size = member
    layer = backbone.layers[len(backbone.layers) // 2]
    images = pictures(1, size)
    ran: list[str] = []
    handles = [
        part.register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
        for name, part in backbone.module.named_modules()
    ]
    whole = backbone.features(images, [layer])[layer]
    for handle in handles:
        handle.remove()
    assert ran[-1] == layer
    assert not any(
        name == later for later in backbone.layers[len(backbone.layers) // 2 + 1 :] for name in ran
    )
    rebuilt = load_truncated(
        backbone.name, backbone.truncated_state(layer), [layer], image_size=size
    )
    assert torch.equal(rebuilt.features(images, [layer])[layer], whole)
    assert rebuilt.digest_upto(layer) == backbone.digest_upto(layer)


def encoder_on(backbone: Backbone, layer: str, size: int) -> Encoder:
    """Two units of random weights."""
    (info,) = backbone.describe([layer], size)
    kernel, grid = pooling(info.height, info.width, 28)
    raw = backbone.features(pictures(4, size), [layer])[layer]
    shapes = get("full").parameter_shapes(FeatureShape(info.channels, *grid), 2)
    generator = torch.Generator().manual_seed(0)
    return Encoder(
        backbone=backbone,
        layer=layer,
        normalization=Moments.of(raw).normalization(
            rectified=info.rectified, kernel=kernel, grid=grid
        ),
        readout="full",
        parameters={k: torch.randn(s, generator=generator) for k, s in shapes.items()},
        response_mean=torch.zeros(2),
        response_scale=torch.ones(2),
        loss="mse",
        image_size=size,
        weights="random",
    )


def test_encoders_come_back_and_images_climb(member: tuple[Backbone, int], tmp_path: Path) -> None:
    backbone, size = member
    encoder = encoder_on(backbone, backbone.layers[0], size)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    save_encoder(tmp_path / "e", encoder, check_images=pixels, with_backbone=True)
    again = load_encoder(tmp_path / "e")
    image = pictures(1, size)
    with torch.no_grad():
        torch.testing.assert_close(again(image), encoder(image))
    image.requires_grad_(True)
    before = encoder(image)[0, 0]
    (gradient,) = torch.autograd.grad(before, image)
    assert torch.isfinite(gradient).all()
    with torch.no_grad():
        climbed = encoder(image + 1e-3 * gradient / gradient.norm())[0, 0]
    assert float(climbed) > float(before.detach())


def test_attention_sees_the_whole_image_and_says_so() -> None:
    vit = loaded("vit_tiny_patch16_224").describe("all", 64)
    assert all(info.whole_image and info.receptive_field == 64 for info in vit)
    swin = loaded("swin_s3_tiny_224").describe("all", 64)
    assert all(info.whole_image for info in swin)
    convolutional = loaded("resnet10t").describe("all", 64)
    assert [info.receptive_field for info in convolutional][0] == 11
    assert not any(info.whole_image for info in convolutional)


def test_the_class_token_is_a_map_of_one_cell() -> None:
    name = "timm/vit_tiny_patch16_224"
    backbone = load_backbone(name, "random", tokens="class")
    images = pictures(2, 64)
    found = backbone.features(images, ["blocks.3"])["blocks.3"]
    kept: list[Tensor] = []
    handle = backbone.module.blocks[3].register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        backbone.module(backbone.preprocess(images))
    handle.remove()
    assert torch.equal(found[:, :, 0, 0], kept[0][:, 0])
    assert found.shape == (2, 192, 1, 1)
    assert len(backbone.layers) == 12
    assert backbone.digest != loaded("vit_tiny_patch16_224").digest
    with pytest.raises(InputError, match='tokens is "class", and it has no class token'):
        load_backbone("timm/resnet10t", "random", tokens="class").resolve("all", 64)


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [("vit_tiny_patch16_224", 100, "96 and 112"), ("vit_tiny_r_s16_p8_224", 200, "192 and 224")],
)
def test_sizes_that_patches_do_not_cover_are_refused(name: str, size: int, near: str) -> None:
    with pytest.raises(InputError, match=f"image_size {size} is no multiple .* nearest are {near}"):
        loaded(name).resolve("all", size)


def test_a_network_built_for_one_size_says_so() -> None:
    with pytest.raises(InputError, match="built for images of 64 px, not of 96"):
        loaded("mvitv2_tiny").resolve("all", 96)
    with pytest.raises(InputError, match="built for images of 64 px, not of 96 x 96 px"):
        loaded("mvitv2_tiny").features(pictures(1, 96), ["stages.0"])


def test_positions_are_interpolated() -> None:
    backbone = loaded("vit_tiny_patch16_224")
    assert backbone.module.pos_embed.shape[1] == 1 + 14**2
    assert {info.height for info in backbone.describe("all", 96)} == {6}
    assert backbone.features(pictures(1, 96), ["blocks.0"])["blocks.0"].shape == (1, 192, 6, 6)


def test_its_own_input_range_and_weights_of_a_file(tmp_path: Path) -> None:
    import timm

    clip = loaded("vit_xsmall_patch16_clip_224")
    assert clip.preprocessing.mean[0] == pytest.approx(0.48145466)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    name = "timm/vit_tiny_patch16_224"
    with pytest.raises(
        InputError, match=r"need mean and std.*ImageNet's are mean = \[0.485, 0.456"
    ):
        load_backbone(name, tmp_path / "own.pth")
    backbone = load_backbone(name, tmp_path / "own.pth", mean=(0.5,) * 3, std=(0.25,) * 3)
    assert torch.equal(backbone.module.blocks[2].mlp.fc1.weight, network.blocks[2].mlp.fc1.weight)
    assert torch.equal(backbone.preprocess(torch.ones(1, 3, 1, 1)), torch.full((1, 3, 1, 1), 2.0))


def test_weights_that_timm_saved_come_back(tmp_path: Path) -> None:
    """With the mean and std that it wrote beside them, named by their content, in either form."""
    import timm
    from timm.models import save_for_hf

    name = "timm/test_vit"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = timm.create_model("test_vit", num_classes=3).eval()
    save_for_hf(network, tmp_path, safe_serialization="both")
    own = {"mean": (0.4,) * 3, "std": (0.2,) * 3}
    config = tmp_path / "config.json"
    written = json.loads(config.read_text())
    written["pretrained_cfg"].update(own)
    config.write_text(json.dumps(written))
    images = pictures(2, 64)
    with torch.no_grad():
        expected = network.forward_intermediates(
            (images - 0.4) / 0.2, intermediates_only=True, norm=False
        )
    digests = set()
    for file in ("model.safetensors", "pytorch_model.bin"):
        backbone = load_backbone(name, tmp_path / file)
        assert backbone.preprocessing.mean == pytest.approx((0.4,) * 3)
        found = backbone.features(images, backbone.layers)
        for one, other in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(one, other)
        digests.add(backbone.digest)
    assert len(digests) == 1
    # what is written in the config file comes first; what lies there for another network counts for nothing
    assert load_backbone(name, tmp_path / file, **UNIT).preprocessing.mean == (0.0,) * 3
    config.write_text(json.dumps(written | {"architecture": "resnet18"}))
    with pytest.raises(InputError, match="need mean and std"):
        load_backbone(name, tmp_path / file)
    config.write_text("{}")
    with pytest.raises(InputError, match="need mean and std"):
        load_backbone(name, tmp_path / file)
    config.write_text("[]")
    with pytest.raises(InputError, match=r"config.json does not hold the mean and std"):
        load_backbone(name, tmp_path / file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/vit_tiny_patch16", "similar: timm/vit_tiny_patch16_224"),
        ("timm/resnet18.no_such_tag", "similar: timm/resnet18.a1_in1k"),
    ],
)
def test_unknown_names_are_answered_with_similar_ones(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_without_a_network_the_place_of_the_weights_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match="TUNER_OFFLINE forbids the download; get model.safetensors"
    ):
        load_backbone("timm/vit_small_patch14_dinov2.lvd142m")


def test_layers_inside_blocks_and_what_is_no_map() -> None:
    backbone = loaded("vit_tiny_patch16_224")
    assert backbone.resolve(["blocks.2.attn", "blocks.0"], 64) == ("blocks.0", "blocks.2.attn")
    with pytest.raises(InputError, match="returns tokens or a vector, not a map"):
        backbone.resolve(["fc_norm"], 64)


def test_a_unit_planted_on_a_patch_token_is_found() -> None:
    """Its block, its place, and what it reads of each channel."""
    backbone = loaded("vit_tiny_patch16_224")
    layers, planted, cell = ("blocks.1", "blocks.5", "blocks.9"), "blocks.5", (2, 1)
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (500, 8, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    features = extract(
        backbone, layers, PreparedImages(ArrayImages(coarse), 64), max_grid=0, cache=None
    )
    weights = rng.standard_normal(192) * (rng.random(192) < 0.2)
    signal = np.asarray(features[planted].train[:, :, cell[0], cell[1]], dtype=np.float64) @ weights
    responses = signal + 0.3 * signal.std() * rng.standard_normal(len(signal))
    target = ((responses - responses.mean()) / responses.std())[:, None]
    rows = np.arange(len(target))
    fits = {
        layer: fit_fwrf(features[layer].train, target, rows, others=rows[:0], weights=True)
        for layer in layers
    }
    losses = {layer: float(fit.left_out_loss[0]) for layer, fit in fits.items()}
    assert min(losses, key=lambda layer: losses[layer]) == planted
    mask = fits[planted].masks[0]
    assert divmod(int(mask.argmax()), mask.shape[1]) == cell
    found = fits[planted].parameters["features"][0].numpy()
    assert np.corrcoef(found, weights)[0, 1] > 0.9
