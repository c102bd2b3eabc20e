"""An example of a recording format: one .npz file with images, responses and areas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tuner.errors import InputError
from tuner.recordings.recording import Recording
from tuner.recordings.sources import ArrayImages


def load(path: Path, images: Path | None = None) -> Recording:
    """Read ``images`` (n, H, W, 3) uint8, ``responses`` (n, n_units) and ``area`` (n_units,)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("images", "responses", "area")}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; see data.path") from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not an .npz file with images, responses, area: {error}"
        ) from None
    return Recording(
        label=path.stem,
        source=str(path),
        simulated=False,
        units={"area": found["area"]},
        train_images=ArrayImages(found["images"], "images"),
        train_responses=found["responses"].astype(np.float32),
    )
