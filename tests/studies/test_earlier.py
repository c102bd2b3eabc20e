"""What an experiment of a release before goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from studies.config.experiment import Experiment, load_experiment, parse_experiment
from studies.database.stores import as_made
from studies.earlier import BEFORE, JUDGED_BEFORE, completed
from studies.earlier import as_made as with_fingerprints
from studies.fingerprint import difference
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment

MADE_BEFORE: dict[str, Any] = {"training.steps": 900}


def experiment(**tables: Any) -> Experiment:
    return parse_experiment({"backbone": [{"name": "vgg19"}], **tables})


def test_keys_that_are_written_are_known_with_their_tables() -> None:
    written = experiment(search={"space": {"full": {"sparsity": 0.0}}}).written
    assert written == {
        "backbone",
        "search",
        "search.space",
        "search.space.full",
        "search.space.full.sparsity",
    }


def test_a_fingerprint_without_a_key_counts_as_what_was_then_done() -> None:
    assert completed(MADE_BEFORE)["training.center"] is False
    assert difference(MADE_BEFORE, MADE_BEFORE | {"training.center": False}) is None
    assert difference(MADE_BEFORE, MADE_BEFORE | {"training.center": True}) == "training.center"
    assert completed({"training.center": True})["training.center"] is True


def test_a_space_without_a_hyperparameter_had_none_of_it() -> None:
    full = {"search.space.full": {"sparsity": 0.1}}
    assert completed(full)["search.space.full"] == {"sparsity": 0.1, "weight_decay": 0.0}
    other = {"search.space.factorized": {"sparsity": 0.1}}
    assert completed(other)["search.space.factorized"] == {"sparsity": 0.1}


def test_what_networks_are_read_by_is_as_it_was() -> None:
    assert difference(MADE_BEFORE, MADE_BEFORE | {"backbone.rectify": "auto"}) is None
    assert difference(MADE_BEFORE, MADE_BEFORE | {"backbone.rectify": False}) == "backbone.rectify"
    assert difference(MADE_BEFORE, MADE_BEFORE | {"backbone.precision": "float32"}) is None
    half = MADE_BEFORE | {"backbone.precision": "bfloat16"}
    assert difference(MADE_BEFORE, half) == "backbone.precision"
    closed = {"data.split": "a"}  # of a closed form, which takes no steps
    assert difference(closed, closed | {"backbone.tokens": "grid"}) is None
    own = experiment(backbone=[{"name": "vgg16", "weights": "w.pth"}])
    assert own.backbone[0].mean is None
    assert with_fingerprints(own, [MADE_BEFORE]).backbone[0].mean == (0.485, 0.456, 0.406)
    now = MADE_BEFORE | {"backbone.tokens": "grid", "backbone.rectify": "auto"}
    assert with_fingerprints(own, [now]).backbone[0].mean is None


def forget_new_keys(config: Path) -> None:
    """Make the database what a release before would have left."""
    engine = sa.create_engine(f"sqlite:///{config.parent / 'tuner.db'}")
    with engine.begin() as connection:
        for name, text in connection.execute(
            sa.text("select name, fingerprint from tuner_studies")
        ).all():
            stored = json.loads(text)
            for key in BEFORE:
                table, _, parameter = key.rpartition(".")
                stored.pop(key, None)
                stored.get(table, {}).pop(parameter, None)
            connection.execute(
                sa.text("update tuner_studies set fingerprint = :text where name = :name"),
                {"text": json.dumps(stored), "name": name},
            )
    engine.dispose()


def test_how_results_are_judged_is_as_it_was_and_free_to_change() -> None:
    before = with_fingerprints(experiment(), [MADE_BEFORE])
    assert all(
        getattr(before.data, key.removeprefix("data.")) == value
        for key, value in JUDGED_BEFORE.items()
    )
    written = experiment(data={"test_duplicates": "refuse"})
    assert with_fingerprints(written, [MADE_BEFORE]).data.test_duplicates == "refuse"
    today = MADE_BEFORE | dict.fromkeys(BEFORE)
    assert with_fingerprints(written, [today]).data == written.data


OLD: dict[str, Any] = {
    "data": {"duplicates": "ignore"},
    "training": {"center": False},
    "search": {"space": {"full": {"weight_decay": 0.0}}},
}


def test_what_is_not_written_is_as_it_was(make_experiment: MakeExperiment, run: Run) -> None:
    config = make_experiment(OLD)
    assert run("study", "create", "-c", config).code == 0
    forget_new_keys(config)
    make_experiment()  # the same config file without the keys
    assert run("optimize", "--n-trials", "1", "-c", config).code == 0
    made = run("study", "create", "-c", config)
    assert made.err.startswith("0 studies created, 8 were there already")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"training": {"center": True}}, "training.center is true but study"),
        ({"search": {"space": {"full": {"weight_decay": 0.25}}}}, "search.space.full is"),
    ],
)
def test_what_is_written_otherwise_is_refused(
    make_experiment: MakeExperiment, run: Run, written: dict[str, Any], said: str
) -> None:
    config = make_experiment(OLD)
    assert run("study", "create", "-c", config).code == 0
    forget_new_keys(config)
    make_experiment(written)
    refused = run("optimize", "--n-trials", "1", "-c", config)
    assert refused.code == 2
    assert said in refused.err


def test_without_studies_of_before_nothing_is_changed(
    make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment()
    loaded = load_experiment(config)
    assert as_made(loaded) is loaded  # there is no database
    assert run("study", "create", "-c", config).code == 0
    assert as_made(loaded) is loaded
    assert loaded.training.center
