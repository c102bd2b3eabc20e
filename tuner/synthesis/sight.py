"""Where the cells that an encoder reads look: measured once for a layer, and remembered."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from tuner.atomic import write_bytes
from tuner.backbones.sight import Sight, measure
from tuner.encoder import Encoder

PHOTOGRAPHS = 12
"""At so many photographs the gradient is taken: those of the simulated recording, which are always at hand."""

_FORMAT = 1
_known: dict[str, Sight] = {}


def sight(encoder: Encoder, folder: Path | None = None) -> Sight:
    """Return where the cells look that an encoder reads.

    It depends on the network, the layer, its normalisation and the size of the images alone, not on the readout.

    Parameters
    ----------
    encoder
        The encoder.
    folder
        Where it is looked up, and kept; None: in this process only.
    """
    from tuner.recordings.simulated.photographs import crops

    key = _key(encoder)
    path = None if folder is None else folder / f"{key}.json"
    if key not in _known:
        found = _read(path)
        if found is None:
            photographs, _ = crops(PHOTOGRAPHS, 1, encoder.image_size, seed=0)
            found = measure(
                encoder.backbone, encoder.layer, photographs.images, encoder.normalization.apply
            )
        _known[key] = found
    if path is not None and not path.exists():
        content = {name: values.tolist() for name, values in vars(_known[key]).items()}
        with suppress(OSError):  # it can be measured again
            write_bytes(path, json.dumps(content).encode())
    return _known[key]


def _key(encoder: Encoder) -> str:
    parts = [
        *(_FORMAT, PHOTOGRAPHS, encoder.backbone.digest, encoder.layer, encoder.image_size),
        encoder.normalization_checksum(),
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _read(path: Path | None) -> Sight | None:
    """What was kept; None where nothing was, or it is damaged, and is measured anew."""
    if path is None:
        return None
    try:
        stored = json.loads(path.read_text())
        return Sight(
            **{name: np.array(values, dtype=np.float64) for name, values in stored.items()}
        )
    except (OSError, ValueError, TypeError):
        return None
