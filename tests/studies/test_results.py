from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from studies.database import rounds
from studies.database.claims import FileLocks
from studies.database.connection import Storage
from studies.database.rounds import Asked, Told
from studies.database.studies import NewStudy, Stored, add, stored_studies
from studies.database.summaries import listing, summaries
from studies.database.trials import Outcome, Proposal
from studies.names import StudyKey
from studies.results.scores import unit_columns

SPACE = {"x": FloatDistribution(0.0, 1.0)}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(f"sqlite:///{tmp_path}/t.db", create=True)
    add(
        made,
        [
            NewStudy(StudyKey("n", f"l{i}", r, "full"), i, {}, {})
            for i in (0, 1)
            for r in ("V1", "IT")
        ],
    )
    yield made
    made.close()


def put(storage: Storage, study: Stored, ended: list[tuple[TrialState, float | None]]) -> None:
    proposals = [Proposal({"x": i / 100}) for i in range(len(ended))]
    made = rounds.ask(storage, [Asked(study, [], proposals, SPACE)])[0]
    told = [
        Outcome(t.trial_id, state, value, {})
        for t, (state, value) in zip(made, ended, strict=True)
        if state != TrialState.RUNNING
    ]
    rounds.tell(storage, [Told(study, told)])


def rows(storage: Storage) -> list[dict]:
    claims = FileLocks(storage.path)
    return listing(summaries(storage, list(stored_studies(storage).values())), claims)


ENDED = st.tuples(
    st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
    st.sampled_from([0.1, 0.2, 0.5, math.inf]),
).map(lambda pair: (pair[0], None if pair[0] == TrialState.FAIL else pair[1]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(ENDED, max_size=6), min_size=4, max_size=4))
def test_counts_and_best_are_those_of_all_trials(
    tmp_path_factory: pytest.TempPathFactory, ended: list
) -> None:
    made = Storage(f"sqlite:///{tmp_path_factory.mktemp('results')}/t.db", create=True)
    add(made, [NewStudy(StudyKey("n", f"l{i}", "V1", "full"), i, {}, {}) for i in range(4)])
    stored = list(stored_studies(made).values())
    for study, mine in zip(stored, ended, strict=True):
        if mine:
            put(made, study, mine)
    for row, mine in zip(rows(made), ended, strict=True):
        for state, name in (
            (TrialState.COMPLETE, "complete"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
        ):
            assert row["trials"][name] == sum(s == state for s, _ in mine)
        finite = [
            (v, i)
            for i, (s, v) in enumerate(mine)
            if s == TrialState.COMPLETE and v is not None and math.isfinite(v)
        ]
        if finite:
            value, number = min(finite)
            assert row["best"] == {"number": number, "value": value, "params": {"x": number / 100}}
        else:
            assert row["best"] is None
    made.close()


def test_running_is_what_a_living_process_works_on(storage: Storage) -> None:
    study = next(iter(stored_studies(storage).values()))
    put(storage, study, [(TrialState.RUNNING, None)] * 3)
    shown = rows(storage)[0]["trials"]
    assert (shown["running"], shown["waiting"]) == (0, 3)
    with FileLocks(storage.path).claim(study.claim):
        shown = rows(storage)[0]["trials"]
        assert (shown["running"], shown["waiting"]) == (3, 0)


def test_a_row_has_the_columns_that_are_promised(storage: Storage) -> None:
    row = json.loads(json.dumps(rows(storage)))[0]
    assert row == {
        "study": "n/l0/V1/full",
        "backbone": "n",
        "layer": "l0",
        "layer_index": 0,
        "region": "V1",
        "readout": "full",
        "trials": {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 0},
        "best": None,
        "loss": None,
        "test_correlation": None,
        "fit_failed": None,
        "below_smooth": None,
        "settled": None,
    }


def test_making_studies_again_makes_none(storage: Storage) -> None:
    again = [NewStudy(StudyKey("n", "l0", "V1", "full"), 0, {}, {})]
    assert add(storage, again) == 0
    assert len(stored_studies(storage)) == 4


def test_a_column_of_the_recording_that_is_called_like_one_of_ours_is_kept() -> None:
    units = {name: [1.0, 2.0] for name in ("feve", "rf_x", "readout", "reliability", "depth")}
    workspace = cast("Any", SimpleNamespace(recording=SimpleNamespace(units=units)))
    names = ["recorded_feve", "recorded_rf_x", "recorded_readout", "recorded_reliability", "depth"]
    assert unit_columns(workspace, 1) == dict.fromkeys(names, 2.0)
