"""Backbones that tests share; none of them downloads anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

from tuner.backbones import Backbone, load_backbone


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_OFFLINE", "1")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep small convolutions from waiting for threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _load(name: str) -> Backbone:
    return load_backbone(name, "imagenet" if name == "efficientnet_lite0" else "random")


@pytest.fixture(scope="session")
def backbone_named() -> Callable[[str], Backbone]:
    """Return a loader that builds each backbone once: random weights, unless some came along."""
    return _load


@pytest.fixture
def images() -> torch.Tensor:
    """Two images with structure at several scales, (2, 3, 64, 64) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(2, 3, 64, 64)
    for cells in (4, 16, 64):
        noise = torch.rand(2, 3, cells, cells, generator=generator)
        image += torch.nn.functional.interpolate(noise, size=64, mode="nearest")
    return image / 3
