"""What is in a recording, and what about it is suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.recordings.duplicates import look_at
from tuner.recordings.paths import shortened
from tuner.recordings.recording import Recording
from tuner.recordings.suspicions import suspicious_images, suspicious_responses
from tuner.scores import cc_max, has_ceiling, pairwise_reliability, split_half_reliability

FEW_UNITS = 5
"""Regions with fewer units than this are pointed out."""

MISSING_SHARE = 0.2
"""Regions with a larger share of missing responses than this are pointed out."""


@dataclass(frozen=True)
class RegionSummary:
    """One region.

    Parameters
    ----------
    region
        Name of the region.
    n_units
        Number of its units.
    missing_train, missing_test
        Share of responses that are missing, of the images that the unit's session was shown; None without a test set.
    reliability
        Median over units of the mean correlation between two repeats: of one presentation.
    split_half
        Median over units of the reliability of the mean over repeats (Spearman-Brown).
    ceiling
        Median over units of CCmax, over the units that have one.
    n_units_with_ceiling
        How many have one: their signal power is positive.
    """

    region: str
    n_units: int
    missing_train: float
    missing_test: float | None
    reliability: float | None
    split_half: float | None
    ceiling: float | None
    n_units_with_ceiling: int


@dataclass(frozen=True)
class SessionSummary:
    """One session of a joined recording.

    Parameters
    ----------
    session
        Name of the session.
    n_units
        Number of its units.
    n_train, n_test
        Images that any of them has a response to.
    n_repeats
        Most responses of a unit to a test image.
    """

    session: str
    n_units: int
    n_train: int
    n_test: int
    n_repeats: int


@dataclass(frozen=True)
class UnitSummary:
    """Per-unit values behind the summary of regions, each (n_units,), NaN where undefined.

    ``area`` is None where the recording has no such column.
    """

    region: NDArray[np.str_]
    reliability: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    missing: NDArray[np.float64]
    missing_test: NDArray[np.float64]
    area: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Summary:
    """A recording in brief.

    Parameters
    ----------
    label, source, simulated
        As of the recording.
    n_units, n_train, n_test, n_repeats
        Numbers of units, training images, test images, and presentations of each test image.
    image_sizes
        ``"500 x 500"`` (width x height) to the number of images looked at that have it.
    n_groups
        Groups of training images; None without groups.
    columns
        Names of the unit columns.
    regions
        One entry per region.
    units
        What is known of each unit, for figures.
    suspicious
        What may be wrong, one line each; empty if nothing is.
    notes
        What was noted on reading, and that there are no groups where there are none.
    sessions
        One entry per session, where units come from several.
    """

    label: str
    source: str
    simulated: bool
    n_units: int
    n_train: int
    n_test: int
    n_repeats: int
    image_sizes: dict[str, int]
    n_groups: int | None
    columns: tuple[str, ...]
    regions: tuple[RegionSummary, ...]
    units: UnitSummary
    suspicious: tuple[str, ...]
    notes: tuple[str, ...]
    sessions: tuple[SessionSummary, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all but the per-unit values, for JSON."""
        nested = ("regions", "units", "sessions")
        plain = {k: v for k, v in self.__dict__.items() if k not in nested}
        return plain | {
            "regions": [asdict(region) for region in self.regions],
            "sessions": [asdict(session) for session in self.sessions],
        }


def inspect(
    recording: Recording, region: str = "area", session: str | None = None, loss: str = "mse"
) -> Summary:
    """Summarise a recording and list what is suspicious about it.

    Every image is read once.

    Parameters
    ----------
    recording
        The recording.
    region
        The unit column whose values are the regions.
    session
        The unit column that tells sessions apart; by default ``session``, where there is one.
    loss
        What the recording is to be fitted by, ``"mse"`` or ``"poisson"``.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If there is no such column, or an image cannot be read.
    """
    regions = recording.regions(region)
    sessions = recording.sessions(session)
    units = _units(recording, regions, sessions)
    half = np.full(recording.n_units, np.nan)
    if recording.test_responses is not None and recording.n_repeats > 1:
        half = split_half_reliability(recording.test_responses)
    train = look_at(recording.train_images)
    test = [] if recording.test_images is None else look_at(recording.test_images)
    summaries = tuple(
        _region(recording, name, members, units, half) for name, members in regions.items()
    )
    several = [_session(recording, *one) for one in sessions.items()] if len(sessions) > 1 else []
    return Summary(
        label=recording.label,
        source=recording.source,
        simulated=recording.simulated,
        n_units=recording.n_units,
        n_train=recording.n_train,
        n_test=recording.n_test,
        n_repeats=recording.n_repeats,
        image_sizes=dict(Counter(one.size for one in (*train, *test)).most_common()),
        n_groups=None if recording.train_groups is None else len(set(recording.train_groups)),
        columns=tuple(recording.units),
        regions=summaries,
        units=units,
        suspicious=(
            *suspicious_images(recording, train, test),
            *suspicious_responses(recording, loss),
            *_suspicious_regions(summaries),
        ),
        notes=(*recording.notes, *_ungrouped(recording)),
        sessions=tuple(several),
    )


def _ungrouped(recording: Recording) -> Iterator[str]:
    """Say that nothing keeps related images on one side of a cut."""
    if recording.train_groups is None:
        yield (
            "no groups: where images show the same thing (crops of a photograph, frames of a film, exemplars of a "
            "concept), validation rewards memory; give such images one group (train/groups of the generic file)"
        )


def _session(recording: Recording, name: str, members: NDArray[np.int64]) -> SessionSummary:
    test = recording.test_responses
    there = None if test is None else ~np.isnan(test[:, :, members])
    return SessionSummary(
        session=name,
        n_units=len(members),
        n_train=int(_shown(recording.train_responses[:, members]).sum()),
        n_test=0 if there is None else int(there.any(axis=(0, 2)).sum()),
        n_repeats=0 if there is None else int(there.sum(axis=0).max()),
    )


def _shown(responses: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Images ``(n,)`` that any of some units has a response to."""
    return np.asarray(~np.isnan(responses).all(axis=1))


def _units(
    recording: Recording,
    regions: dict[str, NDArray[np.int64]],
    sessions: dict[str, NDArray[np.int64]],
) -> UnitSummary:
    names = np.empty(recording.n_units, dtype=object)
    for name, members in regions.items():
        names[members] = name
    undefined = np.full(recording.n_units, np.nan)
    reliability, ceiling = undefined, undefined.copy()
    test = recording.test_responses
    if test is not None and recording.n_repeats > 1:
        reliability = pairwise_reliability(test)
        ceiling = np.where(has_ceiling(test), cc_max(test), np.nan)
    missing, missing_test = np.zeros(recording.n_units), np.zeros(recording.n_units)
    for members in sessions.values():
        mine = recording.train_responses[:, members]
        missing[members] = np.isnan(mine[_shown(mine)]).mean(axis=0)
        if test is not None:
            tested = np.isnan(test[:, :, members])
            shown = tested[~tested.all(axis=(1, 2))][:, ~tested.all(axis=(0, 2))]
            missing_test[members] = shown.mean(axis=(0, 1)) if shown.size else 1.0
    area = recording.units.get("area")
    return UnitSummary(
        names.astype(np.str_),
        reliability,
        ceiling,
        missing,
        missing_test,
        None if area is None else area.astype(np.str_),
    )


def _region(
    recording: Recording,
    name: str,
    members: NDArray[np.int64],
    units: UnitSummary,
    half: NDArray[np.float64],
) -> RegionSummary:
    test = recording.test_responses
    return RegionSummary(
        region=name,
        n_units=len(members),
        missing_train=float(units.missing[members].mean()),
        missing_test=None if test is None else float(units.missing_test[members].mean()),
        reliability=_median(units.reliability[members]),
        split_half=_median(half[members]),
        ceiling=_median(units.ceiling[members]),
        n_units_with_ceiling=int(np.isfinite(units.ceiling[members]).sum()),
    )


def _median(values: NDArray[np.float64]) -> float | None:
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if defined.size else None


def _suspicious_regions(regions: tuple[RegionSummary, ...]) -> Iterator[str]:
    few = [f"{r.region} ({r.n_units})" for r in regions if r.n_units < FEW_UNITS]
    if few:
        yield f"regions with fewer than {FEW_UNITS} units: {shortened(few)}"
    gaps = [
        f"{r.region} ({r.missing_train:.0%})" for r in regions if r.missing_train > MISSING_SHARE
    ]
    if gaps:
        yield f"regions with many missing responses: {shortened(gaps)}"
    weak = [
        f"{r.region} ({r.n_units - r.n_units_with_ceiling} of {r.n_units})"
        for r in regions
        if r.ceiling is not None and r.n_units_with_ceiling < r.n_units
    ]
    if weak:
        yield f"regions with units that have no signal in the test repeats: {shortened(weak)}"
