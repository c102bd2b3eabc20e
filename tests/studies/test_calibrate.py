"""The plan of a search is there at once, and its times after a given time, whatever the size."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from studies.config.experiment import load_experiment
from studies.search import calibrate, extraction, forecast
from studies.search.calibrate import Budget, Span, Timed, column_seconds, read_off
from studies.search.forecast_cuts import FIT, START, expected_on_other_cuts
from studies.workspace import Workspace
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tests.studies.test_environment import GRID
from tuner.closed_form import cost
from tuner.closed_form.cost import located_seconds
from tuner.progress import nobody
from tuner.readouts.readout import FeatureShape

ONE = Span(1.0, 1.0, 1.0)
WORKSPACE = cast("Workspace", SimpleNamespace(progress=nobody))


def layers(sizes: Sequence[int], kind: str = "full") -> list[Timed]:
    """Cohorts that differ in their features alone."""
    key, shape = SimpleNamespace(readout=kind), [SimpleNamespace(size=size) for size in sizes]
    return [Timed(cast("Any", [SimpleNamespace(key=key, shape=s)]), True, 8) for s in shape]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes that were timed; a column takes 1 ms per thousand features, ten per cent more or less."""
    seen: list[int] = []

    def seconds(workspace: Workspace, one: Timed, budget: Budget) -> Span:
        seen.append(one.size)
        return Span(0.9e-6 * one.size, 1e-6 * one.size, 1.1e-6 * one.size)

    monkeypatch.setattr(calibrate, "trial_seconds", seconds)
    return seen


def test_without_time_one_layer_of_each_kind_is_timed(timed: list[int]) -> None:
    wanted = [*layers([100, 800, 400]), *layers([300, 200], "factorized")]
    found = column_seconds(WORKSPACE, wanted, Budget(0.0))
    assert sorted(timed) == [100, 200]
    assert [found[k].value for k in range(5)] == pytest.approx([1e-4, 8e-4, 4e-4, 3e-4, 2e-4])
    # What was timed is as sure as its repeats, the rest is not.
    assert found[0].high / found[0].value == pytest.approx(1.1)
    assert found[1].high / found[1].value == pytest.approx(np.exp(calibrate.UNKNOWN) / 0.9)


def test_ends_first_and_no_size_twice(timed: list[int]) -> None:
    column_seconds(WORKSPACE, layers([400, 100, 6400, 100, 1600, 6400]), Budget(1e6))
    assert timed[:2] == [100, 6400]
    assert sorted(timed) == [100, 400, 1600, 6400]


def test_the_interval_of_a_reading_is_how_far_others_miss() -> None:
    exact = {size: Span(size, size, size) for size in (10, 100, 1000)}
    assert read_off(exact, 300) == Span(pytest.approx(300), pytest.approx(300), pytest.approx(300))  # type: ignore[arg-type]
    exact[100] = Span(200, 200, 200)
    found = read_off(exact, 1000 * 10)
    assert found.high / found.value == pytest.approx(2)
    assert found.low / found.value == pytest.approx(1 / 2)


def test_measuring_ends_when_its_share_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(calibrate.time, "monotonic", lambda: now[0])
    budget = Budget(60.0, 0.0)

    def slow(number: int) -> float:
        now[0] += 4.0
        return 4.0

    assert budget.repeat(slow, 10, 0.1) == [4.0, 4.0]
    assert budget.left() == pytest.approx(52.0)


def test_sizes_are_printed_before_anything_is_timed(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_experiment(GRID)
    run("study", "create", "--n-trials", "7", "-c", config).check_one_line_error(
        2, "tuner optimize"
    )
    ended = run("study", "create", "--dry-run", "--n-trials", "7", "-c", config)
    assert ended.code == 0
    assert "studies of 7 trials" in ended.out
    assert ended.out.index("kept weights") < ended.out.index("time, from a short calibration")
    assert "search " in ended.out

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forecast, "column_seconds", interrupted)
    ended = run("study", "create", "--dry-run", "-c", config)
    assert ended.code == 130
    for line in ("studies ", "memory at most ", "feature cache ", "meanwhile ", "kept weights "):
        assert line in ended.out
    rows = run("study", "create", "--dry-run", "--format", "json", "-c", config)
    assert rows.code == 130


def test_the_closed_form_that_training_starts_in_is_counted_once_a_layer(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        forecast, "column_seconds", lambda w, wanted, b: dict.fromkeys(range(len(wanted)), ONE)
    )
    monkeypatch.setattr(cost, "located_seconds", lambda *given: 1000.0)

    def seconds(start: str) -> float:
        layers = ["_blocks.2", "_blocks.4"]
        backbone = [{"name": "efficientnet_lite0", "alias": "net", "layers": layers}]
        training = {"start": start, "steps": 4, "report_every": 2}
        config = make_experiment({"backbone": backbone, "training": training}, start)
        workspace = Workspace(load_experiment(config))
        planned = forecast.plan(workspace, workspace.grid, 4)
        assert len(planned) == 4  # two readouts of two layers
        return forecast.times(workspace, workspace.grid, planned, 0.0).search.value

    assert seconds("closed_form") - seconds("readout") == pytest.approx(2000)


def test_what_waits_while_features_are_extracted_is_planned(
    make_experiment: MakeExperiment,
) -> None:
    backbone = [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}]

    def sweep(limit: str) -> extraction.Sweep:
        storage = {"cache_limit": limit, "cache": f"cache-{limit}"}
        config = make_experiment({"backbone": backbone, "storage": storage}, f"limit-{limit}")
        workspace = Workspace(load_experiment(config))
        assert extraction.waiting_bytes(workspace, workspace.grid) == workspace_bytes(workspace)
        (one,) = extraction.sweeps(workspace, workspace.grid)
        return one

    def workspace_bytes(workspace: Workspace) -> int:
        (info,) = workspace.networks.layers("net")
        raw = 4 * info.channels * info.height * info.width * workspace.recording.n_train
        room = workspace.cache.room(workspace.features.cached_bytes(workspace.grid[0].shape))
        return raw if raw <= room else 0

    wide, narrow = sweep("1GB"), sweep("1MB")
    assert wide.waits is not None
    assert wide.waits.layers == ("_blocks.2",)
    assert wide.waits.again < 1
    assert narrow.waits is None or narrow.waits.again == 1


def test_what_a_closed_form_to_start_in_takes_grows_with_images_units_and_folds() -> None:
    def seconds(images: int = 40, units: int = 6, folds: int = 1) -> float:
        return located_seconds(images, FeatureShape(3, 6, 6), units, folds, "cpu")

    assert 0 < seconds() < seconds(images=80)
    assert seconds() < seconds(units=60)
    assert seconds() < seconds(folds=5)


def test_tables_for_machines_have_the_interval(make_experiment: MakeExperiment, run: Run) -> None:
    rows = run("study", "create", "--dry-run", "--format", "json", "-c", make_experiment(GRID)).json
    for row in rows:
        assert 0 < row["search_seconds_low"] <= row["search_seconds"] <= row["search_seconds_high"]
        assert row["round_seconds"] > 0


def test_other_cuts_share_decompositions_in_what_is_foreseen_too(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_rate", lambda *_: 1e9)
    monkeypatch.setattr(cost, "_decomposition", lambda *_: 1.0)
    shape = FeatureShape(40, 14, 14)
    once, five = (located_seconds(900, shape, 30, 5, "cpu", foldings=k) for k in (1, 5))
    assert once < five < 5 * once
    spaces = {"full": {}, "factorized": {}, "smooth": {}}
    config = {"training": {"folds": 3}, "search": {"space": spaces}}
    workspace = Workspace(load_experiment(make_experiment(config)))
    layer = [s for s in workspace.grid if s.key.layer == "_blocks.2"]
    parts = expected_on_other_cuts(workspace, layer, 2)
    assert {part[0] for part in parts} == {START, FIT}
    assert [part[-1] for part in parts if part[0] == FIT] == ["full", "factorized", "smooth"]
    assert [part[2:] for part in parts if part[0] == START] == [("_blocks.2",)]
    assert all(span.value > 0 for span in parts.values())
