"""What every backbone promises, whatever its family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tuner.backbones import Backbone, load_backbone, load_truncated
from tuner.errors import InputError

MEMBERS = (
    "efficientnet_lite0",
    "inceptionv1",
    "vgg19",
    "alexnet",
    "resnet18",
    "shufflenet_v2_x0_5",
)


@pytest.fixture(params=MEMBERS)
def backbone(request: pytest.FixtureRequest, backbone_named: Callable[[str], Backbone]) -> Backbone:
    return backbone_named(request.param)


def _hooks(backbone: Backbone) -> int:
    return sum(len(part._forward_hooks) for part in backbone.module.modules())


def test_is_frozen(backbone: Backbone) -> None:
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not any(part.training for part in backbone.module.modules())


def test_layers_are_described_as_they_come(backbone: Backbone, images: Tensor) -> None:
    described = backbone.describe("all", 64)
    features = backbone.features(images, backbone.layers)
    assert [info.name for info in described] == list(backbone.layers) == list(features)
    assert [info.index for info in described] == list(range(len(described)))
    for info in described:
        assert features[info.name].shape == (2, info.channels, info.height, info.width)
        assert info.rectified == backbone.rectified(info.name)
    costs = [info.macs for info in described]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_layers_respond_and_have_the_sign_that_is_said(backbone: Backbone, images: Tensor) -> None:
    for layer, values in backbone.features(images, backbone.layers).items():
        assert torch.isfinite(values).all(), layer
        assert 1e-4 < float(values.std()) < 1e4, layer
        assert bool((values >= 0).all()) == backbone.rectified(layer), layer


def test_a_layer_is_the_same_alone_and_among_others(backbone: Backbone, images: Tensor) -> None:
    together = backbone.features(images, backbone.layers)
    for layer in (backbone.layers[0], backbone.layers[len(backbone.layers) // 2]):
        alone = backbone.features(images, [layer])
        assert list(alone) == [layer]
        assert torch.equal(alone[layer], together[layer])


def test_an_image_does_not_depend_on_its_company(backbone: Backbone, images: Tensor) -> None:
    last = backbone.layers[-1]
    forwards = backbone.features(images, [last])[last]
    backwards = backbone.features(images.flip(0), [last])[last]
    assert torch.equal(forwards, backwards.flip(0))


def test_runs_only_up_to_the_deepest_layer(backbone: Backbone, images: Tensor) -> None:
    layer = backbone.layers[1]
    ran: list[str] = []
    handles = [
        part.register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
        for name, part in backbone.module.named_modules()
    ]
    try:
        backbone.features(images, [backbone.layers[0], layer])
    finally:
        for handle in handles:
            handle.remove()
    assert ran[-1] == layer
    assert backbone.layers[2] not in ran


def test_hooks_are_removed_whatever_happens(backbone: Backbone, images: Tensor) -> None:
    def fail(_layer: str, _output: Tensor) -> None:
        raise RuntimeError("on purpose")

    before = _hooks(backbone)
    backbone.features(images, backbone.layers[:2])
    with pytest.raises(RuntimeError, match="on purpose"):
        backbone.capture(images, backbone.layers[:2], fail)
    assert _hooks(backbone) == before


def test_gradients_reach_the_image(backbone: Backbone, images: Tensor) -> None:
    image = images.clone().requires_grad_(True)
    backbone.features(image, [backbone.layers[-1]])[backbone.layers[-1]].sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert float(image.grad.abs().max()) > 0


def test_training_mode_changes_nothing(backbone: Backbone, images: Tensor) -> None:
    last = backbone.layers[-1]
    expected = backbone.features(images, [last])[last]
    buffers = {name: value.clone() for name, value in backbone.module.named_buffers()}
    backbone.module.train()
    assert torch.equal(backbone.features(images, [last])[last], expected)
    for name, value in backbone.module.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_survives_being_truncated(backbone: Backbone, images: Tensor) -> None:
    layer = backbone.layers[len(backbone.layers) // 2]
    state = {name: value.clone() for name, value in backbone.truncated_state(layer).items()}
    whole = sum(value.numel() for value in backbone.module.state_dict().values())
    assert sum(value.numel() for value in state.values()) < whole
    rebuilt = load_truncated(backbone.name, state, [layer])
    expected = backbone.features(images, [layer])[layer]
    assert torch.equal(rebuilt.features(images, [layer])[layer], expected)
    assert rebuilt.digest_upto(layer) == backbone.digest_upto(layer)
    assert rebuilt.preprocessing == backbone.preprocessing
    assert rebuilt.describe([layer], 64)[0].receptive_field == (
        backbone.describe([layer], 64)[0].receptive_field
    )
    with pytest.raises(InputError):
        load_truncated(backbone.name, state, [backbone.layers[-1]])


def test_digest_names_the_weights(backbone: Backbone) -> None:
    def digests(seed: int) -> tuple[str, str]:
        loaded = load_backbone(backbone.name, "random", seed=seed)
        return loaded.digest, loaded.digest_upto(loaded.layers[0])

    again = digests(0)
    assert again == digests(0)
    assert not set(again) & set(digests(1))


def test_random_weights_leave_the_global_generator_alone(backbone: Backbone) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_backbone(backbone.name, "random", seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_unknown_layers_are_answered_with_the_valid_ones(backbone: Backbone) -> None:
    with pytest.raises(InputError) as caught:
        backbone.resolve([backbone.layers[0], "no_such_layer"], 64)
    message = str(caught.value)
    assert "no_such_layer" in message
    assert backbone.name in message
    assert all(layer in message for layer in backbone.layers)
    assert "\n" not in message


def test_layers_come_back_in_depth_order(backbone: Backbone) -> None:
    shuffled = [backbone.layers[2], backbone.layers[0], backbone.layers[1]]
    assert backbone.resolve(shuffled, 64) == backbone.layers[:3]
    assert backbone.resolve("all", 64) == backbone.layers
