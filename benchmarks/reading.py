"""What reading an encoder costs, with and without making sure of its weights; a part of ``python -m benchmarks.storage``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h5py
import numpy as np

import tuner
from studies.config.experiment import load_experiment
from studies.database.artifacts import Artifacts
from studies.database.stores import open_stores
from studies.results.encoders import best_studies
from studies.workspace import Workspace

UNITS, IMAGES, SIZE = 64, 100, 112

CONFIG = """
[data]
path = "recording.h5"
image_size = 112
validation_fraction = 0.25
[[backbone]]
name = "efficientnet_lite0"
layers = ["_blocks.0"]
max_grid = 0
[training]
steps = 2
report_every = 2
batch_size = 10
device = "cpu"
[search]
parallel_trials = 1
keep = 1
[search.space.full]
[storage]
cache = "cache"
"""
"""Weights of 50,176 features and 64 units, 13 MB."""


def _experiment(folder: Path) -> Path:
    """Search one study of one trial, and export its encoder."""
    from cli.main import main

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "recording.h5", "w") as file:
        file["train/images"] = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
        file["train/responses"] = rng.standard_normal((IMAGES, UNITS)).astype(np.float32)
        file["units/area"] = np.array(["V1"] * UNITS, dtype=h5py.string_dtype())
    config = folder / "tuner.toml"
    config.write_text(CONFIG)
    for words in (
        ("study", "create"),
        ("optimize", "--n-trials", "1"),
        ("export", "best", "-o", str(folder / "out")),
    ):
        assert main([*words, "-q", "-c", str(config)]) == 0
    return config


def _seconds(measure: Callable[[], object], times: int = 9) -> float:
    """Median processor seconds."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        measure()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def rows(folder: Path) -> list[tuple[str, str]]:
    """What was measured, in words and figures."""
    config = _experiment(folder)
    workspace = Workspace(load_experiment(config))
    exported = next((folder / "out").rglob("encoder.json")).parent

    def kept() -> None:
        """Read the weights of a best trial and make the encoder; with stores of its own nothing is known of the file."""
        with open_stores(workspace.experiment) as opened:
            best_studies(workspace, opened, workspace.grid)[0].encoder()

    kept()
    with mock.patch.object(Artifacts, "verify", return_value=None):
        unverified = _seconds(kept)
    first = _seconds(kept)
    with open_stores(workspace.experiment) as stores:
        best_studies(workspace, stores, workspace.grid)[0].encoder()
        again = _seconds(lambda: best_studies(workspace, stores, workspace.grid)[0].encoder())
    loaded = _seconds(lambda: tuner.load_encoder(exported))
    return [
        ("encoder of a best trial, 13 MB of weights, unverified", f"{1e3 * unverified:.1f} ms"),
        ("verified, the first time in a process", f"{1e3 * first:.1f} ms"),
        ("verified, later", f"{1e3 * again:.1f} ms"),
        ("tuner.load_encoder of what was exported of it", f"{1e3 * loaded:.1f} ms"),
    ]
