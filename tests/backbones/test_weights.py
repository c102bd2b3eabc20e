"""Weights files: the right ones are taken as they come, the wrong ones named in one line."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import tuner.backbones
from tuner.backbones import Backbone
from tuner.backbones.preprocessing import IMAGENET
from tuner.errors import InputError

Load = Callable[[str], Backbone]
State = dict[str, Tensor]

NAME = "squeezenet1_1"  # small
load_backbone = partial(tuner.backbones.load_backbone, mean=IMAGENET.mean, std=IMAGENET.std)


@pytest.fixture
def state() -> State:
    """A whole state dict, classifier and all, as torchvision would save it."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return dict(torchvision.models.get_model(NAME, weights=None).state_dict())


@pytest.fixture
def expected(state: State, tmp_path: Path) -> Backbone:
    torch.save(state, tmp_path / "plain.pth")
    return load_backbone(NAME, tmp_path / "plain.pth")


def test_the_weights_of_the_file_are_used(expected: Backbone, state: State) -> None:
    for name, value in expected.module.state_dict().items():
        assert torch.equal(value, state[name])
    assert expected.digest != load_backbone(NAME, "random").digest


def _prefixed(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def _partly(state: State) -> State:
    return {name.replace("features.", "features.module."): v for name, v in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 90, "best_acc1": 0.5},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": _prefixed(s)},
        _prefixed,
        _partly,
        lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
        lambda s: {name: value.double() for name, value in s.items()},
    ],
    ids=["nested", "model", "nested-parallel", "parallel", "partly-parallel", "compiled", "double"],
)
def test_ways_of_saving(
    expected: Backbone, state: State, tmp_path: Path, wrap: Callable[[State], Any]
) -> None:
    torch.save(wrap(state), tmp_path / "file.pt")
    assert load_backbone(NAME, tmp_path / "file.pt").digest == expected.digest


def test_old_torch_files_and_safetensors(expected: Backbone, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_backbone(NAME, tmp_path / "old.pth").digest == expected.digest
    save_file(state, tmp_path / "new.safetensors")
    assert load_backbone(NAME, str(tmp_path / "new.safetensors")).digest == expected.digest


def _ecoset(name: str, classes: int) -> State:
    """A state dict of an architecture with another number of classes, cheap to store."""
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return {
        key: torch.full((), 0.01, dtype=value.dtype).expand(value.shape)
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg16_bn", "resnet50"])
def test_565_classes(name: str, tmp_path: Path) -> None:
    torch.save(_prefixed(_ecoset(name, 565)), tmp_path / "ecoset.pth")
    backbone = load_backbone(name, tmp_path / "ecoset.pth")
    layer = backbone.layers[0]
    features = backbone.features(torch.rand(1, 3, 64, 64), [layer])[layer]
    assert torch.isfinite(features).all()
    assert all(bool((p == 0.01).all()) for p in list(backbone.module.parameters())[:3])


def _without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


WEIGHT = "features.3.squeeze.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: _without(s, WEIGHT), f"entry '{WEIGHT}' is missing (1 of 50 entries are)"),
        (lambda s: {**s, WEIGHT: torch.zeros(2, 3)}, f"entry '{WEIGHT}' has shape (2, 3), not"),
        (lambda s: {**s, "blocks.0.weight": torch.zeros(1)}, "entry 'blocks.0.weight' does not"),
        (lambda s: {**s, WEIGHT: torch.full_like(s[WEIGHT], torch.nan)}, "not finite"),
        (lambda s: {**s, WEIGHT: s[WEIGHT].to(torch.int8)}, "int8, not floating point"),
        (lambda s: {"conv1.weight": torch.zeros(1)}, "(50 of 50 entries are)"),
        (lambda s: {}, "an empty dict"),
        (lambda s: [1, 2], "holds list, not a state dict"),
        (lambda s: torch.zeros(3), "holds Tensor, not a state dict"),
        (lambda s: {"state_dict": {"a": 1}}, "whose entry 'a' is no tensor"),
        (lambda s: {"weights": 3.0}, "whose entry 'weights' is no tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_do_not_fit(
    state: State, tmp_path: Path, change: Callable[[State], Any], message: str
) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(change(state), path)
    with pytest.raises(InputError) as caught:
        load_backbone(NAME, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class _Boom:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(state: State, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    files = {
        "module.pth": lambda path: torch.save(nn.Linear(2, 2), path),
        "boom.pth": lambda path: torch.save({**state, "x": _Boom(mark)}, path),
        "boom.pt": lambda path: torch.save(_Boom(mark), path, _use_new_zipfile_serialization=False),
        "bare.pkl": lambda path: path.write_bytes(pickle.dumps({"a": _Boom(mark)}, protocol=2)),
    }
    for name, write in files.items():
        write(tmp_path / name)
        with pytest.raises(InputError, match="refused") as caught:
            load_backbone(NAME, tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.ReLU()), tmp_path / "script.pt")
    with pytest.raises(InputError, match=r"script\.pt is a TorchScript archive.*refused"):
        load_backbone(NAME, tmp_path / "script.pt")


def test_damaged_files(state: State, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    files = {
        "empty.pth": b"",
        "half.pth": content[: len(content) // 2],
        "legacy.pth": legacy.getvalue()[: len(content) // 3],
        "text.pth": b"<html>404 not found</html>",
        "zeros.pt": bytes(1000),
        "half.safetensors": tensors[: len(tensors) // 2],
        "empty.safetensors": b"",
        "wrong.safetensors": content,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            load_backbone(NAME, tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.pth does not exist"):
        load_backbone(NAME, tmp_path / "nothing.pth")
    with pytest.raises(InputError, match="is a folder"):
        load_backbone(NAME, tmp_path)
    with pytest.raises(InputError, match='"imagenet", "random" or the path'):
        load_backbone(NAME, "imagnet")
