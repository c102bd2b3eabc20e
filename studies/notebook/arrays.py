"""A recording that is in memory, written as the generic file that experiments are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.errors import InputError


def write_arrays(
    path: Path,
    *,
    images: ArrayLike,
    responses: ArrayLike,
    groups: ArrayLike | None,
    test_images: ArrayLike | None,
    repeats: ArrayLike | None,
    test_groups: ArrayLike | None,
    units: Mapping[str, ArrayLike],
    measured_in: str,
    label: str,
    simulated: bool,
) -> None:
    """Write arrays as a generic HDF5 file; see :func:`studies.notebook.opening.open_experiment` for what they are.

    Raises
    ------
    InputError
        If an array has another shape or type than it must, naming it. What else is wrong is said when the file is opened.
    """
    from tuner.recordings.hdf5.writer import (
        new_file,
        write_array,
        write_attributes,
        write_columns,
        write_unit,
    )

    train = _pictures(images, "images")
    answers = _numbers(responses, "responses", 2, "(n_images, n_units)")
    if len(answers) != len(train):
        raise InputError(f"responses: {len(answers)} rows for {len(train)} images")
    if (test_images is None) != (repeats is None):
        raise InputError("test_images and repeats: give both or neither")
    if test_groups is not None and (groups is None or test_images is None):
        raise InputError("test_groups: are of test images, in the terms of groups; give those too")
    columns = {name: np.asarray(values) for name, values in units.items()}
    columns.setdefault("area", np.full(answers.shape[1], "all"))
    for name, values in columns.items():
        if values.shape != (answers.shape[1],):
            raise InputError(
                f'units["{name}"]: has shape {values.shape}, and responses are of {answers.shape[1]} units'
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        write_attributes(file, label, simulated)
        write_array(file, "train/images", train)
        write_array(file, "train/responses", answers)
        write_unit(file, measured_in)
        if groups is not None:
            write_array(file, "train/groups", np.asarray(groups))
        if test_images is not None and repeats is not None:
            write_array(file, "test/images", _pictures(test_images, "test_images"))
            shape = "(n_repeats, n_test_images, n_units)"
            write_array(file, "test/responses", _numbers(repeats, "repeats", 3, shape))
            if test_groups is not None:
                write_array(file, "test/groups", np.asarray(test_groups))
        write_columns(file, columns)


def _pictures(given: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Images as they are stored, ``(n, H, W, 3)``."""
    array = np.asarray(given)
    if array.ndim == 3:
        array = np.repeat(array[..., None], 3, axis=3)
    if array.ndim != 4 or array.shape[3] != 3:
        raise InputError(
            f"{name}: has shape {array.shape}, and must be (n, height, width, 3), or without the 3 for grey"
        )
    if array.dtype != np.uint8:
        raise InputError(
            f"{name}: is of {array.dtype}, and must be uint8, 0 to 255; of floats in [0, 1] take "
            "(255 * images).round().astype(np.uint8)"
        )
    return array


def _numbers(given: ArrayLike, name: str, ndim: int, shape: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{name}: must be numbers of shape {shape}, NaN where missing") from None
    if array.ndim != ndim:
        raise InputError(f"{name}: has shape {array.shape}, and must be {shape}")
    return array


def table(value: Any, name: str) -> dict[str, Any]:
    """Return one table of a config file as a dictionary of its own.

    Raises
    ------
    InputError
        If it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: must be a dictionary of the keys of [{name}] in tuner.toml")
    return dict(value)
