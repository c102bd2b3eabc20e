"""What the benchmarks of all searches of the demo, and of settings to begin with, say of numbers made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.demo import Searched, document, over, page
from benchmarks.quality.portfolio import greedy
from studies.config.experiment import load_experiment
from studies.notebook.document import toml


def searched(rule: str, seed: int, *values: list[float | None]) -> Searched:
    named = {f"net/{name}": some for name, some in zip("ab", values, strict=False)}
    count = sum(map(len, values))
    return Searched(rule, seed, [(count // 2, 1.5), (count, 4.0)], named, 100)


def test_a_search_is_held_against_the_mean_and_the_worst_of_others() -> None:
    before = [
        searched("before", 0, [0.5, None], [0.8, 0.9]),
        searched("before", 1, [None, 0.6], [0.8, 0.7]),
    ]
    now = searched("now", 0, [0.66, 0.55], [None, 0.75])
    assert over(now, 2, before, worst=False) == pytest.approx([0.0, 0.0])
    assert over(now, 2, before, worst=True) == pytest.approx([0.55 / 0.6 - 1, 0.75 / 0.8 - 1])
    assert over(now, 1, before, worst=True) == pytest.approx([0.1, np.inf])
    assert (now.until(1), now.until(2), now.trials(50)) == (1.5, 4.0, 2.0)
    settled = searched("settled", 0, [0.66], [None, 0.75])
    text = page([*before, now, settled], "python -m benchmarks.quality.demo")
    assert "| 0 | 2 | 4.0 | 4.0 | 10.00 % | 1 of 2 | 20.0 % |" in text
    assert "| now | 0 | 2 | 4.0 | 1.000 | 1.000 | 2 of 2 | 2 | 0 | -6.2% (b) |" in text


def test_before_is_what_the_release_before_did(tmp_path: Path) -> None:
    made = {}
    for rule in ("before", "now"):
        (tmp_path / rule).write_text(toml(document(rule, 3, tmp_path)), encoding="utf-8")
        made[rule] = load_experiment(tmp_path / rule)
    before, now = made["before"], made["now"]
    assert (before.search.rungs, now.search.rungs) == ("reports", "auto")
    assert (before.search.warm_start, now.search.warm_start) == ("neighbour", "finished")
    assert (before.training.center, now.training.center) == (False, True)
    assert before.search.space["full"]["weight_decay"] == 0
    assert before.search.seed == now.search.seed == 3
    assert before.training.relative == now.training.relative


def test_each_next_setting_helps_most_where_the_taken_ones_do_not() -> None:
    losses = np.array([[1.0, 1.2, 1.2], [1.2, 1.0, 1.1], [1.1, 1.1, 1.0], [1.01, 9.0, 9.0]])
    assert greedy(losses, 3) == [2, 0, 1]
    assert greedy(losses[:, :1], 2) == [0, 1]
