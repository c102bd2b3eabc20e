"""Optuna's own interface reads back what is written in bulk, and the other way round."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from studies.database import optuna_tables, rounds, trials, writes
from studies.database import optuna_tables as tables
from studies.database.connection import Storage
from studies.database.rounds import Asked, Told
from studies.database.studies import NewStudy, Stored, add, stored_studies
from studies.database.trials import Outcome, Proposal
from studies.names import StudyKey
from tuner.errors import EnvironmentFailure, InputError

SPACE = {
    "sparsity": FloatDistribution(1e-7, 1e-1, log=True),
    "drop": IntDistribution(20, 400, log=True),
}
PROPOSALS = [
    Proposal({"sparsity": 3.3e-5, "drop": 20}, "best of a/b/c/full"),
    Proposal({"sparsity": 1e-7, "drop": 400}),
    Proposal({"sparsity": 0.1, "drop": 77}),
    Proposal({"sparsity": 0.1, "drop": 78}),
]
CURVES = [
    {2: 1.5, 4: 0.25},
    {2: 1.0 / 3.0},
    {2: math.inf},
    {},
]
STATES = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
VALUES = [0.25, 1.0 / 3.0, math.inf, None]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(f"sqlite:///{tmp_path}/t.db", create=True)
    add(made, [NewStudy(StudyKey("a", "b", "c", "full"), 0, {}, {})])
    yield made
    made.close()


def study(storage: Storage) -> Stored:
    return next(iter(stored_studies(storage).values()))


def study_id(storage: Storage) -> int:
    return study(storage).study_id


def by_optuna(storage: Storage) -> list[FrozenTrial]:
    """What a fresh reader of optuna's sees."""
    fresh = optuna.storages.RDBStorage(f"sqlite:///{storage.path}")
    try:
        return fresh.get_all_trials(study_id(storage))
    finally:
        fresh.remove_session()
        fresh.engine.dispose()


def ask(storage: Storage) -> list[trials.Trial]:
    return rounds.ask(storage, [Asked(study(storage), [], PROPOSALS, SPACE)])[0]


def tell(made: list[trials.Trial], storage: Storage) -> None:
    told = [
        Outcome(t.trial_id, state, value, curve, {"error": "x"} if value is None else {})
        for t, state, value, curve in zip(made, STATES, VALUES, CURVES, strict=True)
    ]
    rounds.tell(storage, [Told(study(storage), told)])


def revise(path: Path, *statements: str) -> None:
    """Bring a database to what another optuna might make of it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_database_of_another_optuna_is_refused(storage: Storage) -> None:
    """Its tables really differ: what is looked for is not there under that name."""
    assert storage.path is not None
    storage.close()
    revise(
        storage.path,
        "ALTER TABLE trials RENAME COLUMN number TO ordinal",
        "ALTER TABLE trial_values RENAME TO trial_results",
        "UPDATE alembic_version SET version_num = 'v6.1.0.a'",
        "UPDATE version_info SET library_version = '6.1.2'",
    )
    with pytest.raises(InputError) as refused:
        Storage(f"sqlite:///{storage.path}")
    line = str(refused.value)
    assert "revision v6.1.0.a" in line
    assert "written by optuna 6.1.2" in line
    assert "pip install 'optuna" in line
    assert "\n" not in line


def test_a_database_of_another_optuna_that_does_not_say_which(storage: Storage) -> None:
    assert storage.path is not None
    storage.close()
    revise(
        storage.path,
        "UPDATE alembic_version SET version_num = 'v9'",
        "DROP TABLE version_info",
        "DROP TABLE trials",
    )
    with pytest.raises(InputError, match="holds tables of optuna's revision v9, and this tuner"):
        Storage(f"sqlite:///{storage.path}", create=True)


def test_optuna_reads_back_running_trials(storage: Storage) -> None:
    ask(storage)
    before = datetime.now() - timedelta(minutes=1)  # optuna shows local time
    for number, (trial, proposal) in enumerate(zip(by_optuna(storage), PROPOSALS, strict=True)):
        assert trial.number == number
        assert trial.state == TrialState.RUNNING
        assert trial.params == proposal.params
        assert trial.distributions == SPACE
        assert trial.user_attrs == ({"origin": proposal.note} if proposal.note else {})
        assert trial.datetime_start is not None
        assert before < trial.datetime_start <= datetime.now()
        assert trial.datetime_complete is None


def test_optuna_reads_back_finished_trials(storage: Storage) -> None:
    made = ask(storage)
    rounds.report(storage, [(study(storage), [(made[0].trial_id, 2, 1.5)])])
    tell(made, storage)
    for trial, state, value, curve in zip(by_optuna(storage), STATES, VALUES, CURVES, strict=True):
        assert (trial.state, trial.value) == (state, value)
        assert trial.intermediate_values == curve
        assert trial.datetime_complete is not None
        assert trial.datetime_start is not None
        assert trial.datetime_start <= trial.datetime_complete
        trial._validate()
    assert by_optuna(storage)[3].user_attrs == {"error": "x"}


def test_what_optuna_writes_is_read(storage: Storage) -> None:
    study = optuna.load_study(study_name="a/b/c/full", storage=storage.optuna)
    for proposal, state, value, curve in zip(PROPOSALS, STATES, VALUES, CURVES, strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params=dict(proposal.params),
                distributions=dict(SPACE),
                intermediate_values=dict(curve),
            )
        )
    (loaded,) = trials.load(storage, [study_id(storage)]).values()
    for trial, proposal, state, value, curve in zip(
        loaded, PROPOSALS, STATES, VALUES, CURVES, strict=True
    ):
        assert (trial.state, trial.value, trial.curve) == (state, value, curve)
        assert trial.params == proposal.params
        assert isinstance(trial.params["drop"], int)


def test_orphans_go_back_to_waiting_as_they_were_asked(storage: Storage) -> None:
    made = ask(storage)
    rounds.report(
        storage, [(study(storage), [(made[0].trial_id, 2, 1.5), (made[1].trial_id, 2, 1.5)])]
    )
    assert rounds.requeue(storage, [study(storage)], "recovering") == [t.trial_id for t in made]
    assert rounds.requeue(storage, [study(storage)], "recovering") == []
    for trial, proposal in zip(by_optuna(storage), PROPOSALS, strict=True):
        assert trial.state == TrialState.WAITING
        assert trial.params == proposal.params
    (waiting,) = trials.load(storage, [study_id(storage)]).values()
    again = rounds.ask(storage, [Asked(study(storage), waiting, [], SPACE)])[0]
    assert [t.trial_id for t in again] == [t.trial_id for t in made]
    tell(again, storage)
    assert [t.intermediate_values for t in by_optuna(storage)][0] == CURVES[0]


def test_optuna_itself_takes_up_a_requeued_trial(storage: Storage) -> None:
    made = ask(storage)
    rounds.requeue(storage, [study(storage)], "recovering")
    theirs = optuna.load_study(study_name="a/b/c/full", storage=storage.optuna)
    trial = theirs.ask(fixed_distributions=dict(SPACE))
    assert trial.number == made[0].number
    assert trial.params == PROPOSALS[0].params


def test_reports_of_an_earlier_attempt_are_written_over(storage: Storage) -> None:
    made = ask(storage)
    for value in (1.5, 2.5):
        rounds.report(storage, [(study(storage), [(made[0].trial_id, 2, value)])])
    assert by_optuna(storage)[0].intermediate_values == {2: 2.5}


def test_a_trial_that_somebody_else_told_is_refused(storage: Storage) -> None:
    made = ask(storage)
    tell(made, storage)
    before = by_optuna(storage)
    with pytest.raises(EnvironmentFailure, match="nothing of that round was written"):
        tell(made, storage)
    assert by_optuna(storage) == before


def test_a_failure_half_way_writes_nothing(storage: Storage) -> None:
    made = ask(storage)
    outcomes = [Outcome(t.trial_id, TrialState.COMPLETE, 0.5, {2: 0.5}) for t in made]
    with pytest.raises(RuntimeError, match="half way"), storage.begin() as connection:
        writes.tell(connection, outcomes)
        raise RuntimeError("half way")
    assert {t.state for t in by_optuna(storage)} == {TrialState.RUNNING}
    assert all(not t.intermediate_values for t in by_optuna(storage))


def test_many_trials_fit_in_one_statement(storage: Storage) -> None:
    """More identifiers than one statement may have."""
    many = [Proposal({"sparsity": 1e-3, "drop": 30})] * 1300
    made = rounds.ask(storage, [Asked(study(storage), [], many, SPACE)])[0]
    assert [t.number for t in made] == list(range(1300))
    told = [Outcome(t.trial_id, TrialState.COMPLETE, 0.5, {2: 0.5}) for t in made]
    rounds.tell(storage, [Told(study(storage), told)])
    (loaded,) = trials.load(storage, [study_id(storage)]).values()
    assert len(loaded) == 1300
    assert all(t.curve == {2: 0.5} and t.params["drop"] == 30 for t in loaded)


def test_the_rate_survives_a_clock_that_jumps_back(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ask(storage)
    past = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=400)
    monkeypatch.setattr(optuna_tables, "now", lambda: past)
    tell(made, storage)
    assert trials.durations(storage, [study_id(storage)]) == {study_id(storage): 0.0}
    count, seconds = trials.recently_finished(storage, [study_id(storage)], 60, running=True)
    assert count == 3
    assert seconds <= 0  # nothing is known, and no rate is shown


def test_tables_are_described_as_optuna_describes_them(storage: Storage) -> None:
    """Were optuna to change one, this would say so before a search does."""
    from optuna.storages._rdb import models

    theirs = models.BaseModel.metadata.tables
    for table in tables.ALL:
        mine = {c.name: (str(c.type), c.primary_key) for c in table.c}
        assert mine == {c.name: (str(c.type), c.primary_key) for c in theirs[table.name].c}
        for column in table.c:
            other = theirs[table.name].c[column.name].type
            if isinstance(column.type, sa.Enum):
                assert isinstance(other, sa.Enum)
                assert (column.type.name, column.type.enums) == (other.name, other.enums)
        there = {c["name"] for c in sa.inspect(storage.engine).get_columns(table.name)}
        assert there == set(mine)
    named = {table.name for table in tables.ALL}
    assert set(theirs) - named == {"version_info"}
