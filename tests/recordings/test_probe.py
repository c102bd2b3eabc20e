from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.recordings.cases import arrays, generic, tvsd
from tests.recordings.conformance import check_arrives
from tuner.errors import InputError
from tuner.recordings import write_recording
from tuner.recordings.hdf5 import probe


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run in children, in order."""
    started: list[list[str]] = []
    run = subprocess.run

    def counted(words: list[str], **options: Any) -> Any:
        started.append(words)
        return run(words, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    return started


def test_a_file_is_walked_through_once(
    probed: None, tmp_path: Path, children: list[list[str]]
) -> None:
    case = tvsd(tmp_path)
    check_arrives(case)
    assert len(children) == 2  # the recording and its stimuli
    check_arrives(case)
    assert len(children) == 2
    case.path.write_bytes(case.path.read_bytes())
    check_arrives(case)
    assert len(children) == 3


def test_many_files_take_one_child(probed: None, tmp_path: Path, children: list[list[str]]) -> None:
    check_arrives(arrays(tmp_path))
    assert len(children) == 1


def test_files_with_checksums_take_none(
    probed: None, tmp_path: Path, children: list[list[str]]
) -> None:
    case = generic(tmp_path)
    path = write_recording(case.load(), tmp_path / "out.h5")
    del children[:]
    case.load(path=path)
    assert not children
    with h5py.File(path, "a") as file:
        file["units/note"] = ["text of variable length"] * 9
    case.load(path=path)
    assert len(children) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time; time.sleep(60)", "does not end"),
        ("import os; os.kill(os.getpid(), 11)", "crashes HDF5"),
    ],
)
def test_files_that_hang_or_crash_are_refused(
    probed: None, code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = generic(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(code)
    monkeypatch.setattr(probe, "__file__", str(script))
    monkeypatch.setattr(probe, "LIMIT_S", 1.0)
    with pytest.raises(InputError, match=message) as caught:
        case.load()
    assert str(case.path) in str(caught.value)


def test_it_goes_on_where_no_process_can_be_started(
    probed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    check_arrives(generic(tmp_path))
