"""Images that lie in an HDF5 dataset, read one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError
from tuner.recordings.hdf5.errors import guarded
from tuner.recordings.hdf5.integrity import check_reached, check_stored
from tuner.recordings.hdf5.open import dataset, open_handle
from tuner.recordings.sources import array_digest, combined_digest


class Hdf5Images:
    """A dataset of uint8 images in an HDF5 file.

    Parameters
    ----------
    path
        The file.
    name
        The dataset, of shape (n, height, width, 3), or (n, height, width) or
        (n, height, width, 1) for greyscale.
    indices
        Which rows, in which order; all of them by default.

    Raises
    ------
    InputError
        If the dataset is missing, of another type or another shape.
    """

    def __init__(self, path: Path, name: str, indices: NDArray[np.int64] | None = None) -> None:
        self.path = path
        self.name = name
        self._lock = threading.Lock()
        self._file: h5py.File | None = None
        self._data: h5py.Dataset | None = None
        self._digest: str | None = None
        data = self._open()
        with guarded(path, name):
            shape, dtype = data.shape, data.dtype
        _check(path, name, shape, dtype)
        check_stored(path, data, name)
        self._rows = np.arange(shape[0]) if indices is None else indices
        self.names: Sequence[str] = [f"{name}[{row}]" for row in self._rows]
        self.shape: tuple[int, int] = (int(shape[1]), int(shape[2]))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one image as (height, width, 3)."""
        with self._lock, guarded(self.path, self.names[index]):
            data, row = self._open(), int(self._rows[index])
            image = np.asarray(data[row])
            if not image.any():
                check_reached(data, image[None], (row,))
        image = image.reshape(*self.shape, -1)
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image, pixels."""
        return self.shape

    def digest(self) -> str:
        """Hash all images; equal to the hash of the same images in memory."""
        if self._digest is None:
            self._digest = combined_digest(array_digest(self.read(i)) for i in range(len(self)))
        return self._digest

    def _open(self) -> h5py.Dataset:
        if self._data is None:
            self._file = open_handle(self.path)
            self._data = dataset(self.path, self._file, self.name)
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_file", "_data")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._file = self._data = None


class Hdf5ImageSet:
    """Images that are each a dataset of their own in an HDF5 file.

    Parameters
    ----------
    path
        The file.
    names
        The datasets, each (height, width), (height, width, 1) or (height, width, 3) uint8.

    Raises
    ------
    InputError
        If one is missing, of another type or another shape.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        self.names: Sequence[str] = list(names)
        self._lock = threading.Lock()
        self._file: h5py.File | None = None
        self._digest: str | None = None
        self._sizes: list[tuple[int, int]] = []
        for index in range(len(self.names)):
            data = self._open(index)
            with guarded(path, self.names[index]):
                shape, dtype = data.shape, data.dtype
            _check(path, self.names[index], (1, *shape), dtype)
            self._sizes.append((int(shape[0]), int(shape[1])))
            check_stored(path, data, self.names[index])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one image as (height, width, 3)."""
        with self._lock, guarded(self.path, self.names[index]):
            data = self._open(index)
            image = np.asarray(data[()])
            check_reached(data, image)
        image = image.reshape(*image.shape[:2], -1)
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of one image, pixels."""
        return self._sizes[index]

    def digest(self) -> str:
        """Hash all images; equal to the hash of the same images in memory."""
        if self._digest is None:
            self._digest = combined_digest(array_digest(self.read(i)) for i in range(len(self)))
        return self._digest

    def _open(self, index: int) -> h5py.Dataset:
        if self._file is None:
            self._file = open_handle(self.path)
        return dataset(self.path, self._file, self.names[index])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._file = None


def _check(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype != np.uint8:
        raise InputError(f"{path}: {name} must be uint8 (0 to 255), not {dtype}")
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise InputError(
            f"{path}: {name} has its channels before its rows, {shape}; "
            "write it as (n_images, height, width, 3)"
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
        raise InputError(
            f"{path}: {name} must be (n_images, height, width, 3) with at least one of each, not {shape}"
        )
