"""How far ceilings and normalised scores are off with few repeats and images: Monte Carlo with known truth.

``python -m benchmarks.ceilings -o TABLE.md`` simulates units of signal variance 1 and a model whose error has variance 0.4,
scores them with ``tuner.scores``, and writes for each number of images and repeats how many units have no ceiling, and of
the others by how much the mean is off, how wide single units scatter, and where the median lies. Seeded; takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import publish
from tuner import scores

SIGNAL = 1.0
ERROR = 0.4
NOISES = (1.0, 10.0)
IMAGES = (50, 100, 1000)
REPEATS = (2, 3, 5, 10, 20)
UNITS = 2000
NAMES = ("noise_ceiling", "test_correlation_normalized", "feve")
TITLES = ("CCmax", "CCnorm", "FEVe")
BLOCK = 2_000_000
"""Responses simulated at once."""


def simulate(
    noise: float, images: int, repeats: int, units: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Scores ``(units,)`` of simulated units; see ``tuner.scores.score_units``."""
    rng = np.random.default_rng([seed, int(10 * noise), images, repeats])
    at_once = max(1, BLOCK // (images * repeats))
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*NAMES, "has_ceiling")}
    for start in range(0, units, at_once):
        n = min(at_once, units - start)
        signal = rng.normal(0, np.sqrt(SIGNAL), (images, n))
        model = signal + rng.normal(0, np.sqrt(ERROR), signal.shape)
        responses = signal + rng.normal(0, np.sqrt(noise), (repeats, *signal.shape))
        power = scores.signal_power(responses)
        ceiling = np.where(power > 0, scores.cc_max(responses), np.nan)
        found["noise_ceiling"].append(ceiling)
        found["test_correlation_normalized"].append(scores.cc_norm(model, responses))
        found["feve"].append(scores.feve(model, responses))
        found["has_ceiling"].append(power > 0)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def truth(noise: float, repeats: int) -> tuple[float, float, float]:
    """CCmax, CCnorm and FEVe with infinitely many images."""
    return (
        float(np.sqrt(SIGNAL / (SIGNAL + noise / repeats))),
        float(np.sqrt(SIGNAL / (SIGNAL + ERROR))),
        1 - ERROR / SIGNAL,
    )


def lines(
    noise: float, images: Sequence[int], repeats: Sequence[int], units: int, seed: int
) -> Iterator[str]:
    """Rows of the table for one level of noise."""
    for n_images in images:
        for n_repeats in repeats:
            found = simulate(noise, n_images, n_repeats, units, seed)
            counted = found["has_ceiling"].astype(bool)
            cells = [f"{n_images}", f"{n_repeats}", f"{1 - counted.mean():.1%}"]
            true = truth(noise, n_repeats)
            cells.append(f"{true[0]:.2f}")
            for name, expected in zip(NAMES, true, strict=True):
                values = found[name][counted]
                cells += [
                    f"{values.mean() - expected:+.2f}",
                    f"{values.std(ddof=1):.2f}",
                    f"{np.median(values) - expected:+.2f}",
                ]
            plain = [cell.replace("+0.00", "0.00").replace("-0.00", "0.00") for cell in cells]
            yield f"| {' | '.join(plain)} |"


def page(
    units: int = UNITS,
    noises: Sequence[float] = NOISES,
    images: Sequence[int] = IMAGES,
    repeats: Sequence[int] = REPEATS,
    seed: int = 0,
) -> str:
    """The page: a table per level of noise."""
    columns = [f"{title} {what}" for title in TITLES for what in ("mean", "sd", "median")]
    head = ["images", "repeats", "no ceiling", "true CCmax", *columns]
    _, cc_norm, feve = truth(noises[0], repeats[0])
    text = (
        "# Ceilings with few repeats\n\n"
        f"`python -m benchmarks.ceilings`: {units:,} simulated units each, of signal variance "
        f"{SIGNAL:g}, and a model whose error has variance {ERROR:g}: its true CCnorm is {cc_norm:.2f}, "
        f"its true FEVe {feve:.2f}. *no ceiling*: share of units whose signal power is not positive. All "
        "else is over the other units, as in `heatmap.csv`: *mean* and *median*, how far they lie from "
        "the truth; *sd*, how far single units scatter.\n"
    )
    for noise in noises:
        text += (
            f"\n## Noise variance {noise / SIGNAL:g} times the signal's\n\n"
            f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
        )
        text += "\n".join(lines(noise, images, repeats, units, seed)) + "\n"
    return text


def main() -> None:
    """Simulate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    text = page(given.units, seed=given.seed)
    publish(text, given.out)


if __name__ == "__main__":
    main()
