"""What extraction costs beside the network itself: all layers of a network in one pass, against its own forward pass.

``python -m benchmarks.networks -o PAGE.md`` runs each network on the same images in the same chunks, once as it is and
once through `tuner.features.extract` into a cache on disk: reading images, hooks, tokens laid out as maps, statistics,
waiting for them, normalisation, pooling, rounding, writing. What waits is chosen as for many images. Times are CPU
seconds, the least of a few alternating runs. Random weights; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.machine import describe, load, publish
from tuner.backbones import load_backbone
from tuner.features.cache import FeatureCache
from tuner.features.extract import extract
from tuner.features.layout import chunk_images, layouts
from tuner.features.sweeps import as_images
from tuner.features.waiting import Waiting, waiting
from tuner.recordings.images import PreparedImages
from tuner.recordings.sources import ArrayImages

NETWORKS = {
    "timm/vit_small_patch16_224": 16,
    "timm/swin_tiny_patch4_window7_224": 16,
    "timm/resnet50": 64,
    "efficientnet_lite0": 64,
}
"""Network to images: what every layer costs once, its files among them, weighs on few images of a fast network."""
SIZE, TIMES, MAX_GRID = 224, 2, 28


@dataclass(frozen=True)
class Row:
    """One network; CPU seconds for an image."""

    network: str
    layers: int
    waits: Waiting
    forward: float
    once: float
    twice: float


def least(*works: Callable[[], object]) -> list[float]:
    """CPU seconds of each of several works, the least of alternating runs."""
    found = [float("inf")] * len(works)
    for _ in range(TIMES):
        for number, work in enumerate(works):
            begin = time.process_time()
            work()
            found[number] = min(found[number], time.process_time() - begin)
    return found


def measure(name: str, images: int) -> Row:
    """Run a network as it is, and all its layers through extraction."""
    backbone = load_backbone(name, "random", image_size=SIZE)
    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3)).astype(np.uint8)
    pictures = PreparedImages(ArrayImages(pixels), SIZE)
    layers = backbone.layers
    macs = {info.name: info.macs for info in backbone.describe(layers, SIZE)}
    waits = waiting(layouts(backbone, layers, SIZE, MAX_GRID), macs, 10**6, 1e18, "cpu")

    def forward() -> None:
        step = chunk_images(SIZE)
        with torch.no_grad():
            for begin in range(0, images, step):
                some = pictures.read(np.arange(begin, min(begin + step, images)))
                backbone.module(backbone.preprocess(as_images(some, "cpu")))

    def extracted(chosen: Waiting) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            patch("tuner.features.extract.waiting", lambda *_: chosen),
        ):
            extract(backbone, layers, pictures, max_grid=MAX_GRID, cache=FeatureCache(folder))

    # what is made once is there
    backbone.features(as_images(pictures.read([0]), "cpu"), layers)
    times = least(forward, lambda: extracted(waits), lambda: extracted(Waiting((), 0, 1.0)))
    return Row(name, len(layers), waits, *(seconds / images for seconds in times))


def page(rows: list[Row]) -> str:
    """The page."""
    lines = [
        "# Extraction",
        "",
        f"{describe('python -m benchmarks.networks')} Load before {load():.1f}, so times are CPU seconds.",
        "",
        f"{min(NETWORKS.values())} to {max(NETWORKS.values())} images of {SIZE} px, random weights, "
        f"all layers of each network, pooled to {MAX_GRID} cells. "
        "*forward*: the network alone.",
        "*extraction*: features of all its layers, read, normalised, rectified, pooled, rounded and "
        "written. Means and sds over all images come first, so what a layer returns waits for them on "
        "disk, in the cache's folder; early layers, whose maps are large and soon computed again, do not. "
        "*waits*: how many layers' outputs wait, as for many images with room on the disk, and their "
        "size for an image. *without waiting*: all images go through the network a second time.",
        "",
        "| network | layers | waits | MB an image | forward, ms an image | extraction, ms | over forward "
        "| without waiting, ms | over forward |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.layers} | {len(row.waits.layers)} | {row.waits.n_bytes / 1e12:.1f} | "
        f"{1e3 * row.forward:.0f} | {1e3 * row.once:.0f} | "
        f"{row.once / row.forward:.2f} | {1e3 * row.twice:.0f} | {row.twice / row.forward:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = [measure(name, images) for name, images in NETWORKS.items()]
    publish(page(rows), out)


if __name__ == "__main__":
    main()
