"""Every way beside every other on recordings of a folder: what is computed once is kept, and the page says it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.real import __main__ as real
from benchmarks.real.closed import CLOSED
from benchmarks.real.problem import Problem
from tests.studies.small import write_recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    write_recording(recordings / "one.h5")
    return recordings


def test_the_page_compares_and_a_second_run_computes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "real.md"
    command = ["real", str(folder), "-o", str(out), "--work", str(folder.parent / "work")]
    command += ["--layers", "_blocks.2", "--image-size", "32", "--trials", "1"]
    command += [
        "--ways",
        "pls",
        "ridge",
        "fwrf",
        "located",
        "rank 1",
        "smooth",
        "factorized",
        "stacked",
    ]
    monkeypatch.setattr("sys.argv", command)
    real.main()
    text = out.read_text(encoding="utf-8")
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert set(lines) > {
        "| pls",
        "| ridge",
        "| smooth",
        "| fwrf",
        "| located",
        "| rank 1",
        "| factorized",
        "| stacked",
    }
    assert "±" in lines["| pls"]
    assert "±" not in lines["| smooth"]
    assert "Normalised by the ceiling" in text  # it has four repeats
    kept = {p.name: json.loads(p.read_text()) for p in (folder.parent / "work").rglob("*.json")}
    searched = kept["_blocks.2.factorized.json"]
    assert searched["trials"] == 1
    assert np.isfinite(searched["correlation"]).all()
    assert len(searched["correlation"]) == 5

    monkeypatch.setattr(real, "measure", None)
    real.main()
    assert out.read_text(encoding="utf-8") == text


def test_units_that_miss_responses_are_fitted_to_the_others() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3, 2, 2)).astype(np.float16)
    weights = rng.normal(size=(12, 2))
    y = x.reshape(60, -1).astype(float) @ weights
    responses = y[:50].copy()
    responses[::3, 1] = np.nan
    problem = Problem(x[:50], x[50:], responses, None)
    for way in ("pls", "ridge"):  # a Gaussian mask is wrong here
        predicted = CLOSED[way](problem)
        assert np.corrcoef(predicted[:, 0], y[50:, 0])[0, 1] > 0.99
        assert np.corrcoef(predicted[:, 1], y[50:, 1])[0, 1] > 0.99


def test_a_recording_without_test_images_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(folder / "one.h5", "a") as file:
        del file["test"]
    command = ["real", str(folder), "-o", str(folder / "p.md"), "--image-size", "32"]
    monkeypatch.setattr("sys.argv", [*command, "--work", str(folder.parent / "work")])
    with pytest.raises(SystemExit, match="no test set"):
        real.main()
