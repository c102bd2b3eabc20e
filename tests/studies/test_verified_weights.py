"""Kept weights are those that were written, and belong to one database."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path

import pytest

from studies.config.experiment import load_experiment
from studies.database import artifacts, ownership, weights
from studies.database.stores import Stores, open_stores
from studies.database.studies import stored_studies
from tests.conftest import Run
from tests.soak.outcome import look
from tests.studies.small import write_experiment
from tests.studies.test_environment import GRID

Damage = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A search of eight trials, to be copied and then harmed."""
    from cli.main import main

    config = write_experiment(tmp_path_factory.mktemp("searched") / "one", shared, GRID)
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    for n in ("4", "8"):
        assert main(["optimize", "--n-trials", n, "-q", "-c", str(config)]) == 0
    return config


@pytest.fixture
def config(searched: Path, tmp_path: Path) -> Path:
    return shutil.copytree(searched.parent, tmp_path / "experiment") / "tuner.toml"


@pytest.fixture
def stores(config: Path) -> Iterator[Stores]:
    with open_stores(load_experiment(config)) as opened:
        yield opened


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {f"{row['region']}/{row['readout']}": row for row in csv.DictReader(file)}


def kept(stores: Stores, region: str = "V1") -> tuple[int, dict[int | None, weights.KeptFile]]:
    """Number of the best trial of a region's full readout, and its study's kept files."""
    study = next(
        s
        for s in stored_studies(stores.storage).values()
        if (s.key.region, s.key.readout) == (region, "full")
    )
    loaded = stores.storage.optuna.get_best_trial(study.study_id)
    return loaded.number, weights.kept_files(stores.storage, study.study_id)


def check_same(config: Path, undisturbed: Path) -> None:
    """A trial that ran again came to what it had come to, but for rounding: it ran in other company."""
    mine, theirs = look(config, 8), look(undisturbed, 8)
    assert mine.problems == []
    for study, outcome in mine.outcome.items():
        other = theirs.outcome[study]
        assert outcome["kept"].keys() == other["kept"].keys()
        for trial, before in zip(outcome["trials"], other["trials"], strict=True):
            assert trial[:3] == before[:3]
            assert trial[3] == pytest.approx(before[3], rel=1e-4)


def flip(one: Path, other: Path) -> None:
    content = bytearray(one.read_bytes())
    content[-5] ^= 1
    one.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def lose(one: Path, other: Path) -> None:
    one.unlink()


def test_a_file_is_hashed_once_while_nobody_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = artifacts.Artifacts(tmp_path)
    name = kept.write(b"0123456789", "study/3")
    hashed = []
    monkeypatch.setattr(artifacts, "mmap", lambda *g, **n: hashed.append(1) or mmap(*g, **n))
    kept.verify(name, "study/3")
    kept.verify(name, "study/3")
    assert len(hashed) == 2  # it was written just now: a second write would not show
    monkeypatch.setattr(artifacts, "_TICK", -1)
    kept.verify(name, "study/3")
    kept.verify(name, "study/3")
    assert len(hashed) == 3
    with pytest.raises(artifacts.UnreadableWeights, match="damaged"):
        kept.verify(name, "study/4")
    before = kept.path(name).stat()
    flip(kept.path(name), kept.path(name))
    os.utime(kept.path(name), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(artifacts.UnreadableWeights, match="damaged"):
        kept.verify(name, "study/3")


@pytest.mark.parametrize("harm", [flip, lose])
def test_weights_that_are_not_those_written_cost_their_trial_and_nothing_else(
    searched: Path,
    config: Path,
    stores: Stores,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    harm: Damage,
) -> None:
    out = config.parent / "out"
    assert run("export", "heatmap", "-o", out / "before", "-c", config).code == 0
    best, files = kept(stores)
    (second,) = set(files) - {best, None}
    path = stores.artifacts.path(files[best].artifact_id)
    harm(path, stores.artifacts.path(files[second].artifact_id))
    with caplog.at_level(logging.WARNING, "tuner"):
        assert run("export", "heatmap", "-o", out / "after", "-c", config).code == 0
    (said,) = [r.getMessage() for r in caplog.records if path.name in r.getMessage()]
    assert f"net/_blocks.2/V1/full, trial {best}: " in said
    before, after = (rows(out / name / "heatmap.csv") for name in ("before", "after"))
    assert before.keys() == after.keys()
    shown = after.pop("V1/full")
    assert shown["note"] == f"weights of trial {best} are lost: trial {second}"
    assert float(shown["validation_loss"]) > float(before.pop("V1/full")["validation_loss"])
    assert after == before
    assert run("export", "best", "-o", out, "-c", config).code == 0
    described = json.loads((out / "net/_blocks.2/V1/full/encoder.json").read_text())
    assert described["meta"]["trial"] == second

    found = run("doctor", "-c", config)
    assert f"weights of trial {best}" in found.out
    assert "runs it again" in run("doctor", "--fix", "-c", config).out
    listed = run("study", "list", "--format", "json", "-c", config).json
    (waiting,) = [row for row in listed if row["trials"]["waiting"]]
    assert waiting["study"] == "net/_blocks.2/V1/full"
    assert waiting["best"]["number"] == second
    assert run("optimize", "--n-trials", "8", "-c", config).code == 0
    assert run("doctor", "-c", config).out == ""
    check_same(config, searched)


def test_swapped_files_are_told_apart(config: Path, stores: Stores, run: Run) -> None:
    best, files = kept(stores)
    (second,) = set(files) - {best, None}
    swap(*(stores.artifacts.path(files[n].artifact_id) for n in (best, second)))
    (config.parent / "out").mkdir()
    assert run("export", "heatmap", "-o", config.parent / "out", "-c", config).code == 0
    row = rows(config.parent / "out" / "heatmap.csv")["V1/full"]
    assert row["note"] == "weights of all its kept trials are lost"
    assert row["validation_loss"] == ""
    assert run("export", "best", "-o", config.parent / "out", "-c", config).code == 0
    written = {p.parent.name for p in (config.parent / "out").glob("net/*/V1/*/encoder.json")}
    assert written == {"factorized"}


def test_the_best_of_every_unit_is_made_anew(config: Path, stores: Stores, run: Run) -> None:
    _, files = kept(stores)
    before = {name: t.clone() for name, t in files[None].read(stores.artifacts).items()}
    flip(stores.artifacts.path(files[None].artifact_id), Path())
    command = ("export", "best", "--per-unit", "-o", config.parent / "out", "-c", config)
    assert run(*command).code == 0
    assert "made anew" in run("doctor", "--fix", "-c", config).out
    assert run("doctor", "-c", config).out == ""
    _, files = kept(stores)
    after = files[None].read(stores.artifacts)
    assert set(after["trial"].tolist()) <= set(files)
    for unit, trial in enumerate(before["trial"].tolist()):
        if trial in files:
            assert after["weight"][unit].tolist() == before["weight"][unit].tolist()


def test_a_damaged_best_of_every_unit_does_not_stop_the_search(
    config: Path, stores: Stores, run: Run
) -> None:
    for region in ("V1", "IT"):
        flip(stores.artifacts.path(kept(stores, region)[1][None].artifact_id), Path())
    assert run("optimize", "--n-trials", "16", "-c", config).code == 0
    assert run("doctor", "-c", config).out == ""
    assert len(list((stores.artifacts.folder / "damaged").iterdir())) == 2


def test_a_folder_of_weights_belongs_to_one_database(config: Path, run: Run) -> None:
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("[storage]", '[storage]\nurl = "sqlite:///o.db"'))
    ended = run("study", "create", "-c", other)
    ended.check_one_line_error(2, "storage.artifacts", "another database", "tuner.db")
    shutil.copy(config.with_name("tuner.db"), config.with_name("o.db"))
    ended = run("study", "delete", "--yes", "-c", other)
    ended.check_one_line_error(2, "storage.artifacts", "is a copy", "study copy")
    assert run("doctor", "-c", config).out == ""
    moved = config.parent.rename(config.parent.with_name("moved")) / "tuner.toml"
    assert run("doctor", "-c", moved).out == ""


def test_a_copy_has_its_own_weights(
    config: Path, searched: Path, stores: Stores, run: Run, tmp_path: Path
) -> None:
    best, files = kept(stores)
    flip(stores.artifacts.path(files[best].artifact_id), Path())
    copied = run("study", "copy", f"sqlite:///{tmp_path}/backup/b.db", "-c", config)
    assert copied.code == 0
    assert files[best].artifact_id in copied.err
    stores.storage.close()
    assert run("study", "delete", "--yes", "-c", config).code == 0
    assert {p.name for p in stores.artifacts.folder.iterdir()} == {"owner.json"}
    there = tmp_path / "backup" / "tuner.toml"
    there.write_text(
        config.read_text().replace(
            "[storage]", '[storage]\nurl = "sqlite:///b.db"\nartifacts = "b-artifacts"'
        )
    )
    assert f"weights of trial {best}" in run("doctor", "--fix", "-c", there).out
    assert run("optimize", "--n-trials", "8", "-c", there).code == 0
    check_same(there, searched)


def old_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"x")
    os.utime(path, (time.time() - 7200,) * 2)
    return path


def test_the_doctor_deletes_only_its_own(config: Path, stores: Stores, run: Run) -> None:
    folder = stores.artifacts.folder
    stray = old_file(folder, "0" * 32)
    claim = next(iter(stored_studies(stores.storage).values())).claim
    with stores.claims.claim(claim):
        assert "left: it is in use" in run("doctor", "--fix", "-c", config).out
    assert stray.exists()
    assert "delete it" in run("doctor", "--fix", "-c", config).out
    assert not stray.exists()
    # A folder of the release before, in which something else lies too.
    (folder / ownership.OWNER).unlink()
    foreign = old_file(folder, "1" * 32)
    assert run("optimize", "--n-trials", "12", "-c", config).code == 0
    assert (folder / ownership.OWNER).exists()
    assert "may not be this one's" in run("doctor", "--fix", "-c", config).out
    assert foreign.exists()


def test_a_folder_whose_weights_nobody_here_names_is_not_taken(config: Path, run: Run) -> None:
    (config.parent / "artifacts" / ownership.OWNER).unlink()
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("[storage]", '[storage]\nurl = "sqlite:///o.db"'))
    assert run("study", "create", "-c", other).code == 0
    ended = run("optimize", "--n-trials", "4", "-q", "-c", other)
    ended.check_one_line_error(2, "storage.artifacts", "another's", "owner.json")


def test_weights_that_a_search_replaced_meanwhile_are_not_called_missing(
    config: Path, stores: Stores, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = weights.KeptFile("2" * 32, 1, "net/_blocks.2/V1/full", 0)
    before = weights.all_files
    monkeypatch.setattr(weights, "all_files", lambda storage: [gone, *before(storage)])
    assert run("doctor", "-c", config).out == ""
