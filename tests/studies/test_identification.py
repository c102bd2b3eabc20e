"""Recordings simulated from a known layer are assigned to that layer, by all readouts, through the whole search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from tuner.backbones import load_backbone
from tuner.recordings import Recording, write_recording
from tuner.recordings.simulated.model import simulate_from_layer
from tuner.recordings.simulated.photographs import crops
from tuner.recordings.sources import ArrayImages

LAYERS = ("_blocks.0", "_blocks.4", "_blocks.10")
UNITS = 6
CONFIG = """
[data]
path = "recording.h5"
image_size = 64
[[backbone]]
name = "efficientnet_lite0"
layers = {layers}
[training]
steps = 120
report_every = 40
folds = 2
device = "cpu"
[search]
parallel_trials = 6
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """One region per layer, whose 6 units mix that layer's features; signal to noise 1.5, 800 images."""
    train, _ = crops(800, 10, size=64, seed=0)
    images, groups = train.images, train.block
    backbone = load_backbone("efficientnet_lite0")
    parts = [
        simulate_from_layer(backbone, layer, images, UNITS, "local", 1.5, seed)
        for seed, layer in enumerate(LAYERS)
    ]
    recording = Recording(
        label="simulated",
        source="test",
        simulated=True,
        units={"area": np.repeat([f"from {layer}" for layer in LAYERS], UNITS)},
        train_images=ArrayImages(images),
        train_responses=np.concatenate(parts, axis=1),
        train_groups=groups,
    )
    write_recording(recording, tmp_path / "recording.h5", embed=True)
    config = tmp_path / "tuner.toml"
    config.write_text(CONFIG.format(layers=json.dumps(LAYERS)))
    return config


def test_known_layers_are_found(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-q", "-c", str(experiment)]
    assert main([*command, "study", "create"]) == 0
    assert main([*command, "optimize", "--n-trials", "6"]) == 0
    capsys.readouterr()
    assert main([*command, "study", "list", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(LAYERS) ** 2 * 3
    for readout in ("full", "factorized", "smooth"):
        for layer in LAYERS:
            rivals = [r for r in rows if r["readout"] == readout and r["region"] == f"from {layer}"]
            best = min(rivals, key=lambda r: r["best"]["value"])
            assert best["layer"] == layer, [(r["layer"], r["best"]["value"]) for r in rivals]
            assert best["best"]["value"] < 0.9  # predicting the mean leaves 1, the noise alone 0.4
