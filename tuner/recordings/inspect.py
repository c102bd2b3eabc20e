"""What is in a recording, and what about it is suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.recordings.paths import shortened
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import array_digest, in_threads
from tuner.scores import cc_max, pairwise_reliability, split_half_reliability

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
        Its name.
    n_units
        Its units.
    missing_train, missing_test
        Share of responses that are missing; None without a test set.
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
class UnitSummary:
    """Per-unit values behind the summary of regions, each (n_units,), NaN where undefined."""

    region: NDArray[np.str_]
    reliability: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    missing: NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """A recording in brief.

    Parameters
    ----------
    label, source, simulated
        As of the recording.
    n_units, n_train, n_test, n_repeats
        Counts.
    image_sizes
        ``"500 x 500"`` (width x height) to the number of images looked at that have it.
    n_groups
        Groups of training images; None without groups.
    columns
        Unit columns.
    regions
        One entry per region.
    units
        What figures show.
    suspicious
        What may be wrong, one line each; empty if nothing is.
    notes
        What was noted on reading.
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

    def as_dict(self) -> dict[str, Any]:
        """Return all but the per-unit values, for JSON."""
        plain = {k: v for k, v in self.__dict__.items() if k not in ("regions", "units")}
        return plain | {"regions": [asdict(region) for region in self.regions]}


def inspect(recording: Recording, region: str = "area") -> Summary:
    """Summarise a recording and list what is suspicious about it.

    Every image is read once.

    Parameters
    ----------
    recording
        The recording.
    region
        The unit column whose values are the regions.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If there is no such column, or an image cannot be read.
    """
    regions = recording.regions(region)
    units = _units(recording, regions)
    half = np.full(recording.n_units, np.nan)
    if recording.test_responses is not None and recording.n_repeats > 1:
        half = split_half_reliability(recording.test_responses)
    train, test = _looked_at(recording.train_images), _looked_at(recording.test_images)
    summaries = tuple(
        _region(recording, name, members, units, half) for name, members in regions.items()
    )
    return Summary(
        label=recording.label,
        source=recording.source,
        simulated=recording.simulated,
        n_units=recording.n_units,
        n_train=recording.n_train,
        n_test=recording.n_test,
        n_repeats=recording.n_repeats,
        image_sizes=dict(Counter(size for _, size in (*train, *test)).most_common()),
        n_groups=None if recording.train_groups is None else len(set(recording.train_groups)),
        columns=tuple(recording.units),
        regions=summaries,
        units=units,
        suspicious=(
            *_suspicious_images(recording, train, test),
            *_suspicious_responses(recording),
            *_suspicious_regions(summaries),
        ),
        notes=recording.notes,
    )


def _units(recording: Recording, regions: dict[str, NDArray[np.int64]]) -> UnitSummary:
    names = np.empty(recording.n_units, dtype=object)
    for name, members in regions.items():
        names[members] = name
    undefined = np.full(recording.n_units, np.nan)
    reliability, ceiling = undefined, undefined.copy()
    test = recording.test_responses
    if test is not None and recording.n_repeats > 1:
        reliability = pairwise_reliability(test)
        ceiling = cc_max(test)
        ceiling = np.where(ceiling > 0, ceiling, np.nan)
    missing = np.isnan(recording.train_responses).mean(axis=0)
    return UnitSummary(names.astype(np.str_), reliability, ceiling, missing)


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
        missing_test=None if test is None else float(np.isnan(test[:, :, members]).mean()),
        reliability=_median(units.reliability[members]),
        split_half=_median(half[members]),
        ceiling=_median(units.ceiling[members]),
        n_units_with_ceiling=int(np.isfinite(units.ceiling[members]).sum()),
    )


def _median(values: NDArray[np.float64]) -> float | None:
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if defined.size else None


def _looked_at(images: ImageSource | None) -> list[tuple[bytes, str]]:
    """Read every image once: its hash and its size."""
    if images is None:
        return []

    def look(index: int) -> tuple[bytes, str]:
        image = images.read(index)
        return array_digest(image), f"{image.shape[1]} x {image.shape[0]}"

    return in_threads(look, len(images))


def _suspicious_images(
    recording: Recording, train: list[tuple[bytes, str]], test: list[tuple[bytes, str]]
) -> Iterator[str]:
    for part, looked, source in (
        ("training", train, recording.train_images),
        ("test", test, recording.test_images),
    ):
        if source is None:
            continue
        count = Counter(digest for digest, _ in looked)
        again = [source.names[i] for i, (digest, _) in enumerate(looked) if count[digest] > 1]
        if again:
            yield f"{len(again)} {part} images occur more than once: {shortened(again)}"
    trained = {digest for digest, _ in train}
    if recording.test_images is not None:
        both = [recording.test_images.names[i] for i, (d, _) in enumerate(test) if d in trained]
        if both:
            yield f"{len(both)} test images are training images too: {shortened(both)}"
    if recording.train_groups is not None and recording.test_groups is not None:
        shared = np.intersect1d(recording.train_groups, recording.test_groups).size
        if shared:
            yield f"{shared} groups have both training and test images"
    square = {size for _, size in (*train, *test) if len(set(size.split(" x "))) > 1}
    if square:
        yield f"some images are not square ({shortened(sorted(square))}): set data.fit"


def _suspicious_responses(recording: Recording) -> Iterator[str]:
    responses = recording.train_responses.astype(np.float64)
    mean = np.nanmean(responses, axis=0)
    sd = np.nanstd(responses, axis=0)
    size = np.nanmax(np.abs(responses), axis=0)
    constant = np.flatnonzero(sd <= 1e-6 * size)
    if constant.size:
        yield f"{_units_named(recording, constant)} respond alike to every training image"
    if recording.n_units > recording.n_train:
        yield (
            f"there are more units ({recording.n_units}) than training images "
            f"({recording.n_train}): are responses transposed?"
        )
    yield from _not_normalised(recording, responses, mean, sd)
    twins = _twins(responses)
    if twins.size:
        yield f"{_units_named(recording, twins)} respond exactly as another unit does"
    test = recording.test_responses
    if test is not None:
        empty = np.flatnonzero(np.isnan(test).all(axis=(0, 1)))
        if empty.size:
            yield f"{_units_named(recording, empty)} have no test response"
        if recording.n_repeats < 2:
            yield "test images were shown once: there are no ceilings"
        yield from _shifted(mean, sd, test)


def _not_normalised(
    recording: Recording,
    responses: NDArray[np.float64],
    mean: NDArray[np.float64],
    sd: NDArray[np.float64],
) -> Iterator[str]:
    varies = sd > 0
    if not varies.any():
        return
    there = responses[np.isfinite(responses)]
    counts = bool((there >= 0).all() and (there == np.floor(there)).all())
    if counts:
        yield 'all responses are whole numbers from 0: counts? Then set training.loss = "poisson"'
        return
    spread = sd[varies].max() / sd[varies].min()
    if spread > 1000:
        yield (
            f"responses are not normalised: standard deviations of units differ {spread:.0f}-fold"
        )
    far = np.flatnonzero(varies & (np.abs(mean) > 20 * sd))
    if far.size:
        yield (
            f"responses are not normalised: the mean of {_units_named(recording, far)} is more "
            "than 20 standard deviations from 0"
        )


def _shifted(
    mean: NDArray[np.float64], sd: NDArray[np.float64], test: NDArray[np.float32]
) -> Iterator[str]:
    """Compare test with training responses: a unit should be on the same scale in both."""
    valid = np.isfinite(test)
    count = valid.sum(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        test_mean = np.where(valid, test, 0).sum(axis=(0, 1), dtype=np.float64) / count
        shifted = int((np.abs(test_mean - mean) > 3 * sd).sum())
    if shifted:
        yield (
            f"in {shifted} units the mean test response is more than 3 standard deviations from "
            "the mean training response: are both normalised alike?"
        )


def _twins(responses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find units whose training responses equal those of an earlier unit."""
    seen: set[bytes] = set()
    twins = []
    for unit in range(responses.shape[1]):
        key = array_digest(np.ascontiguousarray(responses[:, unit]).view(np.uint8))
        if key in seen:
            twins.append(unit)
        seen.add(key)
    return np.array(twins, dtype=np.int64)


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


def _units_named(recording: Recording, units: NDArray[np.int64]) -> str:
    """Name the first units of a list and count them."""
    names = shortened(str(int(unit)) for unit in units)
    return f"{units.size} of {recording.n_units} units ({names})"
