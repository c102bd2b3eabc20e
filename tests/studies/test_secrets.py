"""A password in ``storage.url`` is shown by nothing: no log, table, file or error."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import sqlalchemy as sa

from studies.config.values import redact
from studies.database.connection import Storage
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tests.studies.server import PASSWORD, running, why_not
from tuner.errors import EnvironmentFailure, TunerError

SECRETS = ["hunter2secret", "sp%40ce%3Asecret"]


def addresses(secret: str) -> list[str]:
    return [
        f"postgresql+psycopg://ann:{secret}@127.0.0.1:1/db",
        f"postgresql+psycopg://127.0.0.1:1/db?user=ann&password={secret}",
    ]


COMMANDS = [
    ("study", "create"),
    ("study", "list"),
    ("optimize", "--n-trials", 2),
    ("status",),
    ("doctor",),
    ("dashboard",),
    ("export", "heatmap", "-o", "out"),
    ("export", "best", "-o", "out"),
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_server_out_of_reach_is_an_error_without_the_password(
    make_experiment: MakeExperiment,
    run: Run,
    words: tuple[object, ...],
    caplog: pytest.LogCaptureFixture,
    folder: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    for secret in SECRETS:
        for url in addresses(secret):
            config = make_experiment({"storage": {"url": url}})
            ended = run(*words, "-v", "-c", config)
            assert ended.code == 3
            shown = ended.out + ended.err + caplog.text
            assert secret not in shown
            assert "hunter2" not in shown


def test_an_address_from_the_environment(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "p@ss/w:rd secret")
    url = "postgresql+psycopg://ann:${DB_PASSWORD}@127.0.0.1:1/db"
    ended = run("study", "list", "-v", "-c", make_experiment({"storage": {"url": url}}))
    assert ended.code == 3
    assert "***" in ended.err
    for part in ("p@ss", "w:rd", "p%40ss"):
        assert part not in ended.err


def test_a_copys_address(make_experiment: MakeExperiment, run: Run) -> None:
    config = make_experiment()
    assert run("study", "create", "-c", config).code == 0
    for url in addresses("hunter2secret"):
        ended = run("study", "copy", url, "-v", "-c", config)
        assert ended.code == 3
        assert "error: URL: " in ended.err
        assert "hunter2secret" not in ended.err + ended.out


def test_errors_of_the_driver_are_redacted() -> None:
    """Whatever a driver puts into its message."""
    storage = object.__new__(Storage)
    storage.shown = "x"
    leak = Exception("could not reach postgresql://ann:hunter2secret@h/db?password=hunter2secret")
    with pytest.raises(EnvironmentFailure) as caught, storage.failures():
        raise sa.exc.OperationalError("SELECT 1", {}, leak)
    assert "hunter2secret" not in str(caught.value)


def test_redaction_leaves_the_rest_readable() -> None:
    assert (
        redact("postgresql+psycopg://ann:x@h:5432/db") == "postgresql+psycopg://ann:***@h:5432/db"
    )
    assert redact("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"


@pytest.mark.server
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_nothing_that_a_search_writes_holds_it(
    make_experiment: MakeExperiment, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="tuner")
    grid = {"backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}]}
    with running() as server:
        url = server.new_database("secrets")
        config = make_experiment({**grid, "storage": {"url": url}})
        out = config.parent / "out"
        printed = ""
        for words in (
            ("study", "create"),
            ("study", "create", "--dry-run"),
            ("optimize", "--n-trials", 4),
            ("study", "list"),
            ("study", "list", "--format", "json"),
            ("study", "show", "net/_blocks.2/V1/full"),
            ("status",),
            ("doctor",),
            ("export", "heatmap", "-o", out),
            ("export", "best", "-o", out),
            ("export", "report", "-o", out),
        ):
            ended = run(*words, "-c", config)
            assert ended.code == 0, ended.err
            printed += ended.out + ended.err
        storage = Storage(url)
        with storage.read() as connection:
            for table in sa.inspect(storage.engine).get_table_names():
                printed += str(connection.execute(sa.text(f'SELECT * FROM "{table}"')).all())
        storage.close()
    assert PASSWORD not in printed + caplog.text
    files = [p for p in config.parent.rglob("*") if p.is_file() and p != config]
    assert len(files) > 10
    assert not [p for p in files if PASSWORD.encode() in p.read_bytes()]


def test_an_error_of_ours_names_the_address_without_it() -> None:
    with pytest.raises(TunerError) as caught:
        Storage(addresses("hunter2secret")[0], create=True)
    assert "ann" in str(caught.value)
    assert "hunter2secret" not in str(caught.value)
    assert "hunter2secret" not in repr(caught.value.__cause__)
