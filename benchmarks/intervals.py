"""How often nominal 95 % intervals of test scores hold the truth: the jackknife over groups and the bootstrap's percentiles.

``python -m benchmarks.intervals -o TABLE.md`` simulates recordings in which images of a group share part of the signal and
of what a model gets wrong, takes each score over very many groups for the truth, and counts. Then how often a unit's best
layer is called sure, and how often wrongly (:mod:`benchmarks.choices`). Seeded; takes a few minutes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.choices import section
from benchmarks.machine import publish
from tuner.scores.bootstrap import bootstrap_scores, weighted_scores
from tuner.scores.jackknife import leave_out, mean_intervals
from tuner.scores.regions import region_intervals

UNITS = 15
CAUSES = 12
SCORES = {
    "test_correlation": "correlation",
    "test_correlation_normalized": "CCnorm",
    "feve": "FEVe",
    "noise_ceiling": "ceiling",
}
ENDLESS = 4000
"""Groups that the truth is taken from."""


@dataclass(frozen=True)
class Design:
    """Test images of a recording.

    Attributes
    ----------
    sizes
        Images of each group.
    shared
        Share of the variance of signal and errors that a group has in common.
    repeats
        Presentations of each image, with noise of the signal's variance.
    quality
        Correlation of the model's predictions with the signal.
    """

    sizes: tuple[int, ...]
    shared: float
    repeats: int
    quality: float

    def described(self) -> str:
        """In words."""
        few, many = min(self.sizes), max(self.sizes)
        if many == 1:
            return f"{len(self.sizes)} images, no groups"
        each = f"{few}" if few == many else f"{few} to {many}"
        return f"{len(self.sizes)} groups of {each}, {self.shared:.0%} shared"


DESIGNS = (
    Design((10,) * 5, 0.3, 8, 0.9),
    Design((10,) * 5, 0.7, 8, 0.5),
    Design((3, 6, 10, 12, 20), 0.5, 8, 0.7),
    Design((10,) * 10, 0.7, 8, 0.9),
    Design((2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24), 0.5, 8, 0.7),
    Design((10,) * 20, 0.7, 8, 0.5),
    Design((5,) * 60, 0.7, 8, 0.5),
    Design((1,) * 50, 0.0, 4, 0.5),
    Design((1,) * 100, 0.0, 30, 0.7),
    Design((1,) * 200, 0.0, 2, 0.7),
)


def simulate(
    design: Design, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Predictions ``(images, units)``, responses ``(repeats, images, units)`` and groups ``(images,)``.

    Units are the same mixtures of a few causes in every recording, and the model errs in causes of its own.
    """
    fixed = np.random.default_rng(5)
    signals, errors = fixed.normal(size=(2, CAUSES, UNITS)) / np.sqrt(CAUSES)
    groups = np.repeat(np.arange(len(design.sizes)), design.sizes)

    def causes() -> NDArray[np.float64]:
        common = rng.normal(size=(len(design.sizes), CAUSES))[groups]
        own = rng.normal(size=(len(groups), CAUSES))
        return np.sqrt(design.shared) * common + np.sqrt(1 - design.shared) * own

    signal, wrong = causes() @ signals, causes() @ errors
    q = design.quality
    predictions = q * (q * signal + np.sqrt(1 - q * q) * wrong)
    responses = signal + rng.normal(size=(design.repeats, *signal.shape))
    return predictions, responses, groups


def coverage(design: Design, recordings: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Share of recordings whose interval of a region's mean holds the truth: by the jackknife and by percentiles.

    An interval that is open on a side counts as one that holds nothing: it says nothing.
    """
    rng = np.random.default_rng(seed)
    size = max(1, round(np.mean(design.sizes)))
    endless = Design((size,) * (ENDLESS * 5 // size), design.shared, design.repeats, design.quality)
    p, y, _ = simulate(endless, rng)
    scores = weighted_scores(p, y, np.ones((1, len(p))))
    truth = {name: float(scores[name].mean()) for name in SCORES}
    hits = {name: np.zeros(2) for name in SCORES}
    every = np.arange(UNITS)
    for number in range(recordings):
        p, y, groups = simulate(design, rng)
        left = mean_intervals(leave_out(p, y, groups=groups, drift=False), every)
        drawn = bootstrap_scores(p, y, draws=500, seed=number, groups=groups, drift=False)
        percentiles = region_intervals(drawn, every)
        for name in SCORES:
            for column, (low, high) in enumerate((left[name], percentiles[name])):
                hits[name][column] += low <= truth[name] <= high
    return {name: (found[0] / recordings, found[1] / recordings) for name, found in hits.items()}


def page(recordings: int, designs: Sequence[Design] = DESIGNS) -> str:
    """The page."""
    head = ["test images", "repeats", "model", *SCORES.values()]
    text = (
        "# Intervals of test scores\n\n"
        "`python -m benchmarks.intervals`: how often the nominal 95 % interval of a region's mean over "
        f"{UNITS} units holds that of endless images, over {recordings} simulated recordings each: by leaving "
        "out one group of images after the other, as `heatmap.csv` has them, and, in brackets, as percentiles of "
        "a bootstrap over the same groups. The noise of a presentation has the signal's variance; *model*: "
        "correlation of its predictions with the signal.\n\n"
        f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    )
    for design in designs:
        found = coverage(design, recordings)
        cells = [design.described(), f"{design.repeats}", f"{design.quality:g}"]
        cells += [f"{found[name][0]:.0%} ({found[name][1]:.0%})" for name in SCORES]
        text += f"| {' | '.join(cells)} |\n"
    return text + section(recordings)


def main() -> None:
    """Simulate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # draws without signal power
    publish(page(given.recordings), given.out)


if __name__ == "__main__":
    main()
