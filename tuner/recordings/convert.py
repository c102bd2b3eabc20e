"""Recordings that are only ever converted: the raw trials of TVSD beside all formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuner.errors import InputError
from tuner.progress import Progress
from tuner.recordings.hdf5 import open as h5
from tuner.recordings.recording import Recording


def read_any(
    path: Path | None,
    format: str,  # noqa: A002 (the key's name in tuner.toml)
    *,
    images: Path | None = None,
    min_reliability: float = 0.0,
    progress: Progress | None = None,
    **options: Any,
) -> Recording:
    """Read a recording of any format, the raw TVSD trials included.

    Parameters
    ----------
    path, format, images, min_reliability, **options
        As of ``load_recording``. Under ``"tvsd"`` the raw trials are read as well, with the further
        option ``mapping``.
    progress
        Called now and then with what is being done, how much is done and how much there is.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If anything about the input is wrong.
    """
    from tuner.recordings import load_recording

    if format == "tvsd" and path is not None and is_raw_trials(path):
        from tuner.recordings.tvsd.trials import read_trials

        surplus = set(options) - {"monkey", "stimuli", "mapping"}
        if surplus:
            raise InputError(f"raw TVSD trials have no option {min(surplus)}")
        recording = read_trials(path, images=images, progress=progress, **options)
        return recording.drop_unreliable(min_reliability)
    if format == "tvsd":
        options.pop("mapping", None)  # Normalised files are in physical order already.
    return load_recording(path, format, images=images, min_reliability=min_reliability, **options)


def is_raw_trials(path: Path) -> bool:
    """Whether a file holds raw TVSD trials and not normalised activity."""
    with h5.open_hdf5(path) as file:
        return h5.has(file, "ALLMUA")
