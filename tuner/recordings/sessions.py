"""Recordings of different units and images, such as the days of an experiment, as one: what was not shown is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.join import concatenated_columns, padded_repeats, shared_unit
from tuner.recordings.recording import SESSION, ImageSource, Recording
from tuner.recordings.sources import FileImages, array_digest, combined_digest, in_threads

Rows = NDArray[np.int64]


def join_sessions(recordings: Mapping[str, Recording], images: Path | None = None) -> Recording:
    """Put recordings of different units and images into one.

    An image that several recordings have, the same to the pixel, becomes one row; images that only some of them have are
    missing for the units of the others. So every unit is fitted to the images it was shown.

    Parameters
    ----------
    recordings
        Name of the session to recording.
    images
        The folder of the images, where all recordings name files in it: then the joined recording names them too.
        Otherwise it holds their pixels.

    Returns
    -------
    Recording
        A unit column ``session`` holds the names; arrays carry them (``A/3``), areas do not. Images of one group stay in
        one, also across recordings: groups that share an image are one.

    Raises
    ------
    InputError
        If there are fewer than two, only some have test images, or a name of a session means two things.
    """
    if len(recordings) < 2:
        raise InputError("joining needs at least two recordings")
    parts = list(recordings.values())
    without = [name for name, r in recordings.items() if r.test_responses is None]
    if without and len(without) < len(parts):
        raise InputError(
            f"{without[0]} has no test images and others have; join those that have some"
        )
    sources = [part.train_images for part in parts]
    tests = [part.test_images for part in parts if part.test_images is not None]
    train, test = _union(sources), _union(tests)
    groups = _groups(parts, train, test)
    n_train = len(train.first)
    responses = np.full((n_train, sum(p.n_units for p in parts)), np.nan, dtype=np.float32)
    unit = 0
    for part, rows in zip(parts, train.rows, strict=True):
        responses[rows, unit : unit + part.n_units] = part.train_responses
        unit += part.n_units
    return Recording(
        label=" + ".join(dict.fromkeys(part.label for part in parts)),
        source=" + ".join(part.source for part in parts),
        simulated=any(part.simulated for part in parts),
        units=_columns(recordings),
        train_images=_joined(sources, train, images),
        train_responses=responses,
        train_groups=None if groups is None else groups[:n_train],
        test_images=_joined(tests, test, images) if tests else None,
        test_responses=_test_responses(parts, test) if tests else None,
        test_groups=None if groups is None or not tests else groups[n_train:],
        notes=_notes(recordings, train),
        measured_in=shared_unit(parts),
    )


class _Union:
    """Images of several sources, each once.

    Attributes
    ----------
    digests
        Digest of every image's pixels.
    first
        Source and index in it that each is read from.
    rows
        For each source the row of each of its images.
    """

    def __init__(self, digests: Sequence[Sequence[bytes]]) -> None:
        self.digests: list[bytes] = []
        self.first: list[tuple[int, int]] = []
        self.rows: list[Rows] = []
        known: dict[tuple[bytes, int], int] = {}
        for number, mine in enumerate(digests):
            seen: dict[bytes, int] = {}
            rows = []
            for index, digest in enumerate(mine):
                # Shown again within a recording it keeps a row, and so a response, of its own.
                again = seen[digest] = seen.get(digest, -1) + 1
                row = known.setdefault((digest, again), len(self.first))
                if row == len(self.first):
                    self.first.append((number, index))
                    self.digests.append(digest)
                rows.append(row)
            self.rows.append(np.array(rows, dtype=np.int64))


def _union(sources: Sequence[ImageSource]) -> _Union:
    def digests(source: ImageSource) -> list[bytes]:
        return in_threads(lambda index: array_digest(source.read(index)), len(source))

    return _Union([digests(source) for source in sources])


class JoinedImages:
    """Images of several sources in an order of their own.

    Parameters
    ----------
    sources
        Where they are read from.
    places
        Source and index in it of each image.
    digests
        Digest of each image's pixels.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        places: Sequence[tuple[int, int]],
        digests: Sequence[bytes],
    ) -> None:
        self._sources, self._places = list(sources), list(places)
        self._digests = list(digests)
        self.names: Sequence[str] = [sources[s].names[i] for s, i in places]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one image as (height, width, 3)."""
        source, place = self._places[index]
        return self._sources[source].read(place)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image, pixels."""
        source, place = self._places[index]
        return self._sources[source].size(place)

    def digest(self) -> str:
        """Hash all images."""
        return combined_digest(self._digests)


def _joined(sources: Sequence[ImageSource], union: _Union, images: Path | None) -> ImageSource:
    joined = JoinedImages(sources, union.first, union.digests)
    if images is not None and all(isinstance(source, FileImages) for source in sources):
        return FileImages(images, joined.names, str(images))
    return joined


def _groups(parts: Sequence[Recording], train: _Union, test: _Union) -> Rows | None:
    """Group of every row, those of test images last: together are those that a recording says, and those of equal pixels."""
    digests = [*train.digests, *test.digests]
    apart = len(set(digests)) == len(digests)
    if apart and all(p.train_groups is None and p.test_groups is None for p in parts):
        return None
    leader = list(range(len(digests)))

    def lead(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    together: dict[tuple[object, ...], int] = {}

    def unite(key: tuple[object, ...], row: int) -> None:
        a, b = lead(row), lead(together.setdefault(key, row))
        leader[max(a, b)] = min(a, b)

    for row, digest in enumerate(digests):
        unite(("pixels", digest), row)
    n_train = len(train.digests)
    for number, part in enumerate(parts):
        for codes, rows, offset in (
            (part.train_groups, train.rows[number], 0),
            (part.test_groups, test.rows[number] if test.rows else None, n_train),
        ):
            if codes is not None and rows is not None:
                for code, row in zip(codes.tolist(), rows.tolist(), strict=True):
                    unite((number, code), row + offset)
    leaders = [lead(row) for row in range(len(digests))]
    _, codes_of_all = np.unique(leaders, return_inverse=True)
    return codes_of_all.reshape(-1).astype(np.int64)


def _columns(recordings: Mapping[str, Recording]) -> dict[str, NDArray[Any]]:
    columns = concatenated_columns(recordings, prefixed=("array",))
    names = np.concatenate([np.full(r.n_units, name) for name, r in recordings.items()])
    if SESSION not in columns:
        return columns | {SESSION: names}
    inner = columns[SESSION].astype(np.str_)
    for value in np.unique(inner).tolist():
        here = np.unique(names[inner == value])
        if not value or len(here) > 1:
            raise InputError(
                f"unit column {SESSION!r}: {value!r} stands in {' and '.join(here)}; rename the "
                "sessions of one of them"
            )
    return columns | {SESSION: inner}


def _test_responses(parts: Sequence[Recording], test: _Union) -> NDArray[np.float32]:
    repeats = max(part.n_repeats for part in parts)
    units = sum(part.n_units for part in parts)
    out = np.full((repeats, len(test.first), units), np.nan, dtype=np.float32)
    unit = 0
    for part, rows in zip(parts, test.rows, strict=True):
        out[:, rows, unit : unit + part.n_units] = padded_repeats(part, repeats)
        unit += part.n_units
    return out


def _notes(recordings: Mapping[str, Recording], train: _Union) -> tuple[str, ...]:
    each = [
        f"session {name}: {r.n_units} units, {r.n_train} training images"
        for name, r in recordings.items()
    ]
    shared = sum(len(rows) for rows in train.rows) - len(train.first)
    if shared:
        each.append(f"{shared} training images were shown in several sessions, and count once")
    return (*each, *(f"{name}: {note}" for name, r in recordings.items() for note in r.notes))
