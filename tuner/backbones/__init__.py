"""Frozen networks that turn images into feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.backbones.backbone import Backbone, LayerInfo
    from tuner.backbones.preprocessing import Preprocessing
    from tuner.backbones.registry import (
        backbone_names,
        list_backbones,
        load_backbone,
        load_truncated,
    )

__all__ = [
    "Backbone",
    "LayerInfo",
    "Preprocessing",
    "backbone_names",
    "list_backbones",
    "load_backbone",
    "load_truncated",
]

_HOME = {
    "Backbone": "backbone",
    "LayerInfo": "backbone",
    "Preprocessing": "backbone",
    "backbone_names": "registry",
    "list_backbones": "registry",
    "load_backbone": "registry",
    "load_truncated": "registry",
}


def __getattr__(name: str) -> Any:
    # torch and torchvision take seconds to import; a command's help should not wait for them
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
