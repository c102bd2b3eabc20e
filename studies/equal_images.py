"""Equal images of a recording: found when an experiment is opened, remembered beside its features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.config.experiment import Experiment
from tuner.progress import Progress

if TYPE_CHECKING:
    from tuner.recordings import Recording
    from tuner.recordings.duplicates import Pairs

_MANY = 500
"""Images from which it is said how far the reading is; fewer take less than a second."""


def separated(
    experiment: Experiment, recording: Recording, progress: Progress | None = None
) -> Recording:
    """Keep equal training images on one side of every cut, and refuse test images that are training images.

    Parameters
    ----------
    experiment
        Whose ``data.duplicates`` and ``data.test_duplicates`` say what is done.
    recording
        As it was read.
    progress
        Called with (what, done, total) where every image has to be read.

    Raises
    ------
    InputError
        If a test image is a training image and that is not allowed.
    """
    from tuner.recordings.duplicates import group, refuse_leaks

    data = experiment.data
    if data.duplicates == "ignore" and data.test_duplicates == "allow":
        return recording
    pairs = _remembered(experiment.storage.cache, recording, progress)
    if data.test_duplicates == "refuse":
        refuse_leaks(recording, pairs)
    return group(recording, pairs) if data.duplicates == "group" else recording


def unread(experiment: Experiment) -> Experiment:
    """The experiment without looking for equal images: for a plan, which is to be there at once."""
    data = experiment.data.model_copy(update={"duplicates": "ignore", "test_duplicates": "allow"})
    return experiment.model_copy(update={"data": data})


def _remembered(folder: Path, recording: Recording, progress: Progress | None) -> Pairs:
    """Pairs of equal images; every image is read the first time only."""
    from tuner.atomic import replacing
    from tuner.recordings.duplicates import VERSION, find

    parts = [str(VERSION), recording.train_images.digest()]
    if recording.test_images is not None:
        parts.append(recording.test_images.digest())
    key = hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()
    path = folder / f"equal-images-{key}.npy"
    try:
        pairs: Pairs = np.load(path, allow_pickle=False)
        if pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype == np.int64:
            return pairs
    except (OSError, ValueError, EOFError):  # not there yet, or damaged: found anew
        pass
    many = recording.n_train + recording.n_test > _MANY
    pairs = find(recording, progress if many else None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, pairs, allow_pickle=False)
    except OSError:  # the cache says itself, with its remedy, why nothing can be written there
        pass
    return pairs
