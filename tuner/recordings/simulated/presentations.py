"""What simulated units say at each presentation: their signal, and how it is disturbed.

``steady`` adds Gaussian noise of the same size everywhere. ``counts`` does what recordings do: spike
counts whose noise grows with the rate, units of very different quality, excitability that drifts
through the session for all units together, and presentations that were lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SNR_RANGE = (0.2, 3.0)
"""Signal-to-noise ratios that the units of ``counts`` have, log-uniformly."""

DRIFT_RANGE = (0.5, 1.0)
"""Standard deviation of a unit's drift over the session, in those of its signal."""

MOST_LOST = 0.5
"""Largest share of the presentations of a test image that may be lost."""

_ROOM = 0.95
"""Share of its mean rate that a unit's signal and drift may take away together."""


@dataclass(frozen=True)
class Presentations:
    """Responses presentation by presentation, and the truth behind them.

    Parameters
    ----------
    signal
        Noiseless responses (n_train + n_test, n_units): ``offset + gain * responses``.
    train
        One presentation of each training image, (n_train, n_units).
    test
        (n_repeats, n_test, n_units); NaN where a presentation was lost.
    units
        Per unit, shape (n_units,): ``offset`` and ``gain``; ``signal_variance`` over the test
        images; ``noise_variance`` of one presentation; ``ceiling``, the correlation of the signal
        with the mean over the presentations.
    session
        What is known of the session as a whole.
    """

    signal: Floats
    train: Floats
    test: Floats
    units: dict[str, Floats]
    session: dict[str, NDArray[Any]] = field(default_factory=dict)


def steady(
    responses: Floats, n_train: int, n_repeats: int, snr: float, rng: np.random.Generator
) -> Presentations:
    """Add independent Gaussian noise of one signal-to-noise ratio.

    Parameters
    ----------
    responses
        Standardised on the training images, (n_train + n_test, n_units), training first.
    n_train, n_repeats
        Training images, and presentations of each test image.
    snr
        Variance of the signal over that of the noise of one presentation.
    rng
        Where randomness comes from.
    """
    n_units = responses.shape[1]
    offset = rng.uniform(0.5, 2.0, size=n_units)
    gain = rng.uniform(0.5, 1.5, size=n_units)
    signal = offset + gain * responses
    n_test = len(signal) - n_train
    noise = gain / np.sqrt(snr)
    train = signal[:n_train] + noise * rng.standard_normal((n_train, n_units))
    test = signal[n_train:] + noise * rng.standard_normal((n_repeats, n_test, n_units))
    power = signal[n_train:].var(0)
    units = {
        "offset": offset,
        "gain": gain,
        "signal_variance": power,
        "noise_variance": noise**2,
        "ceiling": np.sqrt(power / (power + noise**2 / n_repeats)),
    }
    return Presentations(signal, train, test, units)


def counts(
    responses: Floats, n_train: int, n_repeats: int, rng: np.random.Generator
) -> Presentations:
    """Draw spike counts from drifting rates, and lose some presentations.

    The rate of unit u at a presentation in block b of the session is ``m + a (z + l d_b)``: z is
    its standardised response, d a random walk over the blocks that all units share, standardised,
    and l the unit's part in it. Counts are Poisson. Over the training images the signal-to-noise
    ratio is then ``a ** 2 / m``; a and m are such that it is what was drawn for the unit and that
    no rate is negative. Repeat b of every test image lies in block b, each training image in a
    block of its own choice.

    Parameters
    ----------
    responses, n_train, n_repeats, rng
        As for ``steady``.

    Returns
    -------
    Presentations
        ``units`` also has ``snr`` and ``drift`` (the standard deviation a l); ``session`` has
        ``session/drift`` (d, one value a block) and ``session/train_block``. The ceiling takes in
        what drift does to the means of images that lack presentations.
    """
    n_test, n_units = len(responses) - n_train, responses.shape[1]
    low, high = np.log(SNR_RANGE)
    ratio = np.exp(rng.uniform(low, high, n_units))
    part = rng.uniform(*DRIFT_RANGE, n_units)
    walk = rng.standard_normal(n_repeats).cumsum()
    drift = (walk - walk.mean()) / max(float(walk.std()), 1e-12)
    lowest = -responses.min(0) - part * drift.min()
    modulation = _ROOM / lowest  # a / m
    gain = ratio / modulation
    offset = gain / modulation
    signal = offset + gain * responses
    shift = gain * part * drift[:, None]  # (n_repeats, n_units)

    block = rng.permutation(np.arange(n_train) % n_repeats)
    train = rng.poisson(signal[:n_train] + shift[block]).astype(np.float64)
    rate = signal[n_train:] + shift[:, None]
    test = rng.poisson(rate).astype(np.float64)
    shown = _shown(n_repeats, n_test, rng)
    test[~shown] = np.nan

    weight = (shown / shown.sum(0))[..., None]  # of each presentation in the mean of its image
    error = (weight**2 * rate).sum(0).mean(0) + (weight * shift[:, None]).sum(0).var(0)
    power = signal[n_train:].var(0)
    units = {
        "offset": offset,
        "gain": gain,
        "signal_variance": power,
        "noise_variance": rate.mean((0, 1)),
        "ceiling": np.sqrt(power / (power + error)),
        "snr": ratio,
        "drift": gain * part,
    }
    session = {"session/drift": drift, "session/train_block": block}
    return Presentations(signal, train, test, units, session)


def _shown(n_repeats: int, n_test: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which presentations of which test image were not lost, (n_repeats, n_test)."""
    lost = rng.integers(0, int(MOST_LOST * n_repeats) + 1, n_test)
    return np.asarray(rng.random((n_repeats, n_test)).argsort(axis=0) >= lost)


def reliability(repeats: Floats) -> Floats:
    """Mean correlation between every two repeats, per unit; NaN with a single repeat.

    Parameters
    ----------
    repeats
        (n_repeats, n_test, n_units); where presentations are missing (NaN), two repeats are
        compared on the images that both have.
    """
    n_repeats, _, n_units = repeats.shape
    if n_repeats < 2:
        return np.full(n_units, np.nan)
    pairs = np.triu_indices(n_repeats, 1)
    if np.isnan(repeats).any():
        tables = (pd.DataFrame(repeats[:, :, unit].T).corr() for unit in range(n_units))
        return np.array([np.nanmean(table.to_numpy()[pairs]) for table in tables])
    matrices = (np.atleast_2d(np.corrcoef(repeats[:, :, unit])) for unit in range(n_units))
    return np.array([matrix[pairs].mean() for matrix in matrices])
