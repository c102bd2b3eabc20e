"""When the machine fails: an error that says what to do, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from studies.database import optuna_tables
from studies.database.artifacts import Artifacts
from studies.database.connection import _explain as explain
from studies.search import round as rounds
from tests.conftest import Run
from tests.soak.outcome import Outcome, differences, look
from tests.studies.conftest import MakeExperiment

GRID = {
    "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
}


def mount(where: Path, options: str) -> bool:
    """Mount a small file system of its own; only root may."""
    if os.geteuid() != 0:
        return False
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tuner-test", str(where)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a few megabytes."""
    where = tmp_path / "disk"
    where.mkdir()
    if not mount(where, "size=3m"):
        pytest.skip("only root may mount a small disk")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.fixture
def whole(make_experiment: MakeExperiment, run: Run) -> Outcome:
    """The same search where nothing fails."""
    config = make_experiment(GRID, "whole")
    assert run("study", "create", "-c", config).code == 0
    for n in (4, 8):
        assert run("optimize", "--n-trials", n, "-c", config).code == 0
    seen = look(config, 8)
    assert seen.problems == []
    return seen.outcome


def start(make: MakeExperiment, run: Run, changes: dict[str, Any] | None = None) -> Path:
    """A search with its first round done."""
    config = make({**GRID, **(changes or {})})
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "--n-trials", 4, "-c", config).code == 0
    return config


def finish(config: Path, run: Run, whole: Outcome) -> None:
    ended = run("optimize", "--n-trials", 8, "-c", config)
    assert ended.code == 0, ended.err
    seen = look(config, 8)
    assert seen.problems == []
    assert differences(seen.outcome, whole) == []


def test_a_full_disk_under_the_kept_files(
    make_experiment: MakeExperiment, run: Run, disk: Path, whole: Outcome
) -> None:
    config = start(make_experiment, run, {"storage": {"artifacts": str(disk)}})
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(disk).free - 5000))
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, "storage.artifacts", "free space", str(disk))
    filler.unlink()
    finish(config, run, whole)


def test_a_full_disk_under_the_database(
    make_experiment: MakeExperiment, run: Run, disk: Path, whole: Outcome
) -> None:
    config = start(make_experiment, run, {"storage": {"url": f"sqlite:///{disk}/t.db"}})
    filler = disk / "filler"
    filler.write_bytes(b"\0" * shutil.disk_usage(disk).free)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, "storage.url")
    assert "space" in ended.err or "full" in ended.err
    filler.unlink()
    finish(config, run, whole)


def test_a_read_only_disk(
    make_experiment: MakeExperiment, run: Run, disk: Path, whole: Outcome
) -> None:
    config = start(make_experiment, run, {"storage": {"url": f"sqlite:///{disk}/t.db"}})
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, str(disk))
    assert "writable" in ended.err
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finish(config, run, whole)


def test_read_only_artifacts(
    make_experiment: MakeExperiment, run: Run, disk: Path, whole: Outcome
) -> None:
    config = start(make_experiment, run, {"storage": {"artifacts": str(disk)}})
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, "storage.artifacts", "make the folder writable")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finish(config, run, whole)


def test_a_clock_that_jumps_back(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch, whole: Outcome
) -> None:
    config = start(make_experiment, run)
    back = timedelta(days=3)
    monkeypatch.setattr(optuna_tables, "now", lambda: datetime.now(UTC).replace(tzinfo=None) - back)
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() - back.total_seconds())
    finish(config, run, whole)
    assert run("doctor", "-c", config).out == ""
    assert run("status", "-c", config).code == 0
    assert run("study", "show", "net/_blocks.2/V1/full", "-c", config).code == 0


def test_a_database_that_was_copied_away_and_back(
    make_experiment: MakeExperiment, run: Run, tmp_path: Path, whole: Outcome
) -> None:
    """The one file is enough: nothing waits beside it once a command has ended."""
    config = start(make_experiment, run)
    database = config.parent / "tuner.db"
    shutil.copy(database, tmp_path / "away.db")
    for path in config.parent.glob("tuner.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run("optimize", "--n-trials", 8, "-c", config).check_one_line_error(2, "study create")
    shutil.copy(tmp_path / "away.db", database)
    finish(config, run, whole)


def test_an_older_copy_brought_back_goes_on_from_there(
    make_experiment: MakeExperiment, run: Run, tmp_path: Path, whole: Outcome
) -> None:
    config = start(make_experiment, run)
    database = config.parent / "tuner.db"
    shutil.copy(database, tmp_path / "away.db")
    assert run("optimize", "--n-trials", 8, "-c", config).code == 0
    shutil.copy(tmp_path / "away.db", database)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    if ended.code:  # files that lost their place since are gone: it says so, and what to do
        ended.check_one_line_error(2, "tuner doctor --fix")
        assert run("doctor", "--fix", "-c", config).code == 0
        assert run("optimize", "--n-trials", 8, "-c", config).code == 0
    found = look(config, 8).outcome
    assert {n: s["trials"] for n, s in found.items()} == {n: s["trials"] for n, s in whole.items()}
    assert "no trial has this file" not in run("doctor", "-c", config).out


def test_a_database_that_is_moved_away_under_a_search(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch, whole: Outcome
) -> None:
    config = start(make_experiment, run)
    database = config.parent / "tuner.db"
    train = rounds.Round.run

    def moved(self: rounds.Round, observer: Any = None) -> rounds.Result:
        if database.exists():
            database.rename(database.with_name("moved.db"))
        return train(self, observer)

    monkeypatch.setattr(rounds.Round, "run", moved)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, "tuner.db", "put it back")
    monkeypatch.setattr(rounds.Round, "run", train)
    database.with_name("moved.db").rename(database)
    finish(config, run, whole)


def test_a_database_that_is_replaced_under_a_search(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch, whole: Outcome
) -> None:
    config = start(make_experiment, run)
    database = config.parent / "tuner.db"
    shutil.copy(database, database.with_name("older.db"))
    train = rounds.Round.run

    def replaced(self: rounds.Round, observer: Any = None) -> rounds.Result:
        if database.with_name("older.db").exists():
            database.with_name("older.db").replace(database)
        return train(self, observer)

    monkeypatch.setattr(rounds.Round, "run", replaced)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    ended.check_one_line_error(3, "tuner.db", "replaced")
    finish(config, run, whole)


def test_a_study_deleted_under_a_search(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = start(make_experiment, run)
    train = rounds.Round.run
    code: list[int] = []

    def deleted(self: rounds.Round, observer: Any = None) -> rounds.Result:
        from cli.main import main

        if not code:
            code.append(
                main(["study", "delete", "--region", "IT", "--yes", "-q", "-c", str(config)])
            )
        return train(self, observer)

    monkeypatch.setattr(rounds.Round, "run", deleted)
    ended = run("optimize", "--n-trials", 8, "-q", "-c", config)
    assert code in ([0], [2])
    assert ended.code in (0, 3)
    if ended.code == 3:
        assert "study deleted" in ended.err.lower() or "deleted" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough" * 100])
def test_a_file_that_is_no_database(
    make_experiment: MakeExperiment, run: Run, content: bytes
) -> None:
    config = make_experiment(GRID)
    (config.parent / "tuner.db").write_bytes(content)
    ended = run("optimize", "--n-trials", 8, "-c", config)
    ended.check_one_line_error(2 if not content else 3, "tuner.db" if content else "study create")


def test_lost_weights_are_named_and_mended(make_experiment: MakeExperiment, run: Run) -> None:
    config = start(make_experiment, run)
    artifacts = Artifacts(config.parent / "artifacts")
    for path in artifacts.folder.iterdir():
        path.unlink()
    ended = run("export", "best", "-q", "-o", config.parent / "out", "-c", config)
    ended.check_one_line_error(2, "tuner doctor --fix")
    assert "kept weights are missing" in run("doctor", "-c", config).out
    assert run("doctor", "--fix", "-c", config).code == 0
    assert run("doctor", "-c", config).out == ""
    assert run("optimize", "--n-trials", 8, "-c", config).code == 0


def test_a_database_that_somebody_holds_is_not_called_missing() -> None:
    """PostgreSQL's words for a process that was stopped while it made the tables."""
    line = explain(RuntimeError("canceling statement due to lock timeout"))
    assert "another program holds it" in line
