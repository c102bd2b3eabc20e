"""Several recordings of the same images as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.recording import ImageSource, Recording, region_name

_PREFIXED = ("area", "array")
"""Columns whose values would otherwise mean different things in different recordings."""


def join_recordings(recordings: Mapping[str, Recording]) -> Recording:
    """Put the units of several recordings of the same images side by side.

    Parameters
    ----------
    recordings
        Short name (such as ``"N"``) to recording. All must have the same training and test
        images in the same order.

    Returns
    -------
    Recording
        Areas and arrays carry the names: ``N/V1``, ``F/V1``, ``N/3``; a column ``recording`` holds
        them alone. A recording with fewer repeats has its other repeats missing.

    Raises
    ------
    InputError
        If there are fewer than two, or their images, groups or test sets differ.
    """
    if len(recordings) < 2:
        raise InputError("joining needs at least two recordings")
    names = list(recordings)
    first = recordings[names[0]]
    for name in names[1:]:
        _check_same(names[0], first, name, recordings[name])
    parts = list(recordings.values())
    return replace(
        first,
        label=" + ".join(dict.fromkeys(part.label for part in parts)),
        source=" + ".join(part.source for part in parts),
        simulated=any(part.simulated for part in parts),
        units=_columns(recordings),
        train_responses=np.concatenate([part.train_responses for part in parts], axis=1),
        test_responses=_test(parts),
        notes=tuple(f"{name}: {note}" for name, r in recordings.items() for note in r.notes),
        truth=None,
        measured_in=shared_unit(parts),
    )


def shared_unit(parts: Sequence[Recording]) -> str:
    """What the responses of all recordings are measured in; empty where they differ."""
    each = {part.measured_in for part in parts}
    return each.pop() if len(each) == 1 else ""


def _check_same(name: str, first: Recording, other_name: str, other: Recording) -> None:
    pair = f"recordings {name} and {other_name}"
    _check_images(pair, "training", first.train_images, other.train_images)
    if (first.test_images is None) != (other.test_images is None):
        raise InputError(f"{pair}: only one has a test set")
    if first.test_images is not None and other.test_images is not None:
        _check_images(pair, "test", first.test_images, other.test_images)
    for groups, others in (
        (first.train_groups, other.train_groups),
        (first.test_groups, other.test_groups),
    ):
        if (groups is None) != (others is None) or (
            groups is not None and others is not None and not np.array_equal(groups, others)
        ):
            raise InputError(f"{pair}: their images are grouped differently")


def _check_images(pair: str, part: str, images: ImageSource, others: ImageSource) -> None:
    if len(images) != len(others):
        raise InputError(f"{pair}: {len(images)} and {len(others)} {part} images; must be the same")
    for index, (mine, yours) in enumerate(zip(images.names, others.names, strict=True)):
        if mine != yours:
            raise InputError(
                f"{pair}: {part} image {index} is {mine} in one and {yours} in the other; "
                "only recordings of the same images can be joined"
            )
    if images.digest() != others.digest():
        raise InputError(f"{pair}: their {part} images have the same names but differ in content")


def _columns(recordings: Mapping[str, Recording]) -> dict[str, NDArray[Any]]:
    columns = concatenated_columns(recordings, _PREFIXED)
    columns["recording"] = np.concatenate(
        [np.full(r.n_units, name) for name, r in recordings.items()]
    )
    return columns


def concatenated_columns(
    recordings: Mapping[str, Recording], prefixed: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Unit columns of all recordings one after another; values of those in ``prefixed`` carry the recording's name."""
    columns: dict[str, NDArray[Any]] = {}
    for column in dict.fromkeys(c for r in recordings.values() for c in r.units):
        parts = []
        for name, recording in recordings.items():
            values = recording.units.get(column)
            if values is not None and column in prefixed:
                values = np.array([f"{name}/{region_name(value)}" for value in values])
            parts.append(values)
        columns[column] = _concatenated(parts, [r.n_units for r in recordings.values()])
    return columns


def _concatenated(parts: list[NDArray[Any] | None], lengths: list[int]) -> NDArray[Any]:
    """Concatenate a column; where a recording lacks it, values are missing."""
    there = [part for part in parts if part is not None]
    textual = any(part.dtype.kind not in "fiub" for part in there)
    complete = len(there) == len(parts)
    filled: list[NDArray[Any]] = []
    for part, length in zip(parts, lengths, strict=True):
        if textual:
            filled.append(np.full(length, "") if part is None else part.astype(np.str_))
        elif complete:
            assert part is not None
            filled.append(part)
        else:
            filled.append(np.full(length, np.nan) if part is None else part.astype(np.float64))
    return np.concatenate(filled)


def _test(parts: list[Recording]) -> NDArray[np.float32] | None:
    if any(part.test_responses is None for part in parts):
        return None
    repeats = max(part.n_repeats for part in parts)
    return np.concatenate([padded_repeats(part, repeats) for part in parts], axis=2)


def padded_repeats(recording: Recording, repeats: int) -> NDArray[np.float32]:
    """Test responses of so many repeats, those that there are not missing."""
    assert recording.test_responses is not None
    gap = ((0, repeats - recording.n_repeats), (0, 0), (0, 0))
    return np.pad(recording.test_responses, gap, constant_values=np.nan)
