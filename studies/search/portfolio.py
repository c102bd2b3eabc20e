"""Settings that are good at many layers, regions and recordings, which a study with few donors begins with.

Learning rates and penalties mean the same at every size of a layer (``training.size_invariant``), so settings carry over.
Of each readout five are enough for one of them to end near the best on most tasks. They are of several kinds: few weights
with large steps, many smooth ones with small steps. To the first kind draws at random alone come late or never, as it is a
small part of the ranges. They were chosen by ``python -m benchmarks.quality.portfolio`` (docs/benchmarks/portfolio.md), and
are guesses like any other: from a study's second round on, what it found itself is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from studies.config.ranges import IntRange, Setting

Settings = Mapping[str, float]

STEPS = 300
"""Steps of the trials with which they were chosen; ``drop`` grows with the number of steps."""

PORTFOLIO: Mapping[str, tuple[Settings, ...]] = {
    "full": (
        {
            "sparsity": 0.0006,
            "smoothness": 5e-07,
            "group_sparsity": 0.0001,
            "weight_decay": 2e-06,
            "learning_rate": 0.06,
            "drop": 140,
        },
        {
            "sparsity": 3e-06,
            "smoothness": 0.0005,
            "group_sparsity": 0.0001,
            "weight_decay": 8e-05,
            "learning_rate": 0.01,
            "drop": 240,
        },
        {
            "sparsity": 3e-07,
            "smoothness": 0.0008,
            "group_sparsity": 7e-07,
            "weight_decay": 5e-05,
            "learning_rate": 0.04,
            "drop": 80,
        },
        {
            "sparsity": 3e-07,
            "smoothness": 0.005,
            "group_sparsity": 2e-07,
            "weight_decay": 4e-06,
            "learning_rate": 0.05,
            "drop": 50,
        },
        {
            "sparsity": 9e-07,
            "smoothness": 0.0003,
            "group_sparsity": 6e-06,
            "weight_decay": 4e-06,
            "learning_rate": 0.04,
            "drop": 200,
        },
    ),
    "factorized": (
        {
            "sparsity": 8e-06,
            "smoothness": 0.002,
            "weight_decay": 9e-08,
            "learning_rate": 0.01,
            "drop": 250,
        },
        {
            "sparsity": 0.01,
            "smoothness": 1e-06,
            "weight_decay": 2e-07,
            "learning_rate": 0.05,
            "drop": 60,
        },
        {
            "sparsity": 0.002,
            "smoothness": 0.02,
            "weight_decay": 2e-08,
            "learning_rate": 0.07,
            "drop": 70,
        },
        {
            "sparsity": 8e-06,
            "smoothness": 5e-05,
            "weight_decay": 3e-06,
            "learning_rate": 0.002,
            "drop": 350,
        },
        {
            "sparsity": 0.04,
            "smoothness": 4e-05,
            "weight_decay": 3e-06,
            "learning_rate": 0.1,
            "drop": 70,
        },
    ),
}
"""Of each readout, the most useful first."""


def portfolio(readout: str, space: Mapping[str, Setting], steps: int) -> list[Settings]:
    """Settings for trials of so many steps, the most useful first; none for a readout of one's own.

    Parameters
    ----------
    space
        What may vary; ``drop`` is kept within its range.
    """
    drop = space.get("drop")
    out: list[Settings] = []
    for settings in PORTFOLIO.get(readout, ()):
        scaled = round(settings["drop"] * steps / STEPS)
        if isinstance(drop, IntRange):
            scaled = min(max(scaled, drop.low), drop.high)
        out.append({**settings, "drop": scaled})
    return out
