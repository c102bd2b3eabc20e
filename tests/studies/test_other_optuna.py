"""A database of an optuna whose tables are others is refused by every command, in one line and at once."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

import tuner
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tuner.errors import InputError

COMMANDS = (
    "study create",
    "study list",
    "study show net/layer/V1/full",
    "study delete --yes",
    "study copy sqlite:///copy.db",
    "optimize --n-trials 2",
    "status",
    "doctor",
    "dashboard --port 1",
    "export heatmap -o out",
    "export best -o out",
    "export mei -o out",
    "export figures -o out",
    "export report -o out",
    "stimuli export -o out",
)


@pytest.fixture
def config(make_experiment: MakeExperiment, run: Run) -> Path:
    config = make_experiment()
    assert run("study", "create", "-c", config).code == 0
    with contextlib.closing(sqlite3.connect(config.with_name("tuner.db"))) as connection:
        for statement in (
            "ALTER TABLE trials RENAME COLUMN number TO ordinal",
            "ALTER TABLE trial_values RENAME TO trial_results",
            "ALTER TABLE studies RENAME COLUMN study_name TO title",
            "UPDATE alembic_version SET version_num = 'v6.1.0.a'",
            "UPDATE version_info SET library_version = '6.1.2'",
        ):
            connection.execute(statement)
        connection.commit()
    return config


def test_every_command_refuses_it(config: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    for command in COMMANDS:
        ended = run(*command.split(), "-q", "-c", config)
        assert ended.code == 2, (command, ended)
        assert ended.err.startswith("error: storage.url: "), command
        assert "revision v6.1.0.a, written by optuna 6.1.2" in ended.err, command
        assert "pip install 'optuna" in ended.err, command
        assert ended.err.count("\n") == 1, command
    with pytest.raises(InputError, match=r"revision v6\.1\.0\.a"):
        tuner.load_results(config)
