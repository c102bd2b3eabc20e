"""Writing a recording to the generic HDF5 file, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tuner.atomic import replacing
from tuner.errors import EnvironmentFailure, InputError
from tuner.progress import Progress
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.sources import FileImages, NamedImages


def write_recording(
    recording: Recording,
    path: str | Path,
    *,
    embed: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a recording as one generic HDF5 file.

    Image files are written as paths relative to the images folder, unless ``embed`` is set; images
    that are not files are always written into the file. The file appears under its name only when
    it is complete.

    Parameters
    ----------
    recording
        What to write.
    path
        The file to write; an existing one is replaced.
    embed
        Write the pixels of image files, which must then be of one size.
    progress
        Called now and then with what is being done and how far it is.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If images to be embedded differ in size, or the folder is missing.
    EnvironmentFailure
        If the disk is full or not writable.
    """
    with new_file(Path(path)) as file:
        write_attributes(file, recording.label, recording.simulated, recording.notes)
        _write_part(file, "train", recording.train_images, embed, progress)
        write_array(file, "train/responses", recording.train_responses)
        write_unit(file, recording.measured_in)
        if recording.train_groups is not None:
            write_array(file, "train/groups", recording.train_groups)
        if recording.test_images is not None and recording.test_responses is not None:
            _write_part(file, "test", recording.test_images, embed, progress)
            write_array(file, "test/responses", recording.test_responses)
            if recording.test_groups is not None:
                write_array(file, "test/groups", recording.test_groups)
            for name, codes in (recording.test_times or {}).items():
                write_array(file, f"test/times/{name}", codes)
        write_columns(file, recording.units)
        for name, values in (recording.truth or {}).items():
            write_array(file, f"truth/{name}", values)
    return Path(path)


def write_unit(file: h5py.File, measured_in: str) -> None:
    """Write what responses, which are there, are measured in, where it is known."""
    if measured_in:
        file["train/responses"].attrs["unit"] = _fixed(np.array(measured_in))


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file that takes its name only when the block ends well."""
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write")
    try:
        with (
            replacing(path, durable=True) as partial,
            h5py.File(partial, "w", locking=False, libver="v110") as file,
        ):
            yield file
    except OSError as error:
        raise _failure(path, error) from error
    except RuntimeError as error:  # h5py reports a full disk on closing as this.
        if _out_of_space(path.parent):
            raise _failure(path, OSError(errno.ENOSPC, "No space left on device")) from error
        raise


def write_attributes(
    file: h5py.File, label: str, simulated: bool, notes: tuple[str, ...] = ()
) -> None:
    """Write what describes the whole recording."""
    file.attrs["format"] = _fixed(np.array("tuner recording 1"))
    file.attrs["label"] = _fixed(np.array(label))
    file.attrs["simulated"] = simulated
    if notes:
        file.attrs["notes"] = _fixed(np.array(notes))


def write_columns(file: h5py.File, units: dict[str, NDArray[Any]]) -> None:
    """Write the unit columns."""
    for column, values in units.items():
        if "/" in column:
            raise InputError(f"unit column {column!r} holds a slash; rename it")
        write_array(file, f"units/{column}", values)


def write_array(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Write an array with checksums; text as UTF-8."""
    stored = _fixed(values) if values.dtype.kind in "UO" else values
    # HDF5 has checksums for values only where they are stored in chunks.
    in_chunks = {"chunks": True, "fletcher32": True} if stored.size and stored.shape else {}
    file.create_dataset(name, data=stored, **in_chunks)


def _fixed(texts: NDArray[Any]) -> NDArray[np.bytes_]:
    """Encode text as UTF-8 of fixed length, which HDF5 guards with checksums.

    Text of variable length lies in a heap without them, in which HDF5 can loop for ever.
    """
    encoded = [str(text).encode() for text in texts.ravel().tolist()]
    length = max([1, *map(len, encoded)])
    as_bytes = np.array(encoded, dtype=f"S{length}").reshape(texts.shape)
    return as_bytes.astype(h5py.string_dtype("utf-8", length))


def _write_part(
    file: h5py.File, part: str, images: ImageSource, embed: bool, progress: Progress | None
) -> None:
    if isinstance(images, (FileImages, NamedImages)) and not embed:
        write_array(file, f"{part}/image_paths", np.array(list(images.names), dtype=object))
        return
    first = images.read(0)
    data = file.create_dataset(
        f"{part}/images",
        (len(images), *first.shape),
        dtype=np.uint8,
        chunks=(1, *first.shape),
        fletcher32=True,
    )
    for index in range(len(images)):
        image = images.read(index)
        if image.shape != first.shape:
            raise InputError(
                f"{images.names[index]} is {image.shape[1]} x {image.shape[0]} pixels and "
                f"{images.names[0]} is {first.shape[1]} x {first.shape[0]}; images stored in one "
                "file must be of one size: keep them as files"
            )
        data[index] = image
        if progress is not None:
            progress(f"writing {part} images", index + 1, len(images))


def _out_of_space(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 2**20


def _failure(path: Path, error: OSError) -> EnvironmentFailure:
    # Within HDF5 a full disk is an error without a number.
    if error.errno == errno.ENOSPC or (error.errno is None and _out_of_space(path.parent)):
        return EnvironmentFailure(f"{path}: the disk is full; free some space and run it again")
    reason = error.strerror or str(error).splitlines()[0]
    return EnvironmentFailure(f"{path}: cannot be written ({reason}); check the folder")
