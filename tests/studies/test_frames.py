"""The search as a pandas frame."""

from __future__ import annotations

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

import tuner
from studies.config.ranges import FloatRange
from studies.database import optuna_tables as tables
from studies.database import trials, writes
from studies.database.connection import Storage
from studies.database.pictures import SCORED_AFTER
from studies.database.studies import NewStudy, add, set_aside, stored_studies
from studies.names import StudyKey
from studies.results.frames import STUDY_COLUMNS, TRIAL_COLUMNS, load_results
from studies.search.space import distributions
from tuner.errors import InputError

CONFIG = """
[[backbone]]
name = "efficientnet_lite0"
layers = ["_blocks.0", "_blocks.2"]

[search.space.full]
drop = 70
[search.space.factorized]
"""
KEYS = [
    StudyKey("net", "_blocks.0", "V1", "full"),
    StudyKey("net", "_blocks.2", "V1", "factorized"),
    StudyKey("net", "_blocks.2", "V4/a", "full"),
]


@pytest.fixture
def config(tmp_path):
    """Three studies: one with trials of all kinds, one set aside, one that nothing ran in."""
    path = tmp_path / "tuner.toml"
    path.write_text(CONFIG)
    storage = Storage(f"sqlite:///{tmp_path / 'tuner.db'}", create=True)
    add(storage, [NewStudy(key, i, {}, {}) for i, key in enumerate(KEYS)])
    studies = list(stored_studies(storage).values())
    space = distributions({"learning_rate": FloatRange(low=0.001, high=1.0)})
    with storage.begin() as connection:
        made = writes.create(
            connection,
            studies[0].study_id,
            [trials.Proposal({"learning_rate": rate}) for rate in (0.1, 0.2, 0.3, 0.4)],
            space,
        )
        complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
        writes.tell(
            connection,
            [
                trials.Outcome(made[0].trial_id, complete, 0.5, {10: 0.9, 20: 0.5, 30: 0.6}),
                trials.Outcome(made[1].trial_id, complete, 0.4, {10: 0.8, 20: 0.7, 30: 0.4}),
                trials.Outcome(made[2].trial_id, pruned, np.inf, {10: np.inf}),
            ],
        )
        set_aside(connection, studies[1], "it raised three times")
    storage.close()
    return path


def test_a_row_per_trial(config):
    frame = tuner.load_results(config)
    assert list(frame["trial"]) == [0, 1, 2, 3]
    assert list(frame["state"]) == ["complete", "complete", "pruned", "waiting"]
    assert list(frame["value"][:3]) == [0.5, 0.4, np.inf]
    assert np.isnan(frame["value"][3])
    assert list(frame["best"]) == [False, True, False, False]
    assert list(frame["best_step"].iloc[:2]) == [20, 30]
    assert list(frame["last_step"].iloc[:3]) == [30, 30, 10]
    assert frame["last_step"].isna()[3]
    assert list(frame["params_learning_rate"]) == [0.1, 0.2, 0.3, 0.4]
    assert set(frame["study"]) == {"net/_blocks.0/V1/full"}


def test_what_the_config_fixes_is_there_and_what_a_readout_lacks_is_missing(config):
    frame = load_results(config)
    assert (frame["params_drop"] == 70).all()
    assert frame["params_weight_decay"].isna().all()


def test_a_row_per_study(config):
    frame = load_results(config, per="study")
    assert list(frame["region"]) == ["V1", "V1", "V4/a"]
    assert list(frame["study"])[2] == "net/_blocks.2/V4%2Fa/full"
    first = frame.iloc[0]
    assert (first["complete"], first["pruned"], first["running"], first["waiting"]) == (2, 1, 0, 1)
    assert (first["best_trial"], first["validation_loss"]) == (1, 0.4)
    assert not first["fit_failed"]
    assert first["params_learning_rate"] == 0.2
    assert frame["validation_loss"].isna().tolist() == [False, True, True]
    assert frame["fit_failed"].isna().tolist() == [False, True, True]
    assert frame["set_aside"][1] == "it raised three times"


def test_columns_are_the_same_with_and_without_trials(config):
    full = load_results(config)
    assert tuple(full.columns[: len(TRIAL_COLUMNS)]) == TRIAL_COLUMNS
    storage = Storage(f"sqlite:///{config.parent / 'tuner.db'}")
    with storage.begin() as connection:
        for table in (tables.reports, tables.values, tables.params, tables.trials):
            connection.execute(table.delete())
    storage.close()
    empty = load_results(config)
    assert empty.empty
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
    studies = load_results(config, per="study")
    assert tuple(studies.columns[: len(STUDY_COLUMNS)]) == STUDY_COLUMNS
    assert len(studies) == 3


def test_wrong_input_is_named(config, tmp_path):
    with pytest.raises(InputError, match=r"'trials'.*trial, study"):
        load_results(config, per="trials")
    with pytest.raises(InputError, match="not found"):
        load_results(tmp_path / "nothing.toml")
    (tmp_path / "tuner.db").unlink()
    with pytest.raises(InputError, match="study create"):
        load_results(config)


@pytest.mark.parametrize(("after", "failed"), [(3, True), (2, False)])
def test_what_scoring_said_of_a_fit_holds_until_a_trial_finishes(config, after, failed):
    """The loss, .4, says that it did not fail; its predictions may."""
    study = optuna.load_study(
        study_name="net/_blocks.0/V1/full", storage=f"sqlite:///{config.parent / 'tuner.db'}"
    )
    study.set_user_attr("fit_failed", True)
    study.set_user_attr(SCORED_AFTER, after)
    assert load_results(config, per="study")["fit_failed"][0] == failed
