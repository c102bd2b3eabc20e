"""Whether the responses of a recording can be fitted, given a cut and a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.recording import Recording
from tuner.recordings.split import Split

MIN_FIT = 20
"""Valid responses that a unit needs among the fit images."""

MIN_VALIDATION = 5
"""Valid responses that a unit needs among the validation images."""


def check_responses(
    recording: Recording,
    split: Split,
    loss: Literal["mse", "poisson"],
    region_column: str,
    fold: int | None = None,
) -> None:
    """Refuse a recording that the loss cannot be fitted to.

    Parameters
    ----------
    recording
        The recording.
    split
        Its cut into fit and validation images.
    loss
        ``"mse"`` needs responses that vary, ``"poisson"`` needs responses that are never negative
        and not always zero.
    region_column
        The unit column whose values are the regions.
    fold
        Number of the fold whose cut this is, where there are several: a unit is then validated on all of them together,
        so this one may hold few of its responses.

    Raises
    ------
    InputError
        Naming the first unit at fault, how many more there are, and the remedy.
    """
    recording.regions(region_column)
    fit = recording.train_responses[split.fit]
    validation = recording.train_responses[split.validation]
    n_fit = np.isfinite(fit).sum(axis=0)
    n_validation = np.isfinite(validation).sum(axis=0)
    which = "fit images" if fold is None else f"images outside fold {fold + 1}"
    _refuse(
        recording,
        n_fit < MIN_FIT,
        lambda unit: (
            f"has {n_fit[unit]} valid responses among the {split.fit.size} {which}, "
            f"fewer than {MIN_FIT}"
        ),
        "remove it from the recording or supply more images, or "
        + ("lower data.validation_fraction" if fold is None else "set training.folds = 1"),
    )
    _refuse(
        recording,
        (n_validation < MIN_VALIDATION) & (fold is None),
        lambda unit: (
            f"has {n_validation[unit]} valid responses among the "
            f"{split.validation.size} validation images, fewer than {MIN_VALIDATION}"
        ),
        "raise data.validation_fraction, or remove it from the recording",
    )
    # Float64, so that a large mean does not swamp a small spread.
    spread = np.nanstd(fit.astype(np.float64), axis=0)
    size = np.nanmax(np.abs(fit), axis=0).astype(np.float64)
    _refuse(
        recording,
        spread <= 1e-6 * size,
        lambda unit: f"responds alike to all {which}",
        "remove it from the recording",
    )
    if loss == "poisson":
        lowest = np.nanmin(recording.train_responses, axis=0)
        if recording.test_responses is not None:
            lowest = np.fmin(lowest, np.nanmin(_without_empty(recording), axis=(0, 1)))
        _refuse(
            recording,
            lowest < 0,
            lambda unit: (
                f"has a negative response ({lowest[unit]:.3g}), impossible under "
                'training.loss = "poisson"'
            ),
            'use "mse" unless responses are counts',
        )


def fittable(responses: NDArray[np.float32], split: Split) -> NDArray[np.bool_]:
    """Which units a cut leaves enough responses on both sides, and some that differ to fit.

    Parameters
    ----------
    responses
        ``(n_train, n_units)``; NaN = missing.
    split
        The cut.

    Returns
    -------
    numpy.ndarray
        ``(n_units,)`` bool.
    """
    fit = responses[split.fit].astype(np.float64)
    there = ~np.isnan(fit)
    lowest = np.where(there, fit, np.inf).min(axis=0)
    highest = np.where(there, fit, -np.inf).max(axis=0)
    n_validation = (~np.isnan(responses[split.validation])).sum(axis=0)
    enough = (there.sum(axis=0) >= MIN_FIT) & (n_validation >= MIN_VALIDATION)
    size = np.maximum(np.abs(lowest), np.abs(highest))
    return np.asarray(enough & (highest - lowest > 1e-6 * size))


def _without_empty(recording: Recording) -> NDArray[np.float32]:
    """Test responses with units that have none set to 0, which no check minds."""
    assert recording.test_responses is not None
    responses = recording.test_responses.copy()
    responses[:, :, np.isnan(responses).all(axis=(0, 1))] = 0
    return responses


def _refuse(
    recording: Recording,
    at_fault: NDArray[np.bool_],
    problem: Callable[[int], str],
    remedy: str,
) -> None:
    units = np.flatnonzero(at_fault)
    if units.size:
        unit = int(units[0])
        more = f" (and {units.size - 1} more units)" if units.size > 1 else ""
        raise InputError(
            f"{recording.source}: {recording.unit_name(unit)} {problem(unit)}{more}; {remedy}"
        )
