"""Features of images at the layers of a backbone: extracted once, kept, read in batches.

The extraction itself is ``tuner.features.extract.extract``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.features.cache import FeatureCache
    from tuner.features.extract import LayerFeatures
    from tuner.features.layout import Layout, feature_key, layouts
    from tuner.features.normalize import Normalization
    from tuner.features.tiers import (
        FeatureStore,
        RecomputeStore,
        choose_tier,
        open_store,
    )

__all__ = [
    "FeatureCache",
    "FeatureStore",
    "LayerFeatures",
    "Layout",
    "Normalization",
    "RecomputeStore",
    "choose_tier",
    "feature_key",
    "layouts",
    "open_store",
]

_HOME = {
    "FeatureCache": "cache",
    "FeatureStore": "tiers",
    "LayerFeatures": "extract",
    "Layout": "layout",
    "Normalization": "normalize",
    "RecomputeStore": "tiers",
    "choose_tier": "tiers",
    "feature_key": "layout",
    "layouts": "layout",
    "open_store": "tiers",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; a command's help should not wait for it
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
