"""Any supported recording as one generic HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.errors import InputError
from tuner.recordings import h5access as h5
from tuner.recordings.hdf5_writer import Progress, write_recording
from tuner.recordings.join import join_recordings
from tuner.recordings.recording import Recording


def convert_recording(
    path: Path | None,
    output: Path,
    format: str,  # noqa: A002 (the key's name in tuner.toml)
    *,
    images: Path | None = None,
    min_reliability: float = 0.0,
    embed: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Recording:
    """Convert a recording to the generic HDF5 file.

    Parameters
    ----------
    path, format, images, min_reliability, **options
        As of `load_recording`. Under ``"tvsd"`` the raw trials are read as well, with the further
        option ``mapping``.
    output
        The file to write; it appears when it is complete.
    embed
        Write the pixels of image files, and not their paths only.
    progress
        Called now and then with what is being done and how far it is.

    Returns
    -------
    Recording
        What was written.

    Raises
    ------
    InputError
        If anything about the input is wrong.
    EnvironmentFailure
        If the file cannot be written.
    """
    recording = read_any(
        path, format, images=images, min_reliability=min_reliability, progress=progress, **options
    )
    write_recording(recording, output, embed=embed, progress=progress)
    return recording


def convert_joined(
    paths: Mapping[str, Path],
    output: Path,
    *,
    images: Path | None = None,
    stimuli: Path | None = None,
    mapping: Path | None = None,
    min_reliability: float = 0.0,
    embed: bool = False,
    progress: Progress | None = None,
) -> Recording:
    """Convert both TVSD monkeys to one file, with regions ``N/V1``, ``F/V1`` and so on.

    Parameters
    ----------
    paths
        Monkey (``"N"``, ``"F"``) to its ``THINGS_normMUA.mat`` or ``THINGS_MUA_trials.mat``.
    output, images, min_reliability, embed, progress
        As of `convert_recording`.
    stimuli, mapping
        As of the readers; by default looked for beside each recording.

    Returns
    -------
    Recording
        What was written.

    Raises
    ------
    InputError
        If anything about the input is wrong, or the two did not see the same images.
    """
    parts = {
        monkey: read_any(
            path,
            "tvsd",
            images=images,
            min_reliability=min_reliability,
            progress=progress,
            monkey=monkey,
            stimuli=stimuli,
            mapping=mapping,
        )
        for monkey, path in paths.items()
    }
    joined = join_recordings(parts)
    write_recording(joined, output, embed=embed, progress=progress)
    return joined


def read_any(
    path: Path | None,
    format: str,  # noqa: A002 (the key's name in tuner.toml)
    *,
    images: Path | None = None,
    min_reliability: float = 0.0,
    progress: Progress | None = None,
    **options: Any,
) -> Recording:
    """Read a recording of any format, the raw TVSD trials included."""
    from tuner.recordings import load_recording
    from tuner.recordings.tvsd_trials import read_trials

    if format == "tvsd" and path is not None and is_raw_trials(path):
        unknown = set(options) - {"monkey", "stimuli", "mapping"}
        if unknown:
            raise InputError(f"raw TVSD trials have no option {min(unknown)}")
        recording = read_trials(
            path,
            monkey=options.get("monkey"),
            images=images,
            stimuli=options.get("stimuli"),
            mapping=options.get("mapping"),
            progress=progress,
        )
        return recording.drop_unreliable(min_reliability)
    if format == "tvsd":
        options.pop("mapping", None)  # Normalised files are in physical order already.
    return load_recording(path, format, images=images, min_reliability=min_reliability, **options)


def is_raw_trials(path: Path) -> bool:
    """Whether a file holds raw TVSD trials and not normalised activity."""
    with h5.open_hdf5(path) as file:
        return h5.has(file, "ALLMUA")
