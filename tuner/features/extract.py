"""From images to the features of several layers: out of the cache, or by one sweep for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.backbones.backbone import Backbone
from tuner.errors import EnvironmentFailure, InputError
from tuner.features.cache import FeatureCache
from tuner.features.computed import ComputedFeatures
from tuner.features.entry import Entry
from tuner.features.layout import Images, chunk_images, feature_key, layouts
from tuner.features.normalize import Normalization
from tuner.features.partial import MemoryEntry, PartialEntry
from tuner.features.sweeps import Job, Sweeps
from tuner.features.tiers import RecomputeStore
from tuner.features.waiting import SMALL, Waiting, waiting
from tuner.progress import Progress

Half = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """One layer's features of all images.

    Attributes
    ----------
    layer
        Module path.
    normalization
        What turned the layer's output into these features.
    shape
        (C, h, w) per image.
    key
        Their name in the cache.
    train, test
        (n, C, h, w) half precision, mapped from disk where there is a cache, computed anew at every
        reading where a layer is bigger than the cache may be; ``test`` is None where there are no test
        images.
    """

    layer: str
    normalization: Normalization
    shape: tuple[int, int, int]
    key: str
    train: Half | ComputedFeatures
    test: Half | ComputedFeatures | None


def extract(
    backbone: Backbone,
    layers: Sequence[str],
    images: Images,
    test_images: Images | None = None,
    *,
    max_grid: int,
    cache: FeatureCache | None,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    progress: Progress | None = None,
    called: str | None = None,
) -> dict[str, LayerFeatures]:
    """Return the features of some layers, from the cache where they are there.

    Parameters
    ----------
    backbone
        Where the layers are; moved to ``device``.
    layers
        Module paths.
    images
        All images that are not test images; means and sds come from these.
    test_images
        Images that are only normalised.
    max_grid
        Maps are pooled to at most so many cells a side; 0 for never.
    cache
        Where features are kept; None keeps them in memory.
    device
        Where the backbone runs.
    batch_size
        Images per chunk; by default a number fixed by the image size.
    progress
        Called with a description, the images done and the images in all, both sweeps counted.
    called
        The backbone's name in that description, where it goes by another.

    Returns
    -------
    dict
        Layer to features, in depth order.

    Raises
    ------
    InputError
        If features are not finite, naming backbone and layer, or the cache limit is too small.
    EnvironmentFailure
        If the disk is full or the device has too little memory.
    """
    if len(images) == 0:
        raise InputError(f"backbone {backbone.name}: there are no images to extract features from")
    found = layouts(backbone, layers, images.size, max_grid)
    keys = {layer: feature_key(backbone, layer, images, max_grid, test_images) for layer in found}
    sources: dict[str, Images] = {"train": images}
    if test_images is not None and len(test_images):
        sources["test"] = test_images
    chunk = batch_size or chunk_images(images.size)
    job = Job(
        backbone, found, sources, chunk, torch.device(device), progress, called or backbone.name
    )
    if cache is None:
        return _in_memory(job, keys)
    kept = {n: made for n, made in found.items() if cache.holds(made.cached_bytes(job.n_images))}
    out = _cached(dataclasses.replace(job, layouts=kept), keys, cache) if kept else {}
    for layer, layout in found.items():
        if layer not in kept:
            alone = dataclasses.replace(job, layouts={layer: layout})
            out[layer] = _computed(alone, layer, keys[layer], cache)
    return {layer: out[layer] for layer in found}


def _in_memory(job: Job, keys: Mapping[str, str]) -> dict[str, LayerFeatures]:
    waits = _waiting(job, list(job.layouts), SMALL).layers
    sinks = {
        layer: MemoryEntry(_shapes(job, layer), job.chunk, waits=layer in waits)
        for layer in job.layouts
    }
    normalizations = Sweeps(job, sinks, nullcontext).run()
    return {
        layer: _features(job, layer, keys[layer], normalizations[layer], sink.arrays)
        for layer, sink in sinks.items()
    }


def _cached(job: Job, keys: Mapping[str, str], cache: FeatureCache) -> dict[str, LayerFeatures]:
    def look(layers: Iterable[str]) -> dict[str, Entry]:
        opened = {layer: cache.open(keys[layer]) for layer in layers}
        return {layer: entry for layer, entry in opened.items() if entry is not None}

    entries = look(job.layouts)
    missing = [layer for layer in job.layouts if layer not in entries]
    if missing:
        with cache.extracting([keys[layer] for layer in missing]):
            entries |= look(missing)  # another process may have been faster
            missing = [layer for layer in missing if layer not in entries]
            if missing:
                _fill(job, keys, cache, missing)
                entries |= look(missing)
    lost = [layer for layer in job.layouts if layer not in entries]
    if lost:
        raise EnvironmentFailure(
            f"the feature cache {cache.folder} lost the features of layer {lost[0]!r} as soon as "
            "they were written; check the disk"
        )
    return {
        layer: _features(
            job, layer, keys[layer], _normalization(entries[layer]), entries[layer].arrays
        )
        for layer in job.layouts
    }


def statistics_key(key: str) -> str:
    """Name of the entry with the statistics of a layer whose features are not kept."""
    return f"{key}-statistics"


def _computed(job: Job, layer: str, key: str, cache: FeatureCache) -> LayerFeatures:
    """A layer that the cache cannot hold: only its statistics are kept."""
    name = statistics_key(key)
    with cache.extracting([name]):
        entry = cache.open(name)
        if entry is None:
            empty = {"train": (0, *job.layouts[layer].shape)}
            with ExitStack() as stack:
                sink = cache.begin(name, _meta(job, layer), empty, job.chunk)
                stack.callback(sink.abandon)
                found = Sweeps(job, {layer: sink}, cache.writing).run(maps=False)[layer]
                state = {"mean": found.mean.tolist(), "sd": found.sd.tolist()}
                cache.finish(name, sink, {"normalization": state})
            entry = cache.open(name)
    if entry is None:
        raise EnvironmentFailure(
            f"the feature cache {cache.folder} lost the statistics of layer {layer!r} as soon as "
            "they were written; check the disk"
        )
    normalization = _normalization(entry)
    made = {
        which: ComputedFeatures(
            RecomputeStore(job.backbone, layer, normalization, images, job.device)
        )
        for which, images in job.sources.items()
    }
    return LayerFeatures(
        layer, normalization, job.layouts[layer].shape, key, made["train"], made.get("test")
    )


def _fill(job: Job, keys: Mapping[str, str], cache: FeatureCache, layers: Sequence[str]) -> None:
    """Extract layers into the cache."""
    need = sum(job.layouts[layer].cached_bytes(job.n_images) for layer in layers)
    mine = {keys[layer] for layer in layers}
    begun = sum(entry.bytes for entry in cache.entries() if entry.partial and entry.key in mine)
    cache.reserve(max(0, need - begun), keep=list(keys.values()))
    waits = _waiting(job, layers, cache.room(max(0, need - begun))).layers
    sinks: dict[str, PartialEntry] = {}
    with ExitStack() as stack:
        try:
            for layer in layers:
                raw = job.layouts[layer].raw_shape(len(job.sources["train"]))
                sink = cache.begin(
                    keys[layer],
                    _meta(job, layer),
                    _shapes(job, layer),
                    job.chunk,
                    raw if layer in waits else None,
                )
                stack.callback(sink.abandon)
                sinks[layer] = sink
        except EnvironmentFailure:
            for sink in sinks.values():
                sink.discard_unless_begun()
            raise
        try:
            normalizations = Sweeps(job, sinks, cache.writing).run()
        except InputError:  # nothing of it can be gone on with
            for sink in sinks.values():
                sink.discard()
            raise
        for layer, sink in sinks.items():
            state = {
                "mean": normalizations[layer].mean.tolist(),
                "sd": normalizations[layer].sd.tolist(),
            }
            cache.finish(keys[layer], sink, {"normalization": state})


def _waiting(job: Job, layers: Sequence[str], room: int) -> Waiting:
    infos = job.backbone.describe(layers, job.sources["train"].size)
    return waiting(
        {layer: job.layouts[layer] for layer in layers},
        {info.name: info.macs for info in infos},
        len(job.sources["train"]),
        room,
        job.device.type,
    )


def _shapes(job: Job, layer: str) -> dict[str, tuple[int, ...]]:
    shape = job.layouts[layer].shape
    return {name: (len(source), *shape) for name, source in job.sources.items()}


def _meta(job: Job, layer: str) -> dict[str, Any]:
    layout = dataclasses.asdict(job.layouts[layer])
    return {
        "backbone": job.backbone.name,
        "backbone_digest": job.backbone.digest,
        "layer": layer,
        "image_size": job.sources["train"].size,
        "layout": {**layout, "grid": list(layout["grid"])},
    }


def _features(
    job: Job, layer: str, key: str, normalization: Normalization, arrays: Mapping[str, Half]
) -> LayerFeatures:
    shape = job.layouts[layer].shape
    return LayerFeatures(layer, normalization, shape, key, arrays["train"], arrays.get("test"))


def _normalization(entry: Entry) -> Normalization:
    layout, state = entry.meta["layout"], entry.meta["normalization"]
    return Normalization(
        torch.tensor(state["mean"], dtype=torch.float32),
        torch.tensor(state["sd"], dtype=torch.float32),
        bool(layout["rectified"]),
        int(layout["kernel"]),
        (int(layout["grid"][0]), int(layout["grid"][1])),
        bool(layout.get("signed", False)),
    )
