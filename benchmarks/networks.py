"""What extraction costs beside the network itself: all layers of a network in one pass, against its own forward pass.

``python -m benchmarks.networks -o PAGE.md`` runs each network on the same images in the same chunks, once as it is and once
through `tuner.features.extract`: hooks, tokens laid out as maps, statistics, normalisation, pooling, rounding, and reading
images. Times are CPU seconds, the least of a few alternating runs. Random weights; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe, load, publish
from tuner.backbones import Backbone, load_backbone
from tuner.features import sweeps
from tuner.features.extract import extract
from tuner.features.layout import chunk_images
from tuner.features.sweeps import as_images

NETWORKS = (
    "timm/vit_small_patch16_224",
    "timm/swin_tiny_patch4_window7_224",
    "timm/resnet50",
    "efficientnet_lite0",
)
SIZE, IMAGES, TIMES = 224, 16, 2


@dataclass(frozen=True)
class Row:
    """One network; CPU seconds for an image."""

    network: str
    layers: int
    forward: float
    once: float
    twice: float


class Pictures:
    """Random images in memory."""

    def __init__(self, count: int, size: int) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
        self.size = size

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images ``(n, S, S, 3)``."""
        return self.pixels[indices]

    def digest(self) -> str:
        """Return a name."""
        return "pictures"


def least(*works: Callable[[], object]) -> list[float]:
    """CPU seconds of each of several works, the least of alternating runs."""
    found = [float("inf")] * len(works)
    for _ in range(TIMES):
        for number, work in enumerate(works):
            begin = time.process_time()
            work()
            found[number] = min(found[number], time.process_time() - begin)
    return found


def measure(name: str) -> Row:
    """Run a network as it is, and all its layers through extraction."""
    backbone = load_backbone(name, "random", image_size=SIZE)
    pictures = Pictures(IMAGES, SIZE)
    layers = backbone.layers

    def forward() -> None:
        step = chunk_images(SIZE)
        with torch.no_grad():
            for begin in range(0, IMAGES, step):
                pixels = pictures.read(np.arange(begin, min(begin + step, IMAGES)))
                backbone.module(backbone.preprocess(as_images(pixels, "cpu")))

    def once() -> None:
        extract(backbone, layers, pictures, max_grid=28, cache=None)

    def twice() -> None:
        kept = sweeps._KEEP_BYTES
        sweeps._KEEP_BYTES = 0
        try:
            once()
        finally:
            sweeps._KEEP_BYTES = kept

    _check(backbone, pictures)
    times = least(forward, once, twice)
    return Row(name, len(layers), *(seconds / IMAGES for seconds in times))


def _check(backbone: Backbone, pictures: Pictures) -> None:
    """One image each, so that what is made once (traces) is there."""
    backbone.features(as_images(pictures.pixels[:1], "cpu"), backbone.layers)


def page(rows: list[Row]) -> str:
    """The page."""
    lines = [
        "# Extraction",
        "",
        f"{describe('python -m benchmarks.networks')} Load before {load():.1f}, so times are CPU seconds.",
        "",
        f"{IMAGES} images of {SIZE} px, random weights, all layers of each network in one pass, pooled to 28 cells. "
        "*forward*: the network alone.",
        "*extraction*: features of all its layers, read, normalised, rectified, pooled and rounded. What the "
        "layers return is kept from the sweep that takes means for the sweep that applies them where it is below "
        f"{sweeps._KEEP_BYTES >> 20} MiB "
        "in all; beyond that images go through the network twice (*two sweeps*).",
        "",
        "| network | layers | forward, ms an image | extraction, ms | over forward | two sweeps, ms | over forward |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.layers} | {1e3 * row.forward:.0f} | {1e3 * row.once:.0f} | "
        f"{row.once / row.forward:.2f} | {1e3 * row.twice:.0f} | {row.twice / row.forward:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = [measure(name) for name in NETWORKS]
    publish(page(rows), out)


if __name__ == "__main__":
    main()
