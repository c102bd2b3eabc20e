"""The same information in more features: what it costs, and whether rates and penalties mean the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.audit.registry import defect
from tuner import readouts
from tuner.features.tiers import open_store
from tuner.fitting.columns import Columns
from tuner.fitting.targets import Targets
from tuner.fitting.trainer import Trainer
from tuner.readouts.readout import FeatureShape

READOUTS = ("full", "factorized")
CHANNELS = 256
SIDES = (2, 12, 40)
"""Cells of a map's side: 1,024, 36,864 and 409,600 features."""
IMAGES, HELD_OUT, UNITS, STEPS = 160, 80, 2, 60
RATES = tuple(float(10.0**p) for p in np.arange(-4.0, 0.3, 0.5))
PENALTIES = tuple(float(10.0**p) for p in np.arange(-4.0, 0.1, 0.5))
LETHAL = 0.98
"""Loss from which a penalty is held to have killed a fit: nothing but the mean is left."""


@dataclass(frozen=True)
class Sweep:
    """What a size comes to: its best loss, the rate that reached it, the least penalty that kills."""

    loss: float
    rate: float
    lethal: float


def recorded(difficulty: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features ``(n, CHANNELS, 2, 2)``, never negative, and responses to them, noisier under *hard*."""
    rng = np.random.default_rng(0)
    n = IMAGES + HELD_OUT
    few = rng.normal(size=(n, 12)) @ rng.normal(size=(12, 4 * CHANNELS)) / np.sqrt(12)
    x = np.maximum(few + 0.3 * rng.normal(size=few.shape), 0).astype(np.float32)
    weights = rng.normal(size=(x.shape[1], UNITS)) / np.sqrt(x.shape[1])
    clean = (x - x.mean(0)) @ weights
    noise = 0.5 if difficulty == "easy" else 1.5
    y = clean / clean.std(0) + noise * rng.normal(size=clean.shape)
    scaled = (y - y[:IMAGES].mean(0)) / y[:IMAGES].std(0)
    return x.reshape(n, CHANNELS, 2, 2), scaled.astype(np.float32)


def swept(
    side: int,
    difficulty: str,
    *,
    readout: str = "full",
    center: bool = True,
    size_invariant: bool = True,
) -> Sweep:
    """Train every rate without, and every penalty with the best rate, on maps of copies of the same cells."""
    x, y = recorded(difficulty)
    maps = x.repeat(side // 2, axis=2).repeat(side // 2, axis=3)
    shape = FeatureShape(CHANNELS, side, side)
    half = np.ascontiguousarray(maps, dtype=np.float16)
    mean = torch.from_numpy(half[:IMAGES].astype(np.float32).mean(0).ravel()) if center else None
    held_out = np.arange(IMAGES, IMAGES + HELD_OUT)
    targets = Targets(y[:IMAGES], y[IMAGES:], np.arange(IMAGES), held_out, np.arange(HELD_OUT) % 2)
    trainer = Trainer(
        readouts.get(readout).kernel(shape, torch.device("cpu")),
        open_store(half),
        targets,
        loss="mse",
        batch_size=40,
        seed=0,
        device=torch.device("cpu"),
        center=mean,
        size_invariant=size_invariant,
    )

    def losses(settings: list[dict[str, float]]) -> NDArray[np.float64]:
        """Least loss of each setting at three reports."""
        zero = dict.fromkeys(readouts.get(readout).penalties, 0.0)
        plain = [zero | {"drop": 1e6} | one for one in settings]
        state = trainer.start(Columns.of_trials(plain, [np.arange(UNITS)] * len(plain)))
        least = np.full(len(plain), np.inf)
        for first in range(0, STEPS, STEPS // 3):
            trainer.advance(state, first, first + STEPS // 3)
            sums = trainer.validate(state).sum(1) / HELD_OUT
            each = sums.reshape(len(plain), UNITS).mean(1)
            least = np.minimum(least, np.where(np.isfinite(each), each, np.inf))
        return least

    by_rate = losses([{"learning_rate": rate} for rate in RATES])
    rate = RATES[int(by_rate.argmin())]
    killed = losses([{"learning_rate": rate, "sparsity": one} for one in PENALTIES])
    dead = killed >= LETHAL * float(np.square(y[IMAGES:]).mean())
    lethal = next((p for p, gone in zip(PENALTIES, dead, strict=True) if gone), np.nan)
    return Sweep(float(by_rate.min()), rate, lethal)


@defect(
    7,
    "the same information in 1,024, 36,864 and 409,600 features, full and factorized readout: best loss; best learning "
    "rate; sparsity that kills",
    "full: .405 and .417 (1,024 and 401,408); rate falls 20-fold; 1e-1 and 1e-3 to 1e-2",
)
def size(difficulty: str) -> str:
    """Figures of every size, by readout."""
    parts = []
    for readout in READOUTS:
        found = [swept(side, difficulty, readout=readout) for side in SIDES]
        parts += [
            ", ".join(f"{one.loss:.3f}" for one in found),
            ", ".join(f"{one.rate:.2g}" for one in found),
            ", ".join(f"{one.lethal:.1g}" for one in found),
        ]
    return "; ".join(parts)
