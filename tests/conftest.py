"""What all tests share: a way to run the command in this process, and small recordings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # before matplotlib is imported anywhere
# Before torch is: small products gain nothing from threads, and two test processes would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

VARIABLES = ("TUNER_TRACEBACK", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "_TUNER_COMPLETE")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def check_one_line_error(self, code: int, *mentions: str) -> None:
        """Hold it to the form of an error: one line that names what is at fault."""
        assert self.code == code, self.err
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        assert "defect" not in self.err
        for mention in mentions:
            assert mention in self.err, self.err


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep away what the developer, or an earlier test, has set."""
    from cli import options

    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    options.reset()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``tuner`` with the given words, in this process."""
    from cli.main import main

    def run_command(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one while the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
