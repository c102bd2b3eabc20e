"""Features are read through and compared with their checksums before they are used."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import numpy as np
import pytest

from studies.config.experiment import load_experiment
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.test_environment import GRID
from tuner.errors import EnvironmentFailure
from tuner.features import extract
from tuner.features.cache import FeatureCache

LAYER = ("net", "_blocks.2")


@pytest.fixture
def config(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(extract, "chunk_images", lambda size: 16)
    return make_experiment({**GRID, "storage": {"cache": "own/"}})


def damage(workspace: Workspace) -> np.ndarray:
    """Overwrite a row in the middle of the file; returns what the features were."""
    features = workspace.features.of(*LAYER)
    whole = np.array(features.train)
    path = workspace.cache.folder / features.key / "train.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return whole


def test_a_row_overwritten_in_the_middle_is_extracted_again(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = damage(Workspace(load_experiment(config)))
    gc.collect()
    again = Workspace(load_experiment(config))
    with caplog.at_level(logging.WARNING, "tuner"):
        assert np.array_equal(again.features.of(*LAYER).train, whole)
    assert "does not match its checksum in chunk" in caplog.text


def test_damaged_features_that_somebody_reads_stop_the_command(config: Path) -> None:
    holder = Workspace(load_experiment(config))
    damage(holder)
    with pytest.raises(EnvironmentFailure, match="another process reads them"):
        Workspace(load_experiment(config)).features.of(*LAYER)


def test_features_are_read_through_once_in_a_process(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    verify = FeatureCache.verify
    monkeypatch.setattr(
        FeatureCache, "verify", lambda self, key: (looked.append(key), verify(self, key))[1]
    )
    for _ in range(2):
        workspace = Workspace(load_experiment(config))
        workspace.features.normalization(*LAYER)
        for _ in range(2):
            workspace.features.of(*LAYER)
    assert len(looked) == 1
