"""Notes of studies for the dashboard: written, replaced, and left alone where a person wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna_dashboard import get_note, save_note

from studies.config.experiment import load_experiment
from studies.database import notes
from studies.database.stores import Stores, open_stores
from studies.database.studies import VALUE, stored_studies
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment


def test_a_note_is_replaced_until_a_person_writes(
    make_experiment: MakeExperiment, run: Run, open_experiment: Callable[[Path], Stores]
) -> None:
    config = make_experiment()
    assert run("study", "create", "-q", "-c", config, "--layer", "_blocks.2").code == 0
    with open_stores(load_experiment(config)) as stores:
        name, study = next(iter(stored_studies(stores.storage).items()))
        there = optuna.load_study(study_name=name, storage=stores.storage.optuna)
        assert there.metric_names == [VALUE]

        def write(text: str) -> bool:
            with stores.storage.begin() as connection:
                return notes.write_note(connection, study.study_id, text)

        long = "first " * 1000
        assert write(long)
        assert get_note(there) == long
        assert write("second")
        assert get_note(there) == "second"
        save_note(there, "mine")
        assert not write("third")
        assert get_note(there) == "mine"
