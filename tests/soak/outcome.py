"""What a search came to, and whether its database is whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.config.ranges import trials_needed
from studies.database import optuna_tables as tables
from studies.database import own_tables, trials, weights
from studies.database.stores import open_stores
from studies.database.studies import stored_studies

Outcome = dict[str, Any]


@dataclass
class Seen:
    """Outcome to compare, and what is wrong in itself."""

    outcome: Outcome
    problems: list[str]
    trials: int
    files: int


def look(config: Path, n_trials: int, only: str | None = None) -> Seen:
    """Read everything that a search left behind.

    Parameters
    ----------
    config
        The experiment's file.
    n_trials
        Finished trials that each study should have; one in closed form has its grid.
    only
        The one readout that is looked at.
    """
    experiment = load_experiment(config)
    stores = open_stores(experiment)
    stored = {
        name: study
        for name, study in stored_studies(stores.storage).items()
        if only in (None, study.key.readout)
    }
    problems: list[str] = []
    outcome: Outcome = {}
    total = 0
    loaded = trials.load(stores.storage, [s.study_id for s in stored.values()])
    with stores.storage.read() as connection:
        rows = list(connection.execute(sa.select(own_tables.weights)))
        doubled = connection.execute(
            sa.select(tables.params.c.trial_id, tables.params.c.param_name)
            .group_by(tables.params.c.trial_id, tables.params.c.param_name)
            .having(sa.func.count() > 1)
        ).all()
        counts = dict(
            connection.execute(
                sa.select(tables.params.c.trial_id, sa.func.count()).group_by(
                    tables.params.c.trial_id
                )
            ).all()
        )
        values = dict(
            connection.execute(
                sa.select(tables.values.c.trial_id, sa.func.count()).group_by(
                    tables.values.c.trial_id
                )
            ).all()
        )
    problems += [f"parameter doubled: {row}" for row in doubled]
    problems += [f"{n} values of trial {trial}" for trial, n in values.items() if n != 1]
    kept: dict[int, dict[str, Any]] = {s.study_id: {} for s in stored.values()}
    for row in weights.all_files(stores.storage):
        tensors = row.read(stores.artifacts)
        if row.study_id not in kept:
            problems.append(f"weights of no study: {row.artifact_id}")
            continue
        which = "units" if row.trial_number is None else str(row.trial_number)
        if which in kept[row.study_id]:
            problems.append(f"two files of {which}")
        kept[row.study_id][which] = (
            row.artifact_id,
            {name: value.numpy().tobytes() for name, value in tensors.items()},
        )
    for name, study in stored.items():
        mine = loaded[study.study_id]
        total += len(mine)
        finished = [t for t in mine if t.state in trials.FINISHED]
        readout = study.key.readout
        wanted = trials_needed(readout, experiment.search.space[readout], n_trials)
        if len(finished) != wanted or len(mine) != wanted:
            problems.append(f"{name}: {len(finished)} of {len(mine)} trials finished")
        if [t.number for t in mine] != list(range(len(mine))):
            problems.append(f"{name}: numbers {[t.number for t in mine]}")
        if any(t.state == TrialState.RUNNING for t in mine):
            problems.append(f"{name}: RUNNING")
        if len({counts.get(t.trial_id) for t in mine}) != 1:
            problems.append(f"{name}: parameters per trial differ")
        outcome[name] = {
            "trials": [(t.number, t.state.name, t.params, t.value, t.curve) for t in mine],
            "kept": kept[study.study_id],
        }
    stores.storage.close()
    return Seen(outcome, problems, total, len(rows))


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Where two outcomes differ, study by study."""
    out = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            out.append(f"{name}: missing")
            continue
        out += [
            f"{name}: {x} differs from {y}"
            for x, y in zip(a["trials"], b["trials"], strict=False)
            if x != y
        ]
        if a["kept"] != b["kept"]:
            out.append(f"{name}: kept {sorted(a['kept'])} differ from {sorted(b['kept'])}")
    return out
