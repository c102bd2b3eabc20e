"""A loss of 1 is that of predicting every unit's mean on the same images."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cli.main import main
from studies.config.experiment import load_experiment
from studies.results import judged
from studies.workspace import Workspace
from tests.studies.conftest import MakeExperiment
from tests.studies.small import IMAGES, write_recording
from tuner.fitting.losses import mean_loss, response_scaling, value
from tuner.recordings import cut

FRACTION = 0.25
CHOSEN = ("--region", "V1", "--layer", "_blocks.2")


@pytest.fixture(scope="module")
def louder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise alone, twice as large on the images that the only cut holds out."""
    path = write_recording(tmp_path_factory.mktemp("louder") / "recording.h5")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(IMAGES, 5)).astype(np.float32)
    noise[cut(IMAGES, None, FRACTION, 0).validation] *= 2
    with h5py.File(path, "a") as file:
        file["train/responses"][...] = noise
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("relative", [True, False])
def test_noise_is_as_bad_as_its_mean_on_images_of_more_variance(
    make_experiment: MakeExperiment, louder: Path, tmp_path: Path, relative: bool
) -> None:
    """Before, a loss of 4 was what predicting the mean came to here."""
    space = {
        "smooth": {"width": [0.0, 1.0], "penalty": [1e2, 1e4]},
        "full": {"learning_rate": 1e-3},
    }
    config = make_experiment(
        {
            "data": {"path": str(louder)},
            "training": {"relative": relative},
            "search": {"space": space | {"factorized": {}}},
        }
    )
    for words in (["study", "create"], ["optimize", "--n-trials", "2"]):
        assert main(["-q", "-c", str(config), *words, *CHOSEN]) == 0
    out = tmp_path / "out"
    words = ["export", "heatmap", "--ridge", "--stacked", "-o", str(out)]
    assert main(["-q", "-c", str(config), *words, *CHOSEN]) == 0
    rows = table(out / "heatmap.csv") + table(out / "references.csv")
    assert [row["readout"] for row in rows] == ["full", "factorized", "smooth", "stacked", "ridge"]
    limits = (0.9, 1.4) if relative else (2.5, 6.0)
    assert all(limits[0] < float(row["validation_loss"]) < limits[1] for row in rows)
    units = [row for row in table(out / "units.csv") if row["readout"] == "full"]
    assert len(units) == 3
    losses = [float(row["validation_loss"]) for row in units]
    assert all(limits[0] * 0.5 < loss < limits[1] * 1.5 for loss in losses), losses
    assert {row["fit_failed"] for row in rows} == {"true"}
    workspace = Workspace(load_experiment(config))
    spec = next(s for s in workspace.grid if s.key.region == "V1")
    flat = np.square(workspace.targets.validation[:, spec.units]).mean()
    assert workspace.mean_loss(spec.units) == pytest.approx(flat if relative else 1.0)


def test_a_loss_of_a_reference_that_may_be_chance_has_failed(
    make_experiment: MakeExperiment, louder: Path
) -> None:
    config = make_experiment({"data": {"path": str(louder)}})
    workspace = Workspace(load_experiment(config))
    rng = np.random.default_rng(1)
    flat = rng.gamma(2.0, 1.0, (30, 3))
    noise = 0.2 * rng.normal(size=flat.shape)
    little, much = (flat - gain + noise - noise.mean() for gain in (0.001, 0.5))
    assert judged.fit_failed(workspace, 0.999, little, flat, trials=1)
    assert not judged.fit_failed(workspace, 0.75, much, flat, trials=1)
    assert judged.fit_failed(workspace, 1.0, much, flat, trials=1)


def test_the_mean_s_loss_is_averaged_as_a_fit_s_is() -> None:
    rng = np.random.default_rng(2)
    responses = rng.gamma(2.0, 1.0, (50, 4)).astype(np.float32)
    responses[::7, 1] = np.nan
    for loss in ("mse", "poisson"):
        fitted = response_scaling(loss, responses)
        assert mean_loss(loss, fitted.apply(responses)) == pytest.approx(1, rel=1e-5)
    scaled = response_scaling("mse", responses[:25]).apply(responses)[25:]
    each = value("mse", torch.zeros(25, 4), torch.from_numpy(scaled))
    assert mean_loss("mse", scaled) == pytest.approx(float(each.nanmean(0).mean()), rel=1e-5)
    assert mean_loss("mse", np.zeros((5, 2), np.float32)) == 1  # nothing to divide by
    assert mean_loss("mse", np.full((5, 2), np.nan, np.float32)) == 1
