"""The reference learns what can be learned, and what is said of a search is what was seen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.quality import __main__ as quality
from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.reference import Data, Reference, search, trial
from studies.config.ranges import FloatRange, IntRange, default_space

SETTINGS = {
    "sparsity": 1e-5,
    "smoothness": 1e-5,
    "group_sparsity": 1e-5,
    "weight_decay": 1e-5,
    "learning_rate": 0.1,
    "drop": 40.0,
}


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(160, 3, 2, 2, generator=generator)
    mask = torch.tensor([0.1, 0.8, 0.5, 0.2])
    y = torch.einsum("ncp,uc,p->nu", x.flatten(2), torch.tensor([[1.0, -2, 1], [2, 0, -1]]), mask)
    y = (y - y.mean(0)) / y.std(0)
    holes = y[:100].clone()
    holes[::5, 0] = torch.nan
    return Data(x[:100], x[100:130], x[130:], holes, y[100:130], y[130:], 1.0)


@pytest.mark.parametrize("readout", ["full", "factorized"])
def test_the_reference_learns_and_missing_responses_do_not_stop_it(
    data: Data, readout: str
) -> None:
    value, test = trial(data, readout, SETTINGS, steps=240, batch=20, seed=0)
    assert value < 0.2
    assert test < 0.3
    bad = SETTINGS | {"sparsity": 10.0}  # a penalty that leaves nothing
    assert trial(data, readout, bad, steps=60, batch=20, seed=0)[0] > 0.5


def test_of_all_trials_the_best_counts_and_all_their_work(data: Data) -> None:
    good, bad = SETTINGS, SETTINGS | {"learning_rate": 1e-6}
    found = search(data, "full", [bad, good], steps=60, batch=20, seed=0)
    assert found.value == trial(data, "full", good, steps=60, batch=20, seed=1)[0]
    assert found.macs == 2 * 12 * 2 * (2 * 60 * 20 + 30 * 2)


def test_settings_are_drawn_from_the_ranges_anew_with_each_seed() -> None:
    space = default_space("full")
    some = quality.drawn(dict(space), 20, 1)
    for one in some:
        for name, setting in space.items():
            assert isinstance(setting, FloatRange | IntRange)
            assert setting.low <= one[name] <= setting.high
    assert some == quality.drawn(dict(space), 20, 1)
    assert some != quality.drawn(dict(space), 20, 2)


def test_what_is_not_reached_counts_twice_the_whole_search(tmp_path: Path) -> None:
    course = Course([(1.0, 10.0, 0.9), (2.0, 20.0, 0.505), (3.0, 30.0, 0.5)], 4.0, 40.0, 0.5)
    assert course.reached(0.51) == (2.0, 20.0)
    assert course.reached(0.4) is None
    name = "net/layer/V1/full"
    ends = (Winner(0.5, 0.5, 0.6), Winner(0.5, 0.5, 0.6))
    reached = quality.Row(
        "easy", name, 2, 7, Reference(0.5, 0.6, 100.0, 400.0), course, course, ends, 0.55
    )
    assert quality.ratios(reached, "cold") == (50.0, 20.0)
    never = quality.Row(
        "easy", name, 2, 7, Reference(0.4, 0.6, 80.0, 400.0), course, course, ends, 0.55
    )
    assert quality.ratios(never, "cold") == (10.0, 5.0)
    given = argparse.Namespace(trials=50, seed=3, start="auto")
    text = quality.page([reached, never], "python -m benchmarks.quality", given)
    assert "| reached | 1 of 2 | 1 of 2 |" in text
    assert "seeds 7." in text
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps([asdict(row) for row in (reached, never)]))
    assert quality.page(quality.kept(kept), "python -m benchmarks.quality", given) == text
    assert "| worst end, validation | +25.0% | +25.0% |" in text


def test_references_that_were_run_are_known_and_their_rows_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, slower = Course([(1.0, 10.0, 0.5)], 4.0, 40.0, 0.5), Course([], 9.0, 90.0, 0.9)
    name, ends = "net/layer/V1/full", (Winner(0.5, 0.5, 0.6), Winner(0.5, 0.5, 0.6))
    row = quality.Row(
        "hard", name, 2, 7, Reference(0.5, 0.6, 100.0, 400.0), slower, slower, ends, 0.55
    )
    known: list[object] = []

    def measured(scene: str, *rest: object) -> Iterator[quality.Row]:
        known.append(rest[-1])
        yield replace(row, scene=scene, cold=course)

    monkeypatch.setattr(quality, "measured", measured)
    work, out = tmp_path / "kept.json", tmp_path / "page.md"
    work.write_text(json.dumps([asdict(row)]))
    arguments = ["quality", "--scenes", "hard", "--seed", "7", "--work", str(work), "-o", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert quality.main() == 0
    assert known == [{("hard", name, 7): row.reference}]
    (now,) = quality.kept(work)
    assert (now.cold.seconds, now.together.seconds) == (4.0, 9.0)
    assert "| reached | 1 of 1 | 0 of 1 |" in out.read_text(encoding="utf-8")
