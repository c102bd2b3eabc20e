"""The fences on PostgreSQL, where writers do not wait for each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from studies.database import fences, own_tables, rounds, studies, writes
from studies.database.artifacts import Artifacts
from studies.database.connection import Storage
from studies.database.fences import StudyGone
from studies.database.ghosts import ghosts
from studies.database.rounds import Told
from studies.database.studies import NewStudy, add, delete, stored_studies
from studies.database.trials import Outcome
from tests.studies.server import Server, why_not
from tests.studies.test_fences import IT, V1, ask, everything, stored

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    made = Storage(url, create=True)
    add(made, [NewStudy(key, 0, {"steps": 1}, {}) for key in (V1, IT)])
    yield made
    made.close()


@pytest.fixture
def other(storage: Storage, url: str) -> Iterator[Storage]:
    """Somebody else at the same database."""
    opened = Storage(url)
    yield opened
    opened.close()


def test_a_database_of_before_gets_its_tokens_once_whoever_opens_it(
    server: Server, url: str, storage: Storage
) -> None:
    (trial,) = ask(storage, stored(storage))
    optuna.delete_study(study_name=IT.name, storage=storage.optuna)
    storage.close()
    with server.connect(url.rsplit("/", 1)[1]) as connection:  # the tables of the release before
        connection.execute("ALTER TABLE tuner_studies DROP COLUMN token")
        connection.execute("DROP TABLE tuner_claims")
        connection.execute("DELETE FROM study_system_attributes")
        connection.execute("UPDATE tuner_meta SET value = '1' WHERE key = 'schema'")
    with ThreadPoolExecutor(4) as pool, contextlib.ExitStack() as opened:
        storages = list(pool.map(Storage, [url] * 4))
        for one in storages:
            opened.callback(one.close)
        assert {tuple(s.seal for s in stored_studies(one).values()) for one in storages} == {
            (stored(storages[0]).seal,)
        }
        assert [ghost.name for ghost in ghosts(storages[0])] == [IT.name]
        with storages[0].read() as connection:
            version = sa.select(own_tables.meta.c.value).where(own_tables.meta.c.key == "schema")
            assert connection.execute(version).scalar_one() == str(own_tables.SCHEMA)
        mine = stored(storages[0])
        assert rounds.requeue(storages[0], [mine], "recovering") == [trial.trial_id]


class Stop:
    """Stops whoever comes by, until it is told to go on."""

    def __init__(self) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *given: object) -> None:
        self.there.set()
        assert self.go_on.wait(20)


def beside(write: Callable[[], object]) -> Future[object]:
    """Do it in a thread."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(write)
    pool.shutdown(wait=False)
    return future


def waits_for_a_lock(storage: Storage) -> bool:
    """Whether somebody waits for what another transaction holds."""
    query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(200):
        with storage.read() as connection:
            if connection.execute(query).scalar_one():
                return True
        threading.Event().wait(0.01)
    return False


def test_who_deletes_waits_for_who_writes(
    storage: Storage, other: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = stored(storage)
    (trial,) = ask(storage, mine)
    stop = Stop()
    monkeypatch.setattr(rounds, "reach", stop)  # everything is written, nothing committed
    told = Told(mine, [Outcome(trial.trial_id, TrialState.COMPLETE, 0.5, {2: 0.5})])
    telling = beside(lambda: rounds.tell(storage, [told]))
    assert stop.there.wait(20)
    deleting = beside(lambda: delete(other, Artifacts(tmp_path), [mine]))
    assert waits_for_a_lock(other)
    stop.go_on.set()
    telling.result(20)
    deleting.result(20)
    assert set(stored_studies(other)) == {IT.name}
    assert everything(other)["trial_intermediate_values"] == []


def test_who_writes_waits_for_who_deletes_and_finds_nothing(
    storage: Storage, other: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = stored(storage)
    (trial,) = ask(storage, mine)
    stop = Stop()

    def attached(*given: object) -> list[str]:
        stop()
        return []

    monkeypatch.setattr(studies, "_attached", attached)
    deleting = beside(lambda: delete(other, Artifacts(tmp_path), [mine]))
    assert stop.there.wait(20)
    told = Told(mine, [Outcome(trial.trial_id, TrialState.COMPLETE, 0.5, {2: 0.5})])
    telling = beside(lambda: rounds.tell(storage, [told]))
    assert waits_for_a_lock(storage)
    stop.go_on.set()
    deleting.result(20)
    with pytest.raises(StudyGone, match=V1.name):
        telling.result(20)
    assert everything(storage)["trials"] == []


def test_a_study_that_optuna_deletes_between_look_and_write_is_gone(
    storage: Storage, other: Storage
) -> None:
    mine = stored(storage)
    (trial,) = ask(storage, mine)
    with (
        pytest.raises(StudyGone, match=V1.name),
        fences.writing(storage, [mine]) as connection,
    ):
        optuna.delete_study(study_name=V1.name, storage=other.optuna)
        writes.report(connection, [(trial.trial_id, 2, 0.5)])
    assert everything(storage)["trial_intermediate_values"] == []
    assert [ghost.name for ghost in ghosts(storage)] == [V1.name]
