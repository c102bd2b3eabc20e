from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recordings import conformance
from tests.recordings.cases import CASES
from tuner.recordings import FORMATS


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_format(case: str, check: Callable[..., Any], tmp_path: Path) -> None:
    check(CASES[case](_folder(tmp_path)))


@pytest.mark.parametrize("check", conformance.CHECKS_WITH_FOLDER, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_format_with_folder(case: str, check: Callable[..., Any], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    check(CASES[case](_folder(tmp_path)), scratch)


def test_every_format_that_reads_files_has_a_case(tmp_path: Path) -> None:
    covered = {case(_folder(tmp_path / name)).format for name, case in CASES.items()}
    assert covered == {name for name, known in FORMATS.items() if known.needs_path}


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recording"
    folder.mkdir(parents=True)
    return folder
