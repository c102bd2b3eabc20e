"""Tables: fixed columns, values that read back, whole files."""

from __future__ import annotations

import csv
import errno
import math
from pathlib import Path

import numpy as np
import pytest

from tests.figures.conftest import study_rows
from tuner.atomic import write_bytes
from tuner.figures.panels import failed, pending
from tuner.figures.tables import HEATMAP_COLUMNS, write_heatmap, write_units


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_heatmap_columns_and_values(tmp_path: Path) -> None:
    rows = study_rows({"b": ["l.0", "l.1"]}, ["V1", 'V4, "left"'], test=True)
    rows[0]["feve"] = math.nan
    rows[1]["noise_ceiling"] = None
    rows[2]["n_units"] = np.int64(7)
    rows[3]["fit_failed"] = np.bool_(True)
    path = write_heatmap([dict(reversed(row.items())) for row in rows], tmp_path / "heatmap.csv")
    assert path.read_text().splitlines()[0] == (
        "backbone,layer,layer_index,region,readout,n_units,n_trials,validation_loss,"
        "validation_correlation,test_correlation,test_correlation_normalized,feve,noise_ceiling,"
        "n_units_with_ceiling,fit_failed,test_correlation_normalized_median,feve_median,n_units_gated,"
        "below_smooth,note,n_complete,test_correlation_low,test_correlation_high,"
        "test_correlation_normalized_low,test_correlation_normalized_high,feve_low,feve_high,"
        "against_smooth,against_smooth_difference,against_smooth_low,against_smooth_high,"
        "against_start,against_start_difference,against_start_low,against_start_high"
    )
    found = read(path)
    assert len(found) == len(rows)
    for row, line in zip(rows, found, strict=True):
        assert line["region"] == row["region"]
        assert float(line["validation_loss"]) == row["validation_loss"]
    assert found[0]["feve"] == ""
    assert found[1]["noise_ceiling"] == ""
    assert found[2]["n_units"] == "7"
    assert [line["fit_failed"] for line in found[2:4]] == ["false", "true"]
    # a table that was read back is understood as it is
    assert failed(found[3])
    assert not failed(found[2])
    assert not pending(found[2])


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surprise"):
        write_heatmap([{"backbone": "b", "surprise": 1}], tmp_path / "heatmap.csv")
    assert not list(tmp_path.iterdir())


def test_units_keep_the_recordings_columns(tmp_path: Path) -> None:
    rows = [
        {"unit": 3, "study": "b/l/V1/full", "electrode": "e\n1", "feve": np.float32(0.5)},
        {"unit": 4, "study": "b/l/V1/full", "electrode": b"e2", "rf_x": None},
    ]
    path = write_units(rows, tmp_path / "deep" / "units.csv")
    found = read(path)
    assert list(found[0]) == [
        *("study", "backbone", "layer", "layer_index", "region", "readout", "unit"),
        *("electrode", "feve", "rf_x"),
    ]
    assert [line["electrode"] for line in found] == ["e\n1", "e2"]
    assert found[0]["feve"] == "0.5"
    assert found[1]["feve"] == ""


def test_no_rows_is_a_header(tmp_path: Path) -> None:
    path = write_heatmap([], tmp_path / "heatmap.csv")
    assert path.read_text().strip() == ",".join(HEATMAP_COLUMNS)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = write_bytes(tmp_path / "a.txt", b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_be_written_is_named_as_its_reader_knows_it(
    tmp_path: Path, monkeypatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_bytes(tmp_path / "a.txt", b"new")
    assert caught.value.filename == str(tmp_path / "a.txt")


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    path = write_units([{"study": "s", "name": text, "x": "-1.5", "y": -2.5}], tmp_path / "u.csv")
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "'" + text.replace("\r", " ")
    assert (row["x"], row["y"]) == ("-1.5", "-2.5")
