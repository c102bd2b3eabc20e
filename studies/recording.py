"""The recording that an experiment is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.config.experiment import Experiment
from tuner.progress import Progress

if TYPE_CHECKING:
    from tuner.recordings import Recording


def open_recording(experiment: Experiment) -> Recording:
    """Read, or simulate, the recording of an experiment.

    Parameters
    ----------
    experiment
        The checked config file.

    Returns
    -------
    Recording
        Without the units below ``data.min_reliability``.

    Raises
    ------
    InputError
        If the recording is missing or anything in it is wrong.
    """
    from tuner.recordings import load_recording

    recording = load_recording(**_arguments(experiment))
    recording.sessions(experiment.data.session)  # refused, if it names a column that there is not
    return recording


def open_for_conversion(
    experiment: Experiment, mapping: Path | None = None, progress: Progress | None = None
) -> Recording:
    """Read the recording of an experiment, raw trials too, which are only ever converted.

    Parameters
    ----------
    experiment
        The checked config file.
    mapping
        Raw TVSD trials only: the file with the order of the channels, where it does not lie beside
        them.
    progress
        Called with (what, done, total).

    Raises
    ------
    InputError
        If the recording is missing or anything in it is wrong.
    """
    from tuner.recordings.convert import read_any

    further: dict[str, Any] = {} if mapping is None else {"mapping": mapping}
    return read_any(**_arguments(experiment), **further, progress=progress)


def _arguments(experiment: Experiment) -> dict[str, Any]:
    """Say what ``load_recording`` is to read."""
    data = experiment.data
    options: dict[str, Any] = dict(data.options())
    simulated = data.format == "simulated"
    if simulated:
        # Kept in the cache: simulating takes seconds.
        cache = experiment.storage.cache
        options |= {"seed": data.seed, "image_size": data.image_size, "cache": cache}
    return options | {
        "path": None if simulated else data.path,
        "format": data.format,
        "images": None if simulated else data.images,
        "min_reliability": data.min_reliability,
        "compute_reliability": data.reliability == "computed",
    }
