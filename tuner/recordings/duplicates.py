"""Images that are the same, or nearly: found by a perceptual hash, and kept on one side of every cut.

An image that is fitted and judged on flatters every score. Photographs come twice as exact copies, saved anew at another
quality, at another size, or a little brighter; crops of one photograph overlap. Two images are taken for the same where
their pixels are equal, or where the 64-bit hashes of their coarse luminance [1]_ differ in at most :data:`HASH_DISTANCE`
bits and their luminance, and its detail, are correlated. Of recorded photographs none of 1.4 million pairs that are no
copies was taken for the same; of copies at JPEG quality 40, half size, 1.7 times the size, gamma 0.8 or with noise of 5 grey
levels 98 to 100 % were found (``python -m benchmarks.duplicates``).

References
----------
.. [1] Zauner (2010), Implementation and benchmarking of perceptual image hash functions: the signs of the low frequencies
   of the discrete cosine transform about their median.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.progress import Progress
from tuner.recordings.paths import shortened
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import array_digest

VERSION = 1
"""Of what counts as the same; what was found by another version is looked for anew."""

SIDE = 32
"""Cells a side of the small image that two images are compared by."""

LOW = 8
"""Frequencies a side that the hash is made of: 8 x 8 bits."""

HASH_DISTANCE = 12
"""Bits of 64 in which the hashes of two nearly equal images may differ; unrelated ones differ in 32."""

LUMINANCE = 0.95
"""Least correlation of their small luminance images."""

DETAIL = 0.7
"""Least correlation of these less their local means: two skies agree in the coarse and not in this."""

_BLOCK = 1024

Pairs = NDArray[np.int64]
"""``(n, 2)`` places of two images that are the same; training images first, test images after them."""


@dataclass(frozen=True)
class Look:
    """What is remembered of an image.

    Parameters
    ----------
    digest
        Hash of its pixels.
    size
        ``"500 x 500"``, width x height, pixels.
    bits
        Perceptual hash, 64 bits.
    small
        (32 x 32,) luminance less its mean, of length 1 (0 for a flat image).
    detail
        (32 x 32,) luminance less its mean over 5 x 5 cells, of length 1.
    """

    digest: bytes
    size: str
    bits: int
    small: NDArray[np.float32]
    detail: NDArray[np.float32]


def look(image: NDArray[np.uint8]) -> Look:
    """Look at an image (height, width, 3)."""
    from PIL import Image
    from scipy.fft import dctn
    from scipy.ndimage import uniform_filter

    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float64) @ [0.299, 0.587, 0.114]
    low = dctn(grey, norm="ortho")[:LOW, :LOW].ravel()
    bits = np.packbits(low > np.median(low[1:])).tobytes()
    return Look(
        array_digest(image),
        f"{image.shape[1]} x {image.shape[0]}",
        int.from_bytes(bits, "big"),
        _unit(grey - grey.mean()),
        _unit(grey - uniform_filter(grey, 5)),
    )


def _unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(values))
    # Rounding is no detail: a flat image equals nothing but its exact copies.
    scale = 1.0 / length if length > 1e-6 * values.size else 0.0
    return (values * scale).ravel().astype(np.float32)


def look_at(images: ImageSource, progress: Callable[[], None] | None = None) -> list[Look]:
    """Read every image once and look at it."""
    from tuner.recordings.sources import in_threads

    def one(index: int) -> Look:
        found = look(images.read(index))
        if progress is not None:
            progress()
        return found

    return in_threads(one, len(images))


def same(looks: list[Look]) -> Pairs:
    """Find all pairs of images that are the same, exactly or nearly.

    Parameters
    ----------
    looks
        What every image looks like, reduced to a few numbers.

    Returns
    -------
    ndarray
        (n, 2), the smaller place first, in order.
    """
    found: set[tuple[int, int]] = set()
    first: dict[bytes, int] = {}
    for place, one in enumerate(looks):
        earlier = first.setdefault(one.digest, place)
        if earlier != place:
            found.add((earlier, place))
    if looks:
        small = np.stack([one.small for one in looks])
        detail = np.stack([one.detail for one in looks])
        for i, j in _close(np.array([one.bits for one in looks], dtype=np.uint64)):
            alike = (small[i] * small[j]).sum(1) >= LUMINANCE
            alike &= (detail[i] * detail[j]).sum(1) >= DETAIL
            found.update(zip(i[alike].tolist(), j[alike].tolist(), strict=True))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def _close(bits: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of places whose hashes differ in few bits, block by block."""
    for start in range(0, len(bits), _BLOCK):
        rows = bits[start : start + _BLOCK]
        distance = np.bitwise_count(rows[:, None] ^ bits[None, start:])
        i, j = np.nonzero(distance <= HASH_DISTANCE)
        later = j > i
        yield start + i[later], start + j[later]


def find(recording: Recording, progress: Progress | None = None) -> Pairs:
    """Find the images of a recording that are the same; every image is read once.

    Parameters
    ----------
    recording
        The recording.
    progress
        Called with (what, done, total).

    Returns
    -------
    ndarray
        (n, 2) places, test images counted on from the training images.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    total, done = recording.n_train + recording.n_test, 0

    def seen() -> None:
        nonlocal done
        done += 1
        if progress is not None and (done % 64 == 0 or done == total):
            progress("looking for equal images", done, total)

    looks = look_at(recording.train_images, seen)
    if recording.test_images is not None:
        looks += look_at(recording.test_images, seen)
    return same(looks)


def refuse_leaks(recording: Recording, pairs: Pairs) -> None:
    """Refuse a recording whose test images are training images too.

    Raises
    ------
    InputError
        Naming some of them, and the key that allows it.
    """
    n = recording.n_train
    leaks = pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n)]
    if not len(leaks) or recording.test_images is None:
        return
    first = {int(test) - n: int(train) for train, test in leaks[::-1]}
    train, test = recording.train_images.names, recording.test_images.names
    some = shortened(f"{test[t]} is {train[first[t]]}" for t in sorted(first))
    raise InputError(
        f"{recording.source}: {len(first)} of {recording.n_test} test images are training images too, "
        f'exactly or nearly ({some}); take them out of one side, or set data.test_duplicates = "allow"'
    )


def group(recording: Recording, pairs: Pairs) -> Recording:
    """Make images that are the same one group, so that they stay on one side of every cut.

    Groups that share such an image become one. Pairs of a training and a test image change nothing: they are on two sides
    already.

    Parameters
    ----------
    recording
        The recording.
    pairs
        Pairs of equal images, as :func:`find` returns them.

    Returns
    -------
    Recording
        With a note for each part in which anything changed; the same one where nothing did.
    """
    n = recording.n_train
    inside_train = pairs[pairs[:, 1] < n]
    inside_test = pairs[pairs[:, 0] >= n] - n
    train, train_note = _merged(
        recording.train_groups, inside_train, n, "training", recording.train_images
    )
    test, test_note = recording.test_groups, ""
    if recording.test_images is not None:
        # Codes of their own where neither part has any: equal ones would say that groups are shared.
        none = np.arange(n, n + recording.n_test) if recording.train_groups is None else None
        test, test_note = _merged(
            recording.test_groups,
            inside_test,
            recording.n_test,
            "test",
            recording.test_images,
            none,
        )
    notes = tuple(note for note in (train_note, test_note) if note)
    if not notes:
        return recording
    return replace(
        recording, train_groups=train, test_groups=test, notes=(*recording.notes, *notes)
    )


def _merged(
    groups: NDArray[np.int64] | None,
    pairs: Pairs,
    n: int,
    part: str,
    images: ImageSource,
    without: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64] | None, str]:
    """Groups in which the images of a pair are together, and what there is to say of it."""
    if groups is not None:
        codes = groups
    else:
        codes = np.arange(n) if without is None else without
    across = pairs[codes[pairs[:, 0]] != codes[pairs[:, 1]]]
    if not len(across):
        return groups, ""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    order, member = np.unique(codes, return_inverse=True)
    ends = member.reshape(-1)[across]
    links = coo_array((np.ones(len(ends)), ends.T), shape=(order.size, order.size))
    part_of = connected_components(links, directed=False)[1]
    # A merged group keeps the place of its first: cuts deal groups in the order of their codes.
    least = np.full(part_of.max() + 1, order.size)
    np.minimum.at(least, part_of, np.arange(order.size))
    merged = order[least[part_of]][member.reshape(-1)].astype(np.int64)
    twice = np.unique(across)
    names = shortened(images.names[int(i)] for i in twice)
    return merged, (
        f"{twice.size} of {n} {part} images occur more than once, exactly or nearly ({names}): equal ones "
        "are a group, on one side of every cut"
    )
