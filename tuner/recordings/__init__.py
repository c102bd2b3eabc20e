"""Recordings: images and the responses to them, read from the formats that labs have.

A format is a function that reads a file into a `Recording`; `FORMATS` names them all. To add one,
write a module with such a function and register it below; `tests/recordings/conformance.py` holds
what it must pass.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from tuner.errors import InputError, unknown
from tuner.recordings.checks import check_responses, fittable
from tuner.recordings.images import PreparedImages
from tuner.recordings.recording import ImageSource, Recording
from tuner.recordings.split import Split, cut, deal

__all__ = [
    "FORMATS",
    "Format",
    "ImageSource",
    "PreparedImages",
    "Recording",
    "Split",
    "check_responses",
    "cut",
    "deal",
    "fittable",
    "load_recording",
    "write_recording",
]


@dataclass(frozen=True)
class Format:
    """A recording format: where its reader is, imported when it is first used.

    Parameters
    ----------
    module, function
        The reader: ``function(path, images, **options) -> Recording``.
    needs_path
        Whether there is a file to read.
    """

    module: str
    function: str = "load"
    needs_path: bool = True

    @property
    def reader(self) -> Callable[..., Recording]:
        """The function that reads this format."""
        reader: Callable[..., Recording] = getattr(
            importlib.import_module(self.module), self.function
        )
        return reader

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that this format takes besides a path and an images folder."""
        return tuple(signature(self.reader).parameters)[2:]


FORMATS: dict[str, Format] = {
    "hdf5": Format("tuner.recordings.hdf5.reader"),
    "tvsd": Format("tuner.recordings.tvsd.recording"),
    "tvsd-arrays": Format("tuner.recordings.array_exports"),
    "nwb": Format("tuner.recordings.nwb"),
    "assembly": Format("tuner.recordings.assembly"),
    "simulated": Format("tuner.recordings.simulated.format", needs_path=False),
}


def load_recording(
    path: str | Path | None,
    format: str = "hdf5",  # noqa: A002 (the key's name in tuner.toml)
    *,
    images: str | Path | None = None,
    min_reliability: float = 0.0,
    compute_reliability: bool = True,
    **options: Any,
) -> Recording:
    """Read a recording.

    Parameters
    ----------
    path
        The file (or folder, where the format says so); None for a simulated recording.
    format
        A name in `FORMATS`.
    images
        The folder that the recording's image paths are relative to.
    min_reliability
        Units with a lower ``reliability`` are dropped.
    compute_reliability
        Whether that is computed from the test repeats where the recording has no such column.
    **options
        What the format asks for besides: see its reader.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If anything about the input is wrong; one line that names the file and the remedy.

    Examples
    --------
    >>> import tuner
    >>> recording = tuner.load_recording("recording.h5")
    >>> recording.train_responses.shape, recording.test_responses.shape
    ((315, 12), (4, 39, 12))
    >>> recording.train_images.read(0).shape
    (48, 48, 3)
    >>> simulated = tuner.load_recording(None, "simulated", n_train=60, n_test=10, units_per_region=2)
    >>> list(simulated.regions("area"))
    ['V1', 'V4', 'IT']
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "data.format")
    chosen = FORMATS[format]
    if path is None and chosen.needs_path:
        raise InputError(f'data.path is missing: format = "{format}" reads a file')
    surplus = [name for name in options if name not in chosen.options]
    if surplus:
        raise unknown("option", surplus[0], chosen.options, f'data.format = "{format}"')
    recording = chosen.reader(
        None if path is None else Path(path), None if images is None else Path(images), **options
    )
    return recording.drop_unreliable(min_reliability, compute=compute_reliability)


def write_recording(recording: Recording, path: str | Path, **options: Any) -> Path:
    """Write a recording as a generic HDF5 file; see `hdf5_writer.write_recording`."""
    from tuner.recordings.hdf5 import writer as hdf5_writer

    return hdf5_writer.write_recording(recording, path, **options)
