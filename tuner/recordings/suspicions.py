"""What about a recording's images and responses may be wrong without being an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuner.recordings.duplicates import Look, same
from tuner.recordings.paths import shortened
from tuner.recordings.recording import Recording
from tuner.recordings.sources import array_digest


def suspicious_images(recording: Recording, train: list[Look], test: list[Look]) -> Iterator[str]:
    """Find images that occur twice, or in both sets; groups in both; images that are not square.

    Parameters
    ----------
    recording
        The recording.
    train, test
        What was seen of each image.

    Yields
    ------
    str
        One line per finding.
    """
    pairs, n = same([*train, *test]), recording.n_train
    for part, source, groups, inside in (
        ("training", recording.train_images, recording.train_groups, pairs[pairs[:, 1] < n]),
        ("test", recording.test_images, recording.test_groups, pairs[pairs[:, 0] >= n] - n),
    ):
        if groups is not None:  # equal images of one group are on one side of every cut
            inside = inside[groups[inside[:, 0]] != groups[inside[:, 1]]]
        again = np.unique(inside)
        if again.size and source is not None:
            names = shortened(source.names[int(i)] for i in again)
            yield f"{again.size} {part} images occur more than once, exactly or nearly: {names}"
    both = np.unique(pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n), 1]) - n
    if both.size and recording.test_images is not None:
        names = shortened(recording.test_images.names[int(i)] for i in both)
        yield f"{both.size} test images are training images too, exactly or nearly: {names}"
    if recording.train_groups is not None and recording.test_groups is not None:
        shared = np.intersect1d(recording.train_groups, recording.test_groups).size
        if shared:
            yield f"{shared} groups have both training and test images"
    square = {one.size for one in (*train, *test) if len(set(one.size.split(" x "))) > 1}
    if square:
        yield f"some images are not square ({shortened(sorted(square))}): set data.fit"


def suspicious_responses(recording: Recording, loss: str = "mse") -> Iterator[str]:
    """Find units and responses that do not look as they should.

    Parameters
    ----------
    recording
        The recording.
    loss
        What it is to be fitted by: of counts that are fitted as such nothing is said.

    Yields
    ------
    str
        One line per finding.
    """
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
    yield from _not_normalised(recording, responses, mean, sd, loss)
    twins = _twins(responses)
    if twins.size:
        yield f"{_units_named(recording, twins)} respond exactly as another unit does"
    test = recording.test_responses
    if test is not None:
        empty = np.flatnonzero(np.isnan(test).all(axis=(0, 1)))
        if empty.size:
            yield f"{_units_named(recording, empty)} have no test response"
        yield from _without_repeats(recording, test)
        yield from _shifted(mean, sd, test)


def _without_repeats(recording: Recording, test: NDArray[np.float32]) -> Iterator[str]:
    """Units whose noise nothing is known of: their test images have one response, or the mean over the repeats."""
    count = (~np.isnan(test)).sum(axis=0)
    once = np.flatnonzero((count == 1).any(axis=0) & (count <= 1).all(axis=0))
    if not once.size:
        return
    if once.size == recording.n_units:
        yield (
            "each test image has one response, of one presentation or the mean over several: there are "
            "no ceilings, and no score is normalised"
        )
        return
    yield (
        f"{_units_named(recording, once)} have one response to each test image, of one presentation or "
        "the mean over several: they have no ceiling, and regions' means leave them out"
    )


def _not_normalised(
    recording: Recording,
    responses: NDArray[np.float64],
    mean: NDArray[np.float64],
    sd: NDArray[np.float64],
    loss: str,
) -> Iterator[str]:
    varies = sd > 0
    if not varies.any():
        return
    there = responses[np.isfinite(responses)]
    counts = bool((there >= 0).all() and (there == np.floor(there)).all())
    if counts:
        if loss != "poisson":
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


def _units_named(recording: Recording, units: NDArray[np.int64]) -> str:
    """Name the first units of a list and count them."""
    names = shortened(str(int(unit)) for unit in units)
    return f"{units.size} of {recording.n_units} units ({names})"
