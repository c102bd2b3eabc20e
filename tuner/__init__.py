"""Fits image-computable models of visual cortex: what notebooks use of it.

Examples
--------
In the folder of an experiment that was searched and exported with ``tuner export best -o results``:

>>> import tuner
>>> recording = tuner.load_recording("recording.h5")
>>> recording.n_train, recording.n_test, recording.n_units
(315, 39, 12)
>>> {region: len(units) for region, units in recording.regions("area").items()}
{'A': 6, 'B': 6}
>>> encoder = tuner.load_encoder("results/efficientnet_lite0/_blocks.2/A/full")
>>> import torch
>>> encoder(torch.rand(2, 3, encoder.image_size, encoder.image_size)).shape
torch.Size([2, 6])
>>> trials = tuner.load_results("tuner.toml")
>>> sorted(trials["region"].unique())
['A', 'B']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.encoder import load_encoder
    from tuner.recordings import load_recording

__all__ = ["load_encoder", "load_recording", "load_results"]

# Looked up when first asked for: torch takes seconds to import, and a command's help should not
# wait for it. `load_results` and `open` work with the search's database and so live above this
# package, which never imports from there to do its own work; they are offered here because people
# look for them here. `open` is not in `__all__`: a star must not hide Python's own.
_HOME = {
    "load_encoder": "tuner.encoder",
    "load_recording": "tuner.recordings",
    "load_results": "studies.results.frames",
    "open": "studies.notebook.opening",
}
_NAMES = {"open": "open_experiment"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), _NAMES.get(name, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
