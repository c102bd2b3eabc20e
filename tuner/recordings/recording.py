"""A recording: images, the responses to them, and what is known of each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError, unknown

SESSION = "session"
"""The unit column of a joined recording that says which recording a unit comes from."""


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order, read one at a time, at their own size."""

    @property
    def names(self) -> Sequence[str]:
        """How a person would call each image: a path, or ``train/images[3]``."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read image ``index`` as (height, width, 3) RGB; greyscale is three equal channels."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of image ``index``, pixels, as the source says them without decoding it."""
        ...

    def digest(self) -> str:
        """Hash the content of all images in order."""
        ...


@dataclass(frozen=True)
class Recording:
    """Responses of units to images, with what the source says about the units.

    Parameters
    ----------
    label
        What figures call the recording.
    source
        Where it came from: a path, or the settings of a simulation.
    simulated
        Whether the responses were computed and not measured.
    units
        Columns that describe the units, each of shape (n_units,).
    train_images, train_responses
        The images, and responses of shape (n_train, n_units), float32, NaN where missing.
    train_groups
        Integer codes of shape (n_train,): images of a group stay on one side of every cut.
    test_images, test_responses
        The test images, and responses of shape (n_repeats, n_test, n_units), NaN where a repeat
        is missing; both None where there is no test set.
    notes
        What was dropped on reading or is suspicious, one line each.
    truth
        The known answers of a simulation. Keys that start with ``units/`` have one row per unit,
        keys that start with ``signal/`` have units last; others describe the whole recording.
    test_groups
        As ``train_groups``, in the same codes, for the test images.
    test_times
        When each test response was, in codes of shape (n_repeats, n_test): its ``day``, its ``position`` in a sequence of
        images. What shifts all responses of one code is no noise of a unit.
    measured_in
        What responses are measured in, such as ``spikes per 100 ms``; empty where that is not known.

    Raises
    ------
    InputError
        If rows do not match, a response is infinite, or a unit never responded.
    """

    label: str
    source: str
    simulated: bool
    units: dict[str, NDArray[Any]]
    train_images: ImageSource
    train_responses: NDArray[np.float32]
    train_groups: NDArray[np.int64] | None = None
    test_images: ImageSource | None = None
    test_responses: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    truth: Mapping[str, NDArray[Any]] | None = None
    test_groups: NDArray[np.int64] | None = None
    test_times: Mapping[str, NDArray[np.int64]] | None = None
    measured_in: str = ""

    def __post_init__(self) -> None:
        self._check_train()
        self._check_test()
        self._check_units()

    def __repr__(self) -> str:
        shown = "no test images"
        if self.n_test:
            shown = f"{self.n_test} test images, {self.n_repeats} responses each"
        return f"Recording({self.label!r}, {self.n_units} units, {self.n_train} training images, {shown})"

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.train_responses.shape[1])

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return int(self.train_responses.shape[0])

    @property
    def n_test(self) -> int:
        """Number of test images; 0 without a test set."""
        return 0 if self.test_responses is None else int(self.test_responses.shape[1])

    @property
    def n_repeats(self) -> int:
        """Presentations of each test image; 0 without a test set."""
        return 0 if self.test_responses is None else int(self.test_responses.shape[0])

    def unit_name(self, unit: int) -> str:
        """Name a unit as an error message should: its index, its name and area where known."""
        known = [str(self.units[c][unit]) for c in ("name", "area") if c in self.units]
        return f"unit {unit}" + (f" ({', '.join(known)})" if known else "")

    def regions(self, column: str) -> dict[str, NDArray[np.int64]]:
        """Group the units by the values of a column.

        Parameters
        ----------
        column
            A unit column, such as ``"area"`` or ``"array"``.

        Returns
        -------
        dict
            Region name to the indices of its units, in order of first appearance.

        Raises
        ------
        InputError
            If there is no such column, or a unit has no value in it.
        """
        if column not in self.units:
            raise unknown("unit column", column, self.units, f"{self.source} (data.region)")
        names = [region_name(value) for value in self.units[column]]
        for unit, name in enumerate(names):
            if not name:
                raise InputError(
                    f"{self.source}: unit {unit} has no value in units/{column}; "
                    "name its region, or choose another column as data.region"
                )
        return {
            region: np.flatnonzero(np.array([name == region for name in names])).astype(np.int64)
            for region in dict.fromkeys(names)
        }

    def sessions(self, column: str | None = None) -> dict[str, NDArray[np.int64]]:
        """Group the units by the session that they were recorded in.

        Parameters
        ----------
        column
            A unit column; by default ``session``, and all units are one session where there is none.

        Returns
        -------
        dict
            Session name to the indices of its units, in order of first appearance.

        Raises
        ------
        InputError
            If the column that is named does not exist.
        """
        if column is None and SESSION not in self.units:
            return {"": np.arange(self.n_units)}
        wanted = SESSION if column is None else column
        if wanted not in self.units:
            raise unknown("unit column", wanted, self.units, f"{self.source} (data.session)")
        names = np.array([region_name(value) for value in self.units[wanted]])
        return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}

    def select_units(self, indices: NDArray[np.int64], note: str | None = None) -> Recording:
        """Keep the units at ``indices``, in that order, with all that is known of them."""
        truth = None
        if self.truth is not None:
            truth = {key: _of_units(key, array, indices) for key, array in self.truth.items()}
        return replace(
            self,
            units={column: values[indices] for column, values in self.units.items()},
            train_responses=np.ascontiguousarray(self.train_responses[:, indices]),
            test_responses=None
            if self.test_responses is None
            else np.ascontiguousarray(self.test_responses[:, :, indices]),
            notes=self.notes if note is None else (*self.notes, note),
            truth=truth,
        )

    def drop_unreliable(self, threshold: float, *, compute: bool = True) -> Recording:
        """Drop the units whose ``reliability`` column is below ``threshold`` (or missing).

        A recording without that column has it computed: the mean correlation between two repeats of the test images. A
        threshold of 0 drops nothing, nor does a recording without column and repeats, which is noted.

        Parameters
        ----------
        threshold
            Least reliability.
        compute
            Whether what the recording does not say is computed.

        Raises
        ------
        InputError
            If no unit is left, or the column is not numeric.
        """
        if threshold <= 0:
            return self
        found, computed = None, ""
        if "reliability" in self.units:
            try:
                found = self.units["reliability"].astype(np.float64)
            except (TypeError, ValueError) as error:
                raise InputError(f"{self.source}: units/reliability must hold numbers") from error
        elif compute and self.test_responses is not None and self.n_repeats > 1:
            from tuner.scores import pairwise_reliability

            found = pairwise_reliability(self.test_responses)
            computed = ", computed from the test repeats"
        if found is None or (computed and np.isnan(found).all()):
            why = " and no test repeats to compute it from" if compute else ""
            note = f"no reliability column{why}: data.min_reliability was not applied"
            return replace(self, notes=(*self.notes, note))
        reliability = found
        keep = np.flatnonzero(reliability >= threshold).astype(np.int64)
        if keep.size == self.n_units:
            return self
        if keep.size == 0:
            raise InputError(
                f"{self.source}: no unit has a reliability of {threshold:g} or more (the best has "
                f"{np.nanmax(np.append(reliability, -np.inf)):.3g}); lower data.min_reliability"
            )
        dropped = self.n_units - keep.size
        note = f"dropped {dropped} of {self.n_units} units with a reliability below {threshold:g}{computed}"
        return self.select_units(keep, note)

    def _check_train(self) -> None:
        responses = self.train_responses
        if responses.ndim != 2 or 0 in responses.shape:
            raise InputError(
                f"{self.source}: training responses must be (n_images, n_units) with at least one "
                f"of each, not {responses.shape}"
            )
        if len(self.train_images) != self.n_train:
            raise InputError(
                f"{self.source}: {len(self.train_images)} training images but {self.n_train} rows "
                "of training responses"
            )
        _check_groups(self.source, "train", self.train_groups, self.n_train)
        _check_finite(self.source, "train", responses)
        silent = np.flatnonzero(np.isnan(responses).all(axis=0))
        if silent.size:
            raise InputError(
                f"{self.source}: {self.unit_name(int(silent[0]))} has no training response at all"
                f"{_and_more(silent.size)}; remove it from the recording"
            )

    def _check_test(self) -> None:
        responses = self.test_responses
        if (responses is None) != (self.test_images is None):
            raise InputError(f"{self.source}: test images and test responses must come together")
        if responses is None or self.test_images is None:
            return
        if responses.ndim != 3 or 0 in responses.shape:
            raise InputError(
                f"{self.source}: test responses must be (n_repeats, n_images, n_units) with at "
                f"least one of each, not {responses.shape}"
            )
        if len(self.test_images) != self.n_test:
            raise InputError(
                f"{self.source}: {len(self.test_images)} test images but test responses to "
                f"{self.n_test}"
            )
        if responses.shape[2] != self.n_units:
            raise InputError(
                f"{self.source}: test responses of {responses.shape[2]} units but training "
                f"responses of {self.n_units}"
            )
        _check_groups(self.source, "test", self.test_groups, self.n_test)
        for name, codes in (self.test_times or {}).items():
            if codes.shape != responses.shape[:2]:
                raise InputError(
                    f"{self.source}: test/times/{name} has shape {codes.shape} but there are {self.n_repeats} "
                    f"repeats of {self.n_test} test images"
                )
        _check_finite(self.source, "test", responses)

    def _check_units(self) -> None:
        for column, values in self.units.items():
            if values.shape != (self.n_units,):
                raise InputError(
                    f"{self.source}: units/{column} has shape {values.shape} but there are "
                    f"{self.n_units} units"
                )


def region_name(value: object) -> str:
    """Write a region as text: whole numbers without a decimal point, missing as ``""``."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return ""
        return str(int(value)) if float(value).is_integer() else str(float(value))
    return str(value)


def _of_units(key: str, array: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    if key.startswith("units/"):
        return np.asarray(array[indices])
    return np.asarray(array[..., indices]) if key.startswith("signal/") else array


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _check_groups(source: str, part: str, groups: NDArray[np.int64] | None, n: int) -> None:
    if groups is not None and groups.shape != (n,):
        raise InputError(
            f"{source}: {part}/groups has shape {groups.shape} but there are {n} {part} images"
        )


def _check_finite(source: str, part: str, responses: NDArray[np.float32]) -> None:
    infinite = np.argwhere(np.isinf(responses))
    if infinite.size:
        *_, image, unit = (int(i) for i in infinite[0])
        raise InputError(
            f"{source}: {part}/responses holds an infinite value (image {image}, unit {unit})"
            f"{_and_more(len(infinite))}; mark missing responses with NaN"
        )
