"""A heatmap that differs because the test responses do says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py

from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tests.studies.small import write_recording
from tests.studies.test_environment import GRID

LINE = "the last one was made from other test responses than"


def change(recording: Path) -> None:
    """Put another file in the recording's place: one test response differs."""
    other = Path(shutil.copy(recording, recording.with_suffix(".other")))
    with h5py.File(other, "r+") as file:
        values = file["test/responses"][()]
        values[0, 0, 0] += 1
        file["test/responses"][...] = values
    other.replace(recording)


def test_changed_test_responses_are_named(
    make_experiment: MakeExperiment, run: Run, tmp_path: Path
) -> None:
    recording = write_recording(tmp_path / "mine.h5")
    config = make_experiment({**GRID, "data": {"path": str(recording)}})
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "--n-trials", "1", "-c", config).code == 0
    out = tmp_path / "out"
    export = ("export", "heatmap", "-o", out, "-c", config)
    of_references = [out / "references.csv", out / "reference_units.csv"]
    assert LINE not in run(*export, "--ridge").err, "nothing changed"
    assert all(path.is_file() for path in of_references)
    again = run(*export).err
    assert LINE not in again, "nothing changed"
    for path in of_references:
        assert not path.exists(), "of an earlier export, beside tables of this one"
        assert f"removed {path}" in again
    change(recording)
    found = run(*export)
    assert found.code == 0
    (line,) = [line for line in found.err.splitlines() if LINE in line]
    assert "heatmap.csv" in line
    assert "mine.h5" in line
    assert LINE not in run(*export).err, "said once, of the last one"
    change(recording)
    for record in ("no record", json.dumps([])):
        (out / "heatmap.json").write_text(record)
        assert LINE not in run(*export).err, "of what is not known nothing is said"
