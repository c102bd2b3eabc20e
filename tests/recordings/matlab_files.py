"""Files as MATLAB v7.3 writes them: user block, transposed and compressed arrays, cells by
reference, UTF-16 texts, empty arrays as their dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema"
CLASSES = {"f8": "double", "f4": "single", "u2": "uint16", "i8": "int64"}


@contextmanager
def matlab_file(path: Path) -> Iterator[h5py.File]:
    """Open a new v7.3 file: HDF5 behind a user block of 512 bytes that says MATLAB."""
    with h5py.File(path, "w", userblock_size=512) as file:
        yield file
    with path.open("r+b") as raw:
        raw.write(HEADER.ljust(124) + b"\x00\x02IM")


def array(file: h5py.File, name: str, values: Any, *, compressed: bool = True) -> h5py.Dataset:
    """Store an array of the given MATLAB shape: HDF5 has its axes in reverse."""
    stored = np.asarray(values).T
    if stored.size == 0:
        dims = np.array(np.asarray(values).shape, dtype=np.uint64)
        data = file.create_dataset(name, data=dims)
        data.attrs["MATLAB_empty"] = np.uint8(1)
    elif compressed and stored.ndim and stored.size > 64:
        chunks = tuple(min(n, 100) for n in stored.shape)
        data = file.create_dataset(name, data=stored, chunks=chunks, compression=3)
    else:
        data = file.create_dataset(name, data=stored)
    kind = CLASSES[np.asarray(values).dtype.str[1:]]
    data.attrs["MATLAB_class"] = np.bytes_(kind)
    return data


def cell(file: h5py.File, name: str, texts: Sequence[str]) -> h5py.Dataset:
    """Store an n x 1 cell array of texts, (1, n) in HDF5; the README's (n, 1) reads alike."""
    hidden = file.require_group("#refs#")
    references = np.empty((1, len(texts)), dtype=h5py.ref_dtype)
    for index, text in enumerate(texts):
        units = np.frombuffer(text.encode("utf-16-le"), dtype="<u2")
        if units.size:
            member = hidden.create_dataset(f"{len(hidden)}", data=units[:, None])
        else:
            member = hidden.create_dataset(f"{len(hidden)}", data=np.zeros(2, dtype=np.uint64))
            member.attrs["MATLAB_empty"] = np.uint8(1)
        member.attrs["MATLAB_class"] = np.bytes_("char")
        member.attrs["MATLAB_int_decode"] = np.int32(2)
        references[0, index] = member.ref
    data = file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    data.attrs["MATLAB_class"] = np.bytes_("cell")
    return data


def stimuli(path: Path, train: Sequence[str], test: Sequence[str]) -> Path:
    """Write ``things_imgs.mat``; paths are given with slashes and stored with backslashes."""
    with matlab_file(path) as file:
        for part, names in (("train_imgs", train), ("test_imgs", test)):
            stored = [name.replace("/", "\\") for name in names]
            cell(file, f"{part}/class", [name.split("/")[0] for name in names])
            cell(file, f"{part}/things_path", stored)
            cell(file, f"{part}/local_path", [f"D:\\things\\{name}" for name in stored])
            file[part].attrs["MATLAB_class"] = np.bytes_("struct")
    return path
