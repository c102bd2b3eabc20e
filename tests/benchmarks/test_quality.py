"""The reference learns what can be learned, and what is said of a search is what was seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.quality import __main__ as quality
from benchmarks.quality.contender import Course, Winner
from benchmarks.quality.page import page
from benchmarks.quality.reference import Data, Reference, search, trial
from benchmarks.quality.rows import Row, Work, ratios
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


COURSE = Course([(1.0, 10.0, 0.9), (2.0, 20.0, 0.505), (3.0, 30.0, 0.5)], 4.0, 40.0, 0.5)
ENDS = (Winner(0.5, 0.5, 0.6), Winner(0.5, 0.5, 0.6))


def row(reference: Reference, again: Reference | None = None) -> Row:
    return Row(
        "hard",
        "net/layer/V1/full",
        2,
        7,
        reference,
        again,
        COURSE,
        COURSE,
        ENDS,
        COURSE,
        Winner(0.7, 0.7, 0.57),
        0.55,
    )


def test_what_is_not_reached_counts_twice_the_whole_search(tmp_path: Path) -> None:
    assert COURSE.reached(0.51) == (2.0, 20.0)
    assert COURSE.reached(0.4) is None
    reached = row(Reference(0.5, 0.6, 100.0, 400.0))
    assert ratios(reached, "cold") == (50.0, 20.0)
    again = Reference(0.48, 0.57, 80.0, 400.0)
    never = replace(row(Reference(0.4, 0.5, 80.0, 400.0), again), scene="easy")
    assert ratios(never, "cold") == (10.0, 5.0)
    text = page([reached, never], "python -m benchmarks.quality", 50, 300, "readout")
    assert "| reached | 1 of 2 | 1 of 2 |" in text
    assert "seeds 7." in text
    assert "| hard | layer/V1/full |  |  | 1.000 | 1.000 | 1.000 | 1.000 | 4.0 | 0.950 |" in text
    worst = "worst end, validation; more than 2 % above"
    assert f"| {worst} | +20.0%; 1 of 1 | +25.0%; 1 of 2 | +25.0%; 1 of 2 |  |" in text
    worse = "the same of 1, above the worse of the two references"
    assert f"| {worse} |  | +4.2%; 1 of 1 | +4.2%; 1 of 1 |  |" in text
    assert f"| {worse} |  | +5.3%; 1 of 1 | +5.3%; 1 of 1 | +0.0%; 0 of 1 |" in text
    work = Work(tmp_path / "kept.json")
    every = [reached, never, replace(reached, study="other", default=None, default_winner=None)]
    for one in every:
        work.add(one)
    assert Work(tmp_path / "kept.json").rows == every
    text = page(every, "python -m benchmarks.quality", 50, 300, "readout")
    assert "| 1.000 | 1.000 | 1.000 | 1.000 |  |  | 1.100 |" in text


def test_references_that_were_run_are_known_and_their_rows_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "kept.json", tmp_path / "page.md"
    found = row(Reference(0.5, 0.6, 100.0, 400.0))
    key = (found.scene, found.study, found.seed)
    before = Work(file)
    before.reference(key, lambda: found.reference)
    before.add(replace(found, cold=Course([], 9.0, 90.0, 0.9)))

    def measured(scene: str, *rest: object) -> None:
        work = rest[-1]
        assert isinstance(work, Work)
        known = work.reference(key, lambda: pytest.fail("it is run again"))
        work.add(replace(found, reference=known))

    monkeypatch.setattr(quality, "measured", measured)
    arguments = ["quality", "--scenes", "hard", "--seed", "7", "--work", str(file), "-o", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert quality.main() == 0
    (now,) = Work(file).rows
    assert now == found
    assert "| reached | 1 of 1 | 1 of 1 |" in out.read_text(encoding="utf-8")
