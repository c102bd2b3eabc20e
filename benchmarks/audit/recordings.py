"""Defects of what is read: equal images on both sides of a cut, and missing samples."""

from __future__ import annotations

import numpy as np

from benchmarks.audit.registry import defect
from tuner.recordings import Recording, cut
from tuner.recordings.duplicates import find, group
from tuner.recordings.sources import ArrayImages
from tuner.recordings.tvsd.windows import Windowed


@defect(
    10,
    "training images twice, no groups: validation images that are fit images too (hard: brighter and noisy the second time)",
    "12 of 12",
)
def duplicates(difficulty: str) -> str:
    """Of 120 images, each twice, after equal images were found."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 200, (60, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    once = coarse.astype(np.uint8)
    again = once
    if difficulty == "hard":
        again = np.clip(coarse + 8 + rng.normal(0, 2, coarse.shape), 0, 255).astype(np.uint8)
    recording = Recording(
        label="twice",
        source="simulated",
        simulated=True,
        units={"area": np.array(["V1"])},
        train_images=ArrayImages(np.concatenate([once, again])),
        train_responses=rng.normal(size=(120, 1)).astype(np.float32),
    )
    found = group(recording, find(recording))
    split = cut(120, found.train_groups, 0.1, 0)
    leaked = np.isin(split.validation % 60, split.fit % 60)
    return f"{leaked.sum()} of {len(leaked)}"


@defect(
    11,
    "responses of a channel's day of 300 presentations that missing samples cost: one sample (hard: one in each of 30)",
    "300",
)
def missing_samples(difficulty: str) -> str:
    """Responses that cannot be normalised."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(100, 300, 1))
    holes = 1 if difficulty == "easy" else 30
    samples[rng.integers(100, size=holes), rng.permutation(300)[:holes], 0] = np.nan
    day = np.zeros((1, 1024))
    read = Windowed(np.full((300, 1024), np.nan), day.copy(), day.copy(), day.copy())
    read.mean[:, 0] = samples[..., 0].mean(0)
    read.pool(0, np.array([0]), samples)
    sd = np.sqrt(read.pool_square[0, 0] / read.count[0, 0])
    normalised = (read.mean[:, 0] - read.pool_mean[0, 0]) / sd
    return str(int(np.isnan(normalised).sum()))
