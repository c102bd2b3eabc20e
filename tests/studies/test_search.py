"""The search through the command line, on a small recording."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from studies.config.experiment import load_experiment
from studies.database import own_tables, trials
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.search import round as rounds
from studies.search import search
from tests.conftest import Run
from tests.soak.outcome import differences, look
from tests.studies.conftest import MakeExperiment
from tuner.features.cache import FeatureCache

ONE_LAYER = {
    "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
    "search": {"space": {"full": {}}},
}
"""A grid of one layer and one readout."""


def one_readout(**search: Any) -> dict[str, Any]:
    return {**ONE_LAYER, "search": {**search, "space": {"full": {}}}}


@pytest.fixture
def small(make_experiment: MakeExperiment, run: Run) -> Path:
    """Two studies of one layer, created. The default readouts are two: see below for why one stays."""
    config = make_experiment(ONE_LAYER)
    text = config.read_text().replace(", factorized = {  }", "")
    config.write_text(text)
    assert run("study", "create", "-c", config).code == 0
    return config


def optimize(run: Run, config: Path, n: int, *words: object) -> Any:
    return run("optimize", "--n-trials", n, "-c", config, *words)


def listed(run: Run, config: Path) -> list[dict[str, Any]]:
    return run("study", "list", "--format", "json", "-c", config).json


def finished(rows: list[dict[str, Any]]) -> list[int]:
    return [row["trials"]["complete"] + row["trials"]["pruned"] for row in rows]


def test_every_study_is_brought_to_n_and_a_second_run_does_nothing(small: Path, run: Run) -> None:
    assert optimize(run, small, 6).code == 0
    rows = listed(run, small)
    assert finished(rows) == [6, 6]
    assert [row["best"] is not None for row in rows] == [True, True]
    before = look(small, 6)
    assert before.problems == []
    again = optimize(run, small, 6)
    assert again.code == 0
    assert "nothing to do" in again.err
    after = look(small, 6)
    assert differences(before.outcome, after.outcome) == []
    assert optimize(run, small, 3).code == 0  # fewer than there are: nothing to do either
    assert finished(listed(run, small)) == [6, 6]


def test_another_n_goes_on_and_rounds_that_were_cut_are_no_worse(small: Path, run: Run) -> None:
    for n in (4, 5, 8):
        assert optimize(run, small, n).code == 0
        assert finished(listed(run, small)) == [n, n]
    assert look(small, 8).problems == []


def test_the_same_commands_end_the_same(make_experiment: MakeExperiment, run: Run) -> None:
    seen = []
    for name in "ab":
        config = make_experiment(name=name)
        assert run("study", "create", "-c", config).code == 0
        assert optimize(run, config, 8).code == 0
        seen.append(look(config, 8))
        assert seen[-1].problems == []
        assert run("doctor", "-c", config).out == ""
    assert differences(seen[0].outcome, seen[1].outcome) == []


def test_the_second_round_starts_with_the_shallower_layers_best(
    make_experiment: MakeExperiment, run: Run, open_experiment: Callable[[Path], Stores]
) -> None:
    config = make_experiment({"search": {"warm_start": "neighbour"}})
    assert run("study", "create", "-c", config).code == 0
    assert optimize(run, config, 8).code == 0
    stores = open_experiment(config)
    stored = stored_studies(stores.storage)
    loaded = trials.load(stores.storage, [s.study_id for s in stored.values()])
    for region in ("V1", "IT"):
        for readout in ("full", "factorized"):
            shallow, deep = (
                loaded[stored[f"net/_blocks.{layer}/{region}/{readout}"].study_id]
                for layer in (2, 4)
            )
            first = [t for t in shallow[:4] if t.state == TrialState.COMPLETE]
            best = min(first, key=lambda t: (t.value, t.number))
            assert deep[4].params == best.params
            assert shallow[4].params not in [t.params for t in deep[:4]]
            (trial,) = [
                t for t in stores.storage.optuna.get_all_trials(deep[4].study_id) if t.number == 4
            ]
            assert trial.user_attrs == {"origin": f"best of net/_blocks.2/{region}/{readout}"}


def test_studies_that_were_not_created_are_refused(
    make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment()
    optimize(run, config, 4).check_one_line_error(2, "tuner study create")
    assert run("study", "create", "--layer", "_blocks.2", "-c", config).code == 0
    optimize(run, config, 4).check_one_line_error(2, "net/_blocks.4", "tuner study create")
    assert optimize(run, config, 4, "--layer", "_blocks.2", "--readout", "full").code == 0


def test_another_setting_is_refused_by_its_key(small: Path, run: Run) -> None:
    assert optimize(run, small, 4).code == 0
    before = look(small, 4).outcome
    text = small.read_text()
    small.write_text(text.replace("steps = 20", "steps = 24"))
    for words in (("optimize", "--n-trials", 5), ("study", "create"), ("export", "heatmap")):
        more = ("-o", small.parent / "out") if words[0] == "export" else ()
        run(*words, *more, "-c", small).check_one_line_error(2, "training.steps", "24", "20")
    small.write_text(text)
    assert differences(look(small, 4).outcome, before) == []


def test_free_settings_may_change_between_runs(small: Path, run: Run) -> None:
    assert optimize(run, small, 4).code == 0
    small.write_text(small.read_text().replace("keep = 2", "keep = 1"))
    assert optimize(run, small, 8).code == 0
    with_units = look(small, 8)
    assert with_units.problems == []
    assert all(len(study["kept"]) == 2 for study in with_units.outcome.values())  # best, and units


def test_with_nothing_to_vary_one_trial_is_enough(
    make_experiment: MakeExperiment, run: Run
) -> None:
    fixed = {
        "sparsity": 1e-4,
        "smoothness": 1e-4,
        "group_sparsity": 1e-4,
        "weight_decay": 1e-4,
        "learning_rate": 0.05,
        "drop": 100,
    }
    config = make_experiment({**ONE_LAYER, "search": {"space": {"full": fixed, "factorized": {}}}})
    assert run("study", "create", "--readout", "full", "-c", config).code == 0
    assert optimize(run, config, 5, "--readout", "full").code == 0
    assert finished(listed(run, config)) == [1, 1]


def test_time_and_budget_begin_no_new_round(small: Path, run: Run) -> None:
    ended = optimize(run, small, 12, "--budget", 5)
    assert ended.code == 0
    assert sum(finished(listed(run, small))) == 8  # one round of two studies
    ended = optimize(run, small, 12, "--timeout", 0)
    assert ended.code == 0
    assert "run the command again" in ended.err
    assert sum(finished(listed(run, small))) == 8


def test_an_interrupt_puts_the_round_back_and_the_next_run_repeats_it(
    small: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rounds.Round.run
    assert optimize(run, small, 4).code == 0

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds.Round, "run", interrupted)
    assert optimize(run, small, 8).code == 130
    rows = listed(run, small)
    assert [row["trials"]["waiting"] for row in rows] == [4, 4]
    assert finished(rows) == [4, 4]
    monkeypatch.setattr(rounds.Round, "run", whole)
    assert optimize(run, small, 8).code == 0
    assert look(small, 8).problems == []


def test_a_study_that_raises_is_set_aside_and_the_others_go_on(
    small: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rounds.Round.run
    attempts: list[int] = []

    def some_raise(self: rounds.Round, observer: Any = None) -> rounds.Result:
        if any(len(member.units) == 2 for member in self.members):  # IT
            attempts.append(len(self.members))
            raise ZeroDivisionError("made up")
        return whole(self, observer)

    monkeypatch.setattr(rounds.Round, "run", some_raise)
    ended = optimize(run, small, 6)
    assert ended.code == 1
    assert "net/_blocks.2/IT/full" in ended.err
    assert "ZeroDivisionError: made up" in ended.err
    assert attempts == [2] + [1] * search.ATTEMPTS
    rows = {row["region"]: row for row in listed(run, small)}
    assert finished([rows["V1"]]) == [6]
    assert rows["IT"]["trials"]["failed"] == 4
    assert finished([rows["IT"]]) == [0]
    monkeypatch.setattr(rounds.Round, "run", whole)
    assert optimize(run, small, 6).code == 1  # it stays aside until somebody says otherwise
    assert "set aside" in run("doctor", "--fix", "-c", small).out
    assert optimize(run, small, 6).code == 0
    assert finished(listed(run, small)) == [6, 6]  # failed trials are not counted


def test_out_of_memory_goes_on_finer_and_loses_no_trial(
    small: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rounds.Round._advance
    calls: list[int] = []

    def tight(self: rounds.Round, first: int, last: int) -> Any:
        calls.append(last)
        if len(calls) == 3:  # in the middle of a round, with reports behind it
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return whole(self, first, last)

    monkeypatch.setattr(rounds.Round, "_advance", tight)
    monkeypatch.setattr(rounds, "REPORT_SECONDS", 0.0)
    ended = optimize(run, small, 4)
    assert ended.code == 0
    assert "1/2 of the planned memory" in ended.err
    seen = look(small, 4)
    assert seen.problems == []
    assert calls[:5] == [2, 4, 6, 2, 4]


def test_pictures_are_made_once_the_trials_are_there_and_anew_when_more_came(
    small: Path, run: Run, open_experiment: Callable[[Path], Stores]
) -> None:
    assert optimize(run, small, 4, "--budget", 1).code == 0
    stores = open_experiment(small)

    def pictures() -> dict[tuple[int, str], Any]:
        with stores.storage.read() as connection:
            rows = connection.execute(sa.select(own_tables.pictures)).all()
        return {(row.study_id, row.filename): row for row in rows}

    first = pictures()
    assert {name for _, name in first} == {"learning-curve.png", "weight-map.png"}
    assert len(first) == 4
    for row in first.values():
        assert (stores.artifacts.folder / row.artifact_id).read_bytes()[:4] == b"\x89PNG"
    assert optimize(run, small, 4).code == 0
    assert pictures() == first
    assert optimize(run, small, 8).code == 0
    second = pictures()
    assert len(second) == 4
    for study in stored_studies(stores.storage).values():
        best = min(
            (
                t
                for t in stores.storage.optuna.get_all_trials(study.study_id)
                if t.value is not None and t.state == TrialState.COMPLETE
            ),
            key=lambda t: (t.value, t.number),
        )
        shown = {
            json.loads(json.loads(text) if text.startswith('"') else text)["filename"]
            for text in (
                json.dumps(v) for k, v in best.system_attrs.items() if k.startswith("artifacts:")
            )
        }
        assert shown == {"weights.safetensors", "learning-curve.png", "weight-map.png"}
        assert second[study.study_id, "learning-curve.png"].trial_number == best.number
        assert second[study.study_id, "learning-curve.png"].finished == 8
    kept = {row.artifact_id for row in second.values()}
    assert all((stores.artifacts.folder / name).exists() for name in kept)
    gone = {row.artifact_id for row in first.values()} - kept
    assert not any((stores.artifacts.folder / name).exists() for name in gone)
    assert run("doctor", "-c", small).out == ""


def test_copy_and_delete(small: Path, run: Run, tmp_path: Path) -> None:
    assert optimize(run, small, 4).code == 0
    copied = run("study", "copy", f"sqlite:///{tmp_path}/copy.db", "-c", small)
    assert copied.code == 0
    other = tmp_path / "other.toml"
    other.write_text(
        small.read_text().replace("[storage]", f'[storage]\nurl = "sqlite:///{tmp_path}/copy.db"')
    )
    assert [r["best"] for r in listed(run, other)] == [r["best"] for r in listed(run, small)]
    run("study", "copy", f"sqlite:///{tmp_path}/copy.db", "-c", small).check_one_line_error(
        2, "there already"
    )
    assert run("study", "delete", "--region", "IT", "-c", small).code == 2
    assert run("study", "delete", "--region", "IT", "--yes", "-c", small).code == 0
    assert [r["region"] for r in listed(run, small)] == ["V1"]
    assert load_experiment(small).storage.artifacts.exists()


def test_a_layer_too_big_for_the_cache_is_searched_all_the_same(
    make_experiment: MakeExperiment, run: Run
) -> None:
    """It is computed anew at every step, and comes to the same."""
    outcomes = []
    for name, storage in (("kept", {}), ("computed", {"cache_limit": "100kB", "cache": "none/"})):
        config = make_experiment(ONE_LAYER | {"storage": storage}, name)
        run("study", "create", "-c", config)
        run("optimize", "--n-trials", "4", "-c", config)
        outcomes.append(look(config, 4).outcome)
        run("export", "heatmap", "--ridge", "-o", config.parent / "out", "-c", config)
        outcomes.append((config.parent / "out" / "heatmap.csv").read_text())
    assert outcomes[:2] == outcomes[2:]
    run("study", "create", "--dry-run", "-c", config)
    entries = FeatureCache(config.parent / "none").entries()
    assert [entry.key.endswith("-statistics") for entry in entries] == [True]
