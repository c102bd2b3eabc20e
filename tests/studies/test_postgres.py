"""Several workers on a real PostgreSQL server, killed, cut off, restarted under."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from cli.main import main
from studies.config.experiment import load_experiment
from studies.database import trials
from studies.database.claims import SessionLocks
from studies.database.connection import Storage
from studies.database.stores import open_stores
from studies.database.studies import stored_studies
from tests.conftest import Run
from tests.soak.outcome import differences, look
from tests.soak.zygote import Zygote
from tests.studies.conftest import MakeExperiment
from tests.studies.server import PASSWORD, Server, why_not
from tuner.errors import EnvironmentFailure, InputError

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

TRIALS = 12

WORKERS = int(os.environ.get("TUNER_TEST_WORKERS", "3"))
"""Processes that are killed together; more of them in the soak."""


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    made = Storage(url, create=True)
    yield made
    made.close()


def test_a_search_comes_to_the_same_as_on_sqlite(url: str, make_experiment: MakeExperiment) -> None:
    configs = [
        make_experiment({"storage": {"url": url}}, "postgres"),
        make_experiment(name="sqlite"),
    ]
    seen = []
    for config in configs:
        assert main(["study", "create", "-q", "-c", str(config)]) == 0
        assert main(["optimize", "-q", "--n-trials", str(TRIALS), "-c", str(config)]) == 0
        seen.append(look(config, TRIALS))
        assert seen[-1].problems == []
    assert differences(seen[0].outcome, seen[1].outcome) == []
    assert main(["doctor", "-q", "-c", str(configs[0])]) == 0


def test_a_claim_is_seen_from_elsewhere_and_ends_with_its_connection(
    server: Server, url: str, storage: Storage
) -> None:
    mine, other = SessionLocks(storage), Storage(url)
    theirs = SessionLocks(other)
    with mine.claim("c") as got:
        assert got
        assert theirs.held("c")
        assert not theirs.held("d")
        with theirs.claim("c") as too:
            assert not too
        with theirs.claim("d") as too:
            assert too
    assert not theirs.held("c")
    with mine.claim("c"):
        _cut_off(server, url)
        assert not theirs.held("c")
        with theirs.claim("c") as too:
            assert too
    other.close()


def _cut_off(server: Server, url: str) -> None:
    """End the sessions that hold advisory locks in a database, as a network that breaks does."""
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d "
            "ON d.oid = l.database WHERE l.locktype = 'advisory' AND d.datname = %s",
            [url.rsplit("/", 1)[1]],
        )
    time.sleep(0.2)


def test_a_claim_that_was_lost_cannot_write(server: Server, url: str, storage: Storage) -> None:
    claims = SessionLocks(storage)
    table = sa.Table("probe", sa.MetaData(), sa.Column("x", sa.Integer))
    with storage.begin() as connection:
        table.create(connection)
    with claims.claim("c"), storage.begin() as connection:
        connection.execute(table.insert().values(x=1))
    with claims.claim("c"):
        _cut_off(server, url)
        for _ in range(2):  # the connection may have been made anew in between: the lock was not
            with (
                pytest.raises(EnvironmentFailure, match="claim on c"),
                storage.begin() as connection,
            ):
                connection.execute(table.insert().values(x=2))
    with claims.claim("c"), pytest.raises(EnvironmentFailure), storage.begin() as connection:
        connection.execute(table.insert().values(x=3))
        _cut_off(server, url)
        connection.execute(table.insert().values(x=4))
    with storage.read() as connection:
        assert connection.execute(sa.select(table.c.x)).scalars().all() == [1]
    with claims.claim("c") as mine, storage.begin() as connection:
        assert mine
        connection.execute(table.insert().values(x=5))


@pytest.mark.skipif(
    shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None,
    reason="no pgbouncer is installed",
)
def test_a_transaction_pooler_is_refused_and_a_session_pool_is_not(
    server: Server, url: str
) -> None:
    name = url.rsplit("/", 1)[1]
    with (
        server.pooler("transaction") as port,
        pytest.raises(InputError, match="transaction pooler"),
    ):
        Storage(server.url(name, port), create=True)
    with server.pooler("session") as port:
        pooled = Storage(server.url(name, port), create=True)
        with SessionLocks(pooled).claim("c") as mine:
            assert mine
        pooled.close()


def test_dead_clients_are_noticed_within_a_minute(storage: Storage) -> None:
    with storage.read() as connection:
        for name, expected in (("idle", 30), ("interval", 10), ("count", 3)):
            query = sa.text(f"SELECT current_setting('tcp_keepalives_{name}')")
            assert int(connection.execute(query).scalar_one()) == expected


def test_two_that_open_a_new_database_at_once(url: str, make_experiment: MakeExperiment) -> None:
    config = make_experiment({"storage": {"url": url}})
    with Zygote() as zygote:
        children = [
            zygote.start(["study", "create", "-c", config], config.parent / f"log-{i}")
            for i in range(3)
        ]
        assert [child.wait() for child in children] == [0, 0, 0], [c.text() for c in children]
    stores = open_stores(load_experiment(config))
    assert len(stored_studies(stores.storage)) == 8
    stores.storage.close()


def test_a_wrong_password_is_an_error_without_it(
    server: Server, url: str, make_experiment: MakeExperiment, run: Run
) -> None:
    wrong = url.replace(PASSWORD, "wr0ng-and-secret")
    ended = run("study", "create", "-v", "-c", make_experiment({"storage": {"url": wrong}}))
    assert ended.code == 3
    assert "password authentication failed" in ended.err
    assert "wr0ng-and-secret" not in ended.err + ended.out


def test_a_server_that_is_not_there_is_an_error(make_experiment: MakeExperiment, run: Run) -> None:
    url = "postgresql+psycopg://ann:pa55word@127.0.0.1:1/db"
    ended = run("study", "list", "-c", make_experiment({"storage": {"url": url}}))
    ended.check_one_line_error(3, "storage.url")
    assert "pa55word" not in ended.err


def test_workers_killed_again_and_again_and_the_server_restarted(
    server: Server, url: str, make_experiment: MakeExperiment
) -> None:
    # Rounds of a second or two: there is something left to do at every turn.
    training = {"steps": 800, "report_every": 80}
    config = make_experiment({"storage": {"url": url}, "training": training})
    draw = random.Random(0)
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    words = ["optimize", "--n-trials", TRIALS, "-c", config]
    kills = 0
    with Zygote() as zygote:
        for turn in range(4):
            children = [
                zygote.start(words, config.parent / f"log-{turn}-{i}") for i in range(WORKERS)
            ]
            assert children[0].until("trials: "), children[0].text()
            time.sleep(draw.uniform(0.0, 1.0))
            if turn == 1:
                server.restart()
            else:
                for child in children:
                    child.kill()
            codes = [child.wait() for child in children]
            print(turn, codes, [c.text()[-400:] for c in children])
            kills += codes.count(-9)
            # A worker whose database went away says so; none ends as a defect.
            assert set(codes) <= {-9, 0, 3}, [child.text() for child in children]
        last = [zygote.start(words, config.parent / f"log-{i}") for i in range(WORKERS)]
        assert [child.wait() for child in last] == [0] * WORKERS, [child.text() for child in last]
    seen = look(config, TRIALS)
    assert seen.problems == []
    assert seen.trials == 8 * TRIALS
    assert kills >= 6


def test_a_worker_that_is_cut_off_does_not_write_its_round(
    server: Server, url: str, make_experiment: MakeExperiment
) -> None:
    # One long round: it is cut off in the middle of it.
    config = make_experiment({"storage": {"url": url}, "training": {"steps": 6000}})
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    with Zygote() as zygote:
        child = zygote.start(["optimize", "--n-trials", 4, "-c", config], config.parent / "log")
        assert child.until("trials run")
        _cut_off(server, url)
        assert child.wait() == 3
        assert "claim on net/_blocks.4/full" in child.text()  # the middle layer is begun first
        assert child.text().count("error:") == 1
    stores = open_stores(load_experiment(config))
    ids = [s.study_id for s in stored_studies(stores.storage).values()]
    states = {t.state for mine in trials.load(stores.storage, ids).values() for t in mine}
    assert states == {TrialState.RUNNING}  # orphans, which the next to come runs again
    assert not list(stores.artifacts.folder.glob("*")) if stores.artifacts.folder.exists() else True
    with contextlib.closing(stores.storage):
        assert not stores.claims.held("net\0_blocks.2\0full")
