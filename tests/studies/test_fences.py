"""Nothing is written into what is not one's own: studies deleted, made anew or taken under a worker."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.database import fences, own_tables, rounds, trials
from studies.database.artifacts import Artifacts
from studies.database.claims import open_claims
from studies.database.connection import Storage
from studies.database.copies import copy
from studies.database.fences import StudyGone
from studies.database.ghosts import ghosts
from studies.database.rounds import Asked, Told
from studies.database.sqlite import lock_folder
from studies.database.stores import Stores, open_stores
from studies.database.studies import NewStudy, Stored, add, delete, stored_studies
from studies.database.tokens import ClaimLost
from studies.database.trials import Outcome, Proposal
from studies.names import StudyKey
from studies.search import round as search_round
from studies.search.ledger import Done, Ledger
from studies.search.listener import Listener
from studies.search.search import Search
from studies.workspace import Workspace
from tests.conftest import Run
from tests.soak.zygote import Zygote
from tests.studies.conftest import MakeExperiment
from tuner.errors import InputError

SPACE = {"x": FloatDistribution(0.0, 1.0)}
V1, IT = StudyKey("a", "b", "V1", "full"), StudyKey("a", "b", "IT", "full")

ONE_LAYER = {
    "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
}
NAMES = ["net/_blocks.2/V1/full", "net/_blocks.2/IT/full"]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(f"sqlite:///{tmp_path}/t.db", create=True)
    add(made, [NewStudy(key, 0, {"steps": 1}, {}) for key in (V1, IT)])
    yield made
    made.close()


def one_readout(config: Path) -> Path:
    """Leave the other readout out of a config file."""
    config.write_text(config.read_text().replace(", factorized = {  }", ""))
    return config


def stored(storage: Storage, key: StudyKey = V1) -> Stored:
    return stored_studies(storage)[key.name]


def ask(storage: Storage, study: Stored) -> list[trials.Trial]:
    return rounds.ask(storage, [Asked(study, [], [Proposal({"x": 0.5})], SPACE)])[0]


def everything(storage: Storage) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but the claims'."""
    with storage.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        return {
            name: [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}"))]
            for name in tables
            if name != own_tables.claims.name
        }


def anew(storage: Storage, tmp_path: Path) -> Stored:
    """Delete the studies and make them anew, with other settings; the first gets its number again."""
    before = stored_studies(storage)
    delete(storage, Artifacts(tmp_path / "artifacts"), list(before.values()))
    add(storage, [NewStudy(key, 0, {"steps": 2}, {}) for key in (V1, IT)])
    return stored(storage)


def test_nothing_of_a_stale_worker_reaches_a_study_made_anew(
    storage: Storage, tmp_path: Path
) -> None:
    mine = stored(storage)
    (trial,) = ask(storage, mine)
    theirs = anew(storage, tmp_path)
    (another,) = ask(storage, theirs)
    # Optuna's numbers are the same again: this is what the fence is there for.
    assert (theirs.study_id, another.trial_id) == (mine.study_id, trial.trial_id)
    before = everything(storage)
    ended = [Outcome(trial.trial_id, TrialState.COMPLETE, 0.5, {})]
    writes: list[Callable[[], object]] = [
        lambda: rounds.report(storage, [(mine, [(trial.trial_id, 2, 0.5)])]),
        lambda: rounds.tell(storage, [Told(mine, ended)]),
        lambda: rounds.fail(storage, Told(mine, ended), "it raised"),
        lambda: rounds.requeue(storage, [mine], "putting back"),
        lambda: ask(storage, mine),
        lambda: delete(storage, Artifacts(tmp_path / "artifacts"), [mine]),
    ]
    for write in writes:
        with pytest.raises(StudyGone, match="a/b/V1/full"):
            write()
    assert everything(storage) == before


def test_a_trial_of_another_study_is_not_written(storage: Storage) -> None:
    mine, other = stored(storage), stored(storage, IT)
    (trial,) = ask(storage, mine)
    before = everything(storage)
    with pytest.raises(StudyGone, match="a/b/IT/full"):
        rounds.report(storage, [(other, [(trial.trial_id, 2, 0.5)])])
    told = Told(other, [Outcome(trial.trial_id, TrialState.COMPLETE, 0.5, {})])
    with pytest.raises(StudyGone, match="a/b/IT/full"):
        rounds.tell(storage, [told])
    assert everything(storage) == before


def test_a_waiting_trial_that_was_taken_up_already_is_not_taken_up_again(storage: Storage) -> None:
    mine = stored(storage)
    ask(storage, mine)
    rounds.requeue(storage, [mine], "putting back")
    (waiting,) = trials.load(storage, [mine.study_id]).values()
    rounds.ask(storage, [Asked(mine, waiting, [], SPACE)])
    with pytest.raises(StudyGone):
        rounds.ask(storage, [Asked(mine, waiting, [], SPACE)])


def test_tokens_are_never_the_same(storage: Storage, tmp_path: Path) -> None:
    seen = {stored(storage).seal}
    for _ in range(3):
        seen.add(anew(storage, tmp_path).seal)
    assert len(seen) == 4
    copy(
        storage,
        Artifacts(tmp_path / "artifacts"),
        f"sqlite:///{tmp_path}/copy.db",
        [stored(storage)],
    )
    there = Storage(f"sqlite:///{tmp_path}/copy.db")
    seen.add(stored(there).seal)
    there.close()
    assert len(seen) == 5


def test_a_claim_that_somebody_else_took_cannot_write(storage: Storage) -> None:
    """The folder of locks is cleared while a claim is held: two hold the cohort, and only the second may write."""
    assert storage.path is not None
    other = Storage(str(storage.url))
    with open_claims(storage).claim("c") as mine:
        assert mine
        (trial,) = ask(storage, stored(storage))
        shutil.rmtree(lock_folder(storage.path))
        with open_claims(other).claim("c") as theirs:
            assert theirs
            before = everything(storage)
            for write in (
                lambda: rounds.report(storage, [(stored(storage), [(trial.trial_id, 2, 0.5)])]),
                lambda: rounds.requeue(storage, [stored(storage)], "putting back"),
            ):
                with pytest.raises(ClaimLost, match="c: process"):
                    write()
            assert everything(storage) == before
            assert rounds.requeue(other, [stored(other)], "recovering") == [trial.trial_id]
    other.close()


def as_before(path: Path) -> None:
    """Bring a database to the tables of the release before."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE tuner_studies DROP COLUMN token")
        database.execute("DROP TABLE tuner_claims")
        database.execute("DELETE FROM study_system_attributes")
        database.execute("UPDATE tuner_meta SET value = '1' WHERE key = 'schema'")


def test_a_database_of_before_gets_its_tokens_once(storage: Storage) -> None:
    assert storage.path is not None
    (trial,) = ask(storage, stored(storage))
    storage.close()
    as_before(storage.path)
    again = Storage(str(storage.url))
    studies = stored_studies(again)
    assert set(studies) == {V1.name, IT.name}
    assert ghosts(again) == []
    assert rounds.requeue(again, [studies[V1.name]], "recovering") == [trial.trial_id]
    second = Storage(str(storage.url))
    assert {s.seal for s in stored_studies(second).values()} == {s.seal for s in studies.values()}
    assert len({s.seal for s in studies.values()}) == 2
    for opened in (again, second):
        opened.close()


def test_the_release_before_refuses_a_database_of_this_one(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_tables, "SCHEMA", 1)
    with pytest.raises(InputError, match="written by a newer tuner"):
        Storage(str(storage.url))


def test_a_study_that_optuna_had_deleted_before_is_a_ghost_afterwards(storage: Storage) -> None:
    assert storage.path is not None
    optuna.delete_study(study_name=IT.name, storage=storage.optuna)
    storage.close()
    as_before(storage.path)
    again = Storage(str(storage.url))
    assert set(stored_studies(again)) == {V1.name}
    assert [ghost.name for ghost in ghosts(again)] == [IT.name]
    assert fences.still_there(again, stored(again))
    again.close()


# -- the search --------------------------------------------------------------------------------------


class Meddler(Listener):
    """Does something in the middle of a round, and remembers what is said."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle: Callable[[], object] | None = meddle
        self.said: list[str] = []

    def training(self, what: str, trials: int, step: int, steps: int, running: int) -> None:
        if self.meddle is not None and step >= steps / 2:
            meddle, self.meddle = self.meddle, None
            meddle()

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def config(make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search of one layer and readout in two regions; all reports are written at once."""
    monkeypatch.setattr(search_round, "REPORT_SECONDS", 0.0)
    made = one_readout(make_experiment(ONE_LAYER))
    assert run("study", "create", "-c", made).code == 0
    return made


def search(config: Path, meddle: Callable[[Stores], object]) -> tuple[Done, list[str]]:
    """Bring the studies to 8 trials, meddled with in the first round by somebody with stores of his own."""
    experiment = load_experiment(config)
    with open_stores(experiment) as stores, open_stores(experiment) as others:
        workspace = Workspace(experiment)
        listener = Meddler(lambda: meddle(others))
        done = Search(
            Ledger(workspace, stores, workspace.grid, n_trials=8, listener=listener)
        ).run()
        assert listener.meddle is None
        return done, listener.said


def finished(config: Path) -> dict[str, int]:
    with open_stores(load_experiment(config)) as stores:
        studies = stored_studies(stores.storage)
        loaded = trials.load(stores.storage, [s.study_id for s in studies.values()])
        return {
            name: sum(t.state in trials.FINISHED for t in loaded[s.study_id])
            for name, s in studies.items()
        }


def test_studies_made_anew_during_a_round_get_nothing_of_it(config: Path) -> None:
    """What once got worker 1's results into the trials of worker 2, but for the claims that now forbid it."""

    def meddle(others: Stores) -> None:
        before = stored_studies(others.storage)
        delete(others.storage, others.artifacts, list(before.values()))
        new = [NewStudy(s.key, s.layer_index, {"other": 1}, s.plan) for s in before.values()]
        add(others.storage, new)
        for study in stored_studies(others.storage).values():
            rounds.ask(others.storage, [Asked(study, [], [Proposal({"x": 0.1})] * 4, SPACE)])
        meddled.update(everything(others.storage))

    meddled: dict[str, list[tuple[Any, ...]]] = {}
    done, said = search(config, meddle)
    with open_stores(load_experiment(config)) as stores:
        assert everything(stores.storage) == meddled
    assert (done.trials, sorted(done.gone)) == (0, sorted(NAMES))
    assert len([line for line in said if "made anew" in line]) == 1


def test_a_study_deleted_in_the_dashboard_costs_itself_alone(config: Path, run: Run) -> None:
    def meddle(others: Stores) -> None:
        optuna.delete_study(study_name=NAMES[0], storage=others.storage.optuna)

    done, said = search(config, meddle)
    assert (done.trials, done.gone, done.complete) == (8, [NAMES[0]], True)
    assert len([line for line in said if NAMES[0] in line]) == 1
    assert finished(config) == {NAMES[1]: 8}

    # It is found, does not stop the next search, and is mended.
    again = run("optimize", "--n-trials", 12, "-c", config)
    assert again.code == 0
    assert again.err.count(NAMES[0]) == 1
    assert "tuner study create" in again.err
    assert finished(config) == {NAMES[1]: 12}
    exported = run("export", "heatmap", "-o", config.parent / "out", "-c", config)
    assert exported.code == 0
    assert exported.err.count(NAMES[0]) == 1
    assert (config.parent / "out" / "heatmap.csv").read_text().count("_blocks.2") == 1
    found = run("doctor", "-c", config)
    assert f"study {NAMES[0]}: deleted through optuna" in found.out
    assert run("doctor", "--fix", "-c", config).code == 0
    assert run("doctor", "-c", config).out == ""
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "--n-trials", 12, "-c", config).code == 0
    assert finished(config) == dict.fromkeys(NAMES, 12)


def test_creating_makes_a_ghost_anew_though_another_has_its_number(config: Path, run: Run) -> None:
    assert run("optimize", "--n-trials", 4, "-c", config).code == 0
    with open_stores(load_experiment(config)) as stores:
        optunas = stores.storage.optuna
        files = {path.name for path in stores.artifacts.folder.iterdir()}
        last = stored_studies(stores.storage)[NAMES[1]]
        optuna.delete_study(study_name=NAMES[1], storage=optunas)
        theirs = optuna.create_study(study_name="not ours", storage=optunas)
        assert theirs._study_id == last.study_id
        assert [ghost.name for ghost in ghosts(stores.storage)] == [NAMES[1]]
        assert set(stored_studies(stores.storage)) == {NAMES[0]}
        theirs.add_trial(optuna.create_trial(value=1.0))
        created = run("study", "create", "-c", config)
        assert created.code == 0, created.err
        assert "forgot 1" in created.err
        assert set(stored_studies(stores.storage)) == set(NAMES)
        assert ghosts(stores.storage) == []
        assert {path.name for path in stores.artifacts.folder.iterdir()} < files
        assert len(theirs.trials) == 1
    assert run("optimize", "--n-trials", 8, "-c", config).code == 0
    assert finished(config) == dict.fromkeys(NAMES, 8)


def test_a_study_of_that_name_that_is_not_ours_is_named(config: Path, run: Run) -> None:
    with open_stores(load_experiment(config)) as stores:
        optuna.delete_study(study_name=NAMES[1], storage=stores.storage.optuna)
        optuna.create_study(study_name=NAMES[1], storage=stores.storage.optuna)
        assert set(stored_studies(stores.storage)) == {NAMES[0]}
    run("study", "create", "-c", config, "-q").check_one_line_error(2, NAMES[1], "optuna")


def test_a_round_whose_claim_was_taken_is_left_to_whoever_has_it(config: Path) -> None:
    taken = contextlib.ExitStack()

    def meddle(others: Stores) -> None:
        assert others.storage.path is not None
        shutil.rmtree(lock_folder(others.storage.path))
        assert taken.enter_context(others.claims.claim("net\0_blocks.2\0full"))
        rounds.requeue(others.storage, list(stored_studies(others.storage).values()), "recovering")
        threading.Timer(0.5, taken.close).start()

    done, said = search(config, meddle)
    lost = [line for line in said if "works on it now" in line]
    assert len(lost) == 1
    assert f"on {socket.gethostname()}" in lost[0]
    # Its own claims come later; the round that was taken from it runs again.
    assert done.complete
    assert done.trials == 16
    assert finished(config) == dict.fromkeys(NAMES, 8)


# -- the commands ------------------------------------------------------------------------------------


def test_what_is_worked_on_is_neither_deleted_nor_made_anew(config: Path, run: Run) -> None:
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("report_every = 2", "report_every = 4"))
    who = f"process {os.getpid()} on {socket.gethostname()}"
    working = contextlib.ExitStack()
    with open_stores(load_experiment(config)) as stores:
        assert working.enter_context(stores.claims.claim("net\0_blocks.2\0full"))
        for words in (
            ["study", "delete", "--yes", "--region", "V1", "-c", config],
            ["study", "create", "--force", "-c", other, "-q"],
        ):
            run(*words).check_one_line_error(2, who, "--wait", "net/_blocks.2")
        assert finished(config) == dict.fromkeys(NAMES, 0)
        threading.Timer(1.0, working.close).start()
        ended = run("study", "delete", "--yes", "--wait", "--region", "V1", "-c", config)
        assert ended.code == 0
        assert who in ended.err
        assert "waiting" in ended.err
    assert finished(config) == {NAMES[1]: 0}
    assert run("study", "create", "--force", "-c", other).code == 0
    assert set(finished(config)) == set(NAMES)


def test_copying_onto_a_name_that_is_worked_on_names_who(storage: Storage, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    target = Storage(f"sqlite:///{tmp_path}/copy.db", create=True)
    copy(storage, artifacts, str(target.url), [stored(storage)])
    with (
        open_claims(target).claim("a\0b\0full"),
        pytest.raises(InputError, match=f"process .* on {socket.gethostname()}"),
    ):
        copy(storage, artifacts, str(target.url), [stored(storage)])
    with pytest.raises(InputError, match="delete it there first") as refused:
        copy(storage, artifacts, str(target.url), [stored(storage)])
    assert "process" not in str(refused.value)
    target.close()


def test_processes_that_open_a_database_of_before_at_once_agree(
    config: Path, tmp_path: Path
) -> None:
    as_before(config.parent / "tuner.db")
    with Zygote() as zygote:
        children = [
            zygote.start(["optimize", "--n-trials", 4, "-c", config], tmp_path / f"log-{i}")
            for i in range(3)
        ]
        assert [child.wait() for child in children] == [0] * 3, [c.text() for c in children]
    assert finished(config) == dict.fromkeys(NAMES, 4)
