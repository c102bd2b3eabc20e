"""The defects that the audit of the science found: a figure before, a figure now.

``python -m benchmarks.audit -o docs/benchmarks/audit.md`` measures those that can be measured by simulation in seconds. One
function per defect, registered by :func:`defect`; figures before are the audit's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import publish
from tuner import scores
from tuner.scores import beyond_chance

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Defect:
    """What was wrong, its figure before, and how the one now is measured."""

    number: int
    what: str
    before: str
    measure: Callable[[], str]


REGISTRY: list[Defect] = []


def defect(number: int, what: str, before: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register the function that measures a defect's figure now."""

    def add(measure: Callable[[], str]) -> Callable[[], str]:
        REGISTRY.append(Defect(number, what, before, measure))
        return measure

    return add


def _region(repeats: int, seed: int) -> tuple[Floats, Floats]:
    """Prediction and responses of 60 good units and 40 silent ones, 100 images."""
    rng = np.random.default_rng([seed, repeats])
    signal = rng.normal(size=(100, 100))
    responses = signal + rng.normal(size=(repeats, 100, 100))
    responses[..., 60:] = rng.normal(size=(repeats, 100, 40))
    return signal + rng.normal(0, 0.5, signal.shape), responses


@defect(
    4,
    "40 of 100 channels silent: a region's FEVe less the good units', worst of 20 recordings, at 5 and 30 repeats",
    "-.23 less .80 at 30 repeats, -9 at 5",
)
def silent_channels() -> str:
    """The region's figure, beside that of its good units alone."""
    worst = []
    for repeats in (5, 30):
        gaps = []
        for seed in range(20):
            model, responses = _region(repeats, seed)
            every = scores.summarise(scores.score_units(model, responses, draws=0))
            good = scores.score_units(model[:, :60], responses[..., :60], draws=0)
            gaps.append(every["feve"] - scores.summarise(good)["feve"])
        worst.append(f"{max(gaps, key=abs):+.3f}")
    return " and ".join(worst)


def grouped(seed: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Prediction, responses ``(4, 160, 8)`` and groups of 4 images that share signal and what the model gets wrong."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), 4)
    shape = (160, 8)
    signal = 0.7 * rng.normal(size=(40, 8))[groups] + 0.7 * rng.normal(size=shape)
    wrong = 0.7 * rng.normal(size=(40, 8))[groups] + 0.7 * rng.normal(size=shape)
    return signal + wrong, signal + rng.normal(size=(4, *shape)), groups


def coverage(recordings: int, *, by_groups: bool) -> float:
    """How often the nominal 95 % interval of a region's correlation holds that of endless images."""
    truth = 0.98 / np.sqrt(2 * 0.98 * (0.98 + 1 / 4))
    hits = 0
    for seed in range(recordings):
        model, responses, groups = grouped(seed)
        drawn = groups if by_groups else None
        samples = scores.bootstrap_scores(model, responses, draws=500, seed=seed, groups=drawn)
        number = 40 if by_groups else None
        low, high = scores.region_intervals(samples, np.arange(8), drawn=number)["test_correlation"]
        hits += low <= truth <= high
    return hits / recordings


@defect(
    5,
    "coverage of nominal 95 % intervals of a region's correlation, 400 recordings in groups of 4 images; and where "
    "images are drawn one by one, as before",
    "standard errors of groups 1.28 times larger than drawn",
)
def interval_coverage() -> str:
    """Coverage with groups, and without."""
    return f"{coverage(400, by_groups=True):.1%}; {coverage(400, by_groups=False):.1%}"


def noise_passes(runs: int, trials: int = 24) -> int:
    """How many searches of pure noise count as fitted: ridge, the best of some penalties on 40 validation images."""
    passed = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(200, 50)), rng.normal(size=(200, 6))
        fit, held = slice(0, 160), slice(160, 200)
        y = (y - y[fit].mean(0)) / y[fit].std(0)
        left, size, right = np.linalg.svd(x[fit], full_matrices=False)
        losses = []
        for penalty in np.geomspace(1, 1e5, trials):
            weights = right.T @ ((size / (size**2 + penalty))[:, None] * (left.T @ y[fit]))
            losses.append(np.square(x[held] @ weights - y[held]).mean(1))
        best = min(losses, key=lambda loss: float(loss.mean()))
        passed += beyond_chance(best, np.square(y[held]).mean(1), trials=trials)
    return passed


@defect(6, "pure noise counted as fitted, the best of 24 penalties", "8 of 20 not marked failed")
def noise() -> str:
    """Of 200 simulated searches."""
    return f"{noise_passes(200)} of 200"


@defect(
    9,
    "CCnorm of a perfect model under drift of the signal's variance, 5 repeats; its ceiling with drift, and without",
    "1.157; .808, .913",
)
def drift() -> str:
    """CCnorm and ceilings of 2,000 simulated units."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(100, 2000))
    still = signal + rng.normal(size=(5, *signal.shape))
    moved = still + rng.normal(size=(5, 1, 2000))
    ceilings = [float(np.mean(scores.cc_max(y))) for y in (moved, still)]
    normalized = float(np.mean(scores.cc_norm(signal, moved)))
    return f"{normalized:.3f}; {ceilings[0]:.3f}, {ceilings[1]:.3f}"


@defect(
    10, "training images twice, no groups: validation images that are fit images too", "12 of 12"
)
def duplicates() -> str:
    """Of 120 images, each twice, after equal images were found."""
    from tuner.recordings import Recording, cut
    from tuner.recordings.duplicates import find, group
    from tuner.recordings.sources import ArrayImages

    rng = np.random.default_rng(0)
    once = rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    recording = Recording(
        label="twice",
        source="simulated",
        simulated=True,
        units={"area": np.array(["V1"])},
        train_images=ArrayImages(np.concatenate([once, once])),
        train_responses=rng.normal(size=(120, 1)).astype(np.float32),
    )
    found = group(recording, find(recording))
    split = cut(120, found.train_groups, 0.1, 0)
    leaked = np.isin(split.validation % 60, split.fit % 60)
    return f"{leaked.sum()} of {len(leaked)}"


def page() -> str:
    """The page: one row per defect."""
    text = (
        "# Audit of the science\n\n"
        "`python -m benchmarks.audit`: defects by their number in the audit, the figure that it measured, and the figure "
        "now. All simulated, with known truth.\n\n| | measured | before | now |\n|---|---|---|---|\n"
    )
    for one in sorted(REGISTRY, key=lambda one: one.number):
        text += f"| {one.number} | {one.what} | {one.before} | {one.measure()} |\n"
    return text


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    publish(page(), parser.parse_args().out)


if __name__ == "__main__":
    main()
