"""Whether the values of an HDF5 file are stored where, and as much as, the file says.

HDF5 checks little of this itself: it reads zeros where a part is missing, and whatever lies at a
wrong address. Such numbers look like responses.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5 import probe
from tuner.recordings.hdf5.errors import guarded

_HIDDEN = "#refs#"  # where MATLAB puts the contents of cells: tens of thousands, and all texts


def check_stored(path: Path, data: h5py.Dataset, name: str) -> None:
    """Refuse a dataset whose stored parts are not where and what they should be.

    HDF5 itself reads zeros where a chunk is missing, and whatever lies at a wrong address: such
    numbers look like responses. A dataset that was never written in parts passes if what it is
    filled with says so, that is, if it is NaN.

    Raises
    ------
    InputError
        If a part is missing, twice there, out of the file, or of a wrong size.
    """
    with guarded(path, name):
        if not data.size or data.shape == ():
            return
        length = path.stat().st_size
        layout = data.id.get_create_plist().get_layout()
        if layout == h5py.h5d.CONTIGUOUS:
            start, stored = data.id.get_offset(), data.id.get_storage_size()
            if start is None and _fill_is_missing(data):
                return
            # Texts and references have another size in the file than in memory.
            expected = stored if data.dtype.kind == "O" else data.size * data.dtype.itemsize
            sound = start is not None and stored == expected and start + stored <= length
        elif layout == h5py.h5d.CHUNKED:
            sound = _chunks_are_sound(data, length)
        else:
            sound = True
        if not sound:
            raise InputError(
                f"{path}: {name} is not stored whole; the file is damaged or was never finished"
            )


def check_reached(data: h5py.Dataset, values: NDArray[Any], start: Sequence[int] = ()) -> None:
    """Look again where a whole chunk reads as zeros; to be called under ``guarded``.

    HDF5 reads zeros also where the index to a chunk is damaged, though the chunk is listed. Read
    by itself it is then not found, which raises.

    Parameters
    ----------
    data
        The dataset.
    values
        A block of it, as read.
    start
        Where the block starts along each axis; 0 along those not given.
    """
    if not data.chunks or not values.size or values.dtype.kind not in "fiu":
        return
    chunks, start = data.chunks, (*start, *[0] * (values.ndim - len(start)))
    places = [
        range(at // chunk * chunk, at + length, chunk)
        for at, chunk, length in zip(start, chunks, values.shape, strict=True)
    ]

    def within(axis: int, place: int) -> slice:
        return slice(max(place - start[axis], 0), place - start[axis] + chunks[axis])

    for row in places[0]:
        part = values[within(0, row)]
        if part.all():
            continue  # No zero in all of these chunks: the usual case, and quick.
        for place in itertools.product(*places[1:]):
            block = tuple(within(axis, at) for axis, at in enumerate(place, start=1))
            if not part[(slice(None), *block)].any():
                data.id.read_direct_chunk((row, *place))


def _fill_is_missing(data: h5py.Dataset) -> bool:
    return data.dtype.kind == "f" and bool(np.isnan(data.fillvalue))


def _chunks_are_sound(data: h5py.Dataset, length: int) -> bool:
    found: set[tuple[int, ...]] = set()
    spans: list[tuple[int, int]] = []
    whole_chunk = math.prod(data.chunks) * data.dtype.itemsize
    filters = data.id.get_create_plist().get_nfilters()
    short = False

    def note(chunk: Any) -> None:
        nonlocal short
        # A chunk that a filter was not applied to is not smaller than its values.
        if (chunk.filter_mask or not filters) and chunk.size < whole_chunk:
            short = True
        found.add(tuple(chunk.chunk_offset))
        spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

    data.id.chunk_iter(note)
    if short or len(spans) != len(found):
        return False
    steps = [range(0, n, c) for n, c in zip(data.shape, data.chunks, strict=True)]
    if not all(all(at in step for at, step in zip(offset, steps, strict=True)) for offset in found):
        return False
    spans.sort()
    apart = all(mine[1] <= next_[0] for mine, next_ in itertools.pairwise(spans))
    whole = len(found) == math.prod(len(step) for step in steps) or _fill_is_missing(data)
    return whole and apart and all(end <= length for _, end in spans)


def check_apart(path: Path, file: h5py.File) -> None:
    """Refuse a file in which two datasets share bytes, or one lies over another's header.

    That is what becomes of a wrong address: the values of one dataset are then read as those of
    another, shifted by a few. Looked at once per state of a file; to be called under ``guarded``.

    Raises
    ------
    InputError
        Naming a dataset that lies where another does.
    """
    state = probe.file_state(path)
    if state not in _apart:
        _apart[state] = _overlapping(file)
        while len(_apart) > _REMEMBERED:
            del _apart[next(iter(_apart))]
    if _apart[state] is not None:
        raise InputError(
            f"{path}: {_apart[state]} lies where something else does; the file is damaged, get it again"
        )


_REMEMBERED = 1000
_apart: dict[Any, str | None] = {}


def _overlapping(file: h5py.File) -> str | None:
    """Name a dataset whose bytes are not its own alone."""
    spans: list[tuple[int, int, str]] = []
    headers: list[int] = []

    def visit(name: str, member: Any) -> None:
        if name.startswith(_HIDDEN):
            return
        headers.append(h5py.h5o.get_info(member.id).addr + file.userblock_size)
        if not isinstance(member, h5py.Dataset) or not member.size:
            return
        if member.chunks:
            member.id.chunk_iter(
                lambda c: spans.append((c.byte_offset, c.byte_offset + c.size, name))
            )
        elif (start := member.id.get_offset()) is not None:
            spans.append((start, start + member.id.get_storage_size(), name))

    # What cannot be reached may be nothing that a reader wants; it says so itself where it is.
    with contextlib.suppress(OSError, RuntimeError, LookupError, ValueError, TypeError):
        file.visititems(visit)
    spans.sort()
    headers.sort()
    for mine, next_ in itertools.pairwise(spans):
        if mine[1] > next_[0]:
            return next_[2]
    for start, stop, name in spans:
        at = bisect_left(headers, start)
        if at < len(headers) and headers[at] < stop:
            return name
    return None
