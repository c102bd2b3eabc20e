"""Where an export may go, refused before any work where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.export.target import is_file
from tuner.errors import EnvironmentFailure, InputError


def test_one_file_of_a_kind_that_the_export_writes_or_a_folder(tmp_path: Path) -> None:
    assert is_file(tmp_path / "new.PNG", ".png")
    assert not is_file(tmp_path / "new", ".png")
    assert not is_file(tmp_path, ".png")
    with pytest.raises(InputError, match=r"not written as \.csv; name a file NAME\.png"):
        is_file(tmp_path / "new.csv", ".png")


def test_a_file_where_a_folder_would_be_is_named(tmp_path: Path) -> None:
    there = tmp_path / "tuner.toml"
    there.write_text("")
    with pytest.raises(InputError, match=r"tuner\.toml: is a file; name another place"):
        is_file(there)
    for below in (there / "results", there / "a" / "x.png"):
        with pytest.raises(InputError, match=r"tuner\.toml is a file and no folder"):
            is_file(below, ".png")


def test_a_place_that_cannot_be_written_to_is_refused_at_once() -> None:
    for place in (Path("/proc/results"), Path("/proc/results/page.html")):
        with pytest.raises(EnvironmentFailure, match="nothing can be written to /proc"):
            is_file(place, ".html")
