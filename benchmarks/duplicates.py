"""How well equal images are found: copies of a recording's photographs that were changed, and pairs that are none.

``python -m benchmarks.duplicates FOLDER -o duplicates.md`` reads every generic recording (``*.h5``) of a folder, counts the
pairs that ``tuner.recordings.duplicates`` takes for the same, and then how many of its images are found again after each
change. Takes seconds.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import publish
from tuner.recordings import Recording, load_recording
from tuner.recordings.duplicates import find, look, same

Pixels = NDArray[np.uint8]
COPIES = 200
"""Images of a recording that are changed."""


def _jpeg(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def _sized(image: Pixels, factor: float) -> Pixels:
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _noisy(image: Pixels, sd: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sd, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _cropped(image: Pixels, share: float) -> Pixels:
    height, width = image.shape[:2]
    y, x = max(1, int(share * height)), max(1, int(share * width))
    inner = Image.fromarray(image[y:-y, x:-x])
    return np.asarray(inner.resize((width, height), Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG, quality 75": lambda image: _jpeg(image, 75),
    "JPEG, quality 40": lambda image: _jpeg(image, 40),
    "half the size": lambda image: _sized(image, 0.5),
    "1.7 times the size": lambda image: _sized(image, 1.7),
    "15 % brighter": lambda image: np.clip(image * 1.15 + 5, 0, 255).astype(np.uint8),
    "gamma 0.8": lambda image: (255 * (image / 255) ** 0.8).astype(np.uint8),
    "noise of 5 levels": lambda image: _noisy(image, 5),
    "in grey": lambda image: np.asarray(Image.fromarray(image).convert("L").convert("RGB")),
    "2 % cut off every side": lambda image: _cropped(image, 0.02),
}


def measure(recording: Recording) -> tuple[int, int, dict[str, float]]:
    """Pairs found, of them training with test, and the share of changed copies that are found."""
    pairs, n = find(recording), recording.n_train
    across = int(((pairs[:, 0] < n) & (pairs[:, 1] >= n)).sum())
    rng = np.random.default_rng(0)
    picked = rng.choice(n, min(COPIES, n), replace=False)
    images = [recording.train_images.read(int(i)) for i in picked]
    looks = [look(image) for image in images]
    found = {}
    for name, change in CHANGES.items():
        copies = [look(change(image)) for image in images]
        hits = [len(same([one, copy])) for one, copy in zip(looks, copies, strict=True)]
        found[name] = float(np.mean(hits))
    return len(pairs), across, found


def page(recordings: dict[str, Recording]) -> str:
    """The page: one row per recording."""
    head = ["recording", "images", "pairs", "training with test", *CHANGES]
    text = (
        "# Equal images\n\n"
        "`python -m benchmarks.duplicates FOLDER`: pairs of images that `tuner study create` takes for the same, and the "
        f"share of {COPIES} training images that are found again after a change. 190925, 190929, 210225 and 210621 are "
        "sessions of macaque V4 of Cowley et al. 2023, of photographs of 112 x 112 px; of these 190925 is known to leak.\n\n"
        f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    )
    for name, recording in recordings.items():
        pairs, across, found = measure(recording)
        cells = [name, f"{recording.n_train + recording.n_test:,}", f"{pairs}", f"{across}"]
        text += f"| {' | '.join([*cells, *(f'{share:.1%}' for share in found.values())])} |\n"
    return text


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    recordings = {p.stem: load_recording(p) for p in sorted(given.folder.glob("*.h5"))}
    publish(page(recordings), given.out)


if __name__ == "__main__":
    main()
