from __future__ import annotations

import numpy as np
import pytest

from studies.grid import Spec, cohorts, shallower
from studies.names import StudyKey
from studies.search.queue import HANDICAP, ORDERS, Standing, handicap, next_work
from tuner.readouts.readout import FeatureShape

SHAPE = FeatureShape(2, 1, 1)


def spec(layer: int, region: str, readout: str = "full") -> Spec:
    return Spec(StudyKey("net", f"l{layer}", region, readout), layer, np.arange(2), SHAPE, {})


GRID = [spec(layer, region) for layer in range(3) for region in ("V1", "IT")]
GROUPS = {cohort: [members] for cohort, members in cohorts(GRID).items()}


def names(work: list) -> list[list[str]]:
    return [[s.name for s in one.specs] for one in work]


def standings(finished: dict[str, int], target: int = 16, **others: object) -> dict[str, Standing]:
    return {s.name: Standing(finished.get(s.name, 0), target, **others) for s in GRID}


def todo(order: str, state: dict[str, Standing]) -> list[list[str]]:
    return names(next_work(GROUPS, state, order, specs=GRID, round_size=8))


def test_fewest_takes_the_cohort_with_the_fewest_trials_first() -> None:
    state = standings({"net/l0/V1/full": 8, "net/l0/IT/full": 8, "net/l1/V1/full": 8})
    assert [work[0] for work in todo("fewest", state)] == [
        "net/l1/V1/full",  # IT of that layer has none yet
        "net/l2/V1/full",
        "net/l0/V1/full",
    ]


def test_fewest_fills_the_grid_evenly() -> None:
    """Round after round, no study is ever more than a round ahead."""
    done = dict.fromkeys((s.name for s in GRID), 0)
    while work := next_work(GROUPS, standings(done, 48), "fewest", specs=GRID, round_size=8):
        for s in work[0].specs:
            done[s.name] += 8
        assert max(done.values()) - min(done.values()) <= 8
    assert set(done.values()) == {48}


def test_depth_finishes_shallow_layers_first() -> None:
    state = standings({"net/l0/V1/full": 8})
    assert [work[0] for work in todo("depth", state)] == [
        "net/l0/V1/full",
        "net/l1/V1/full",
        "net/l2/V1/full",
    ]


def test_region_finishes_one_region_before_the_next() -> None:
    done = standings({})
    assert todo("region", done) == [[f"net/l{i}/V1/full"] for i in range(3)]
    v1 = standings({f"net/l{i}/V1/full": 16 for i in range(3)})
    assert todo("region", v1) == [[f"net/l{i}/IT/full"] for i in range(3)]


def test_promising_leaves_the_hopeless_for_later() -> None:
    best = {"l0": 0.9, "l1": 0.5, "l2": 0.52}
    state = {s.name: Standing(8, 48, best[s.key.layer]) for s in GRID}
    first = [work[0].split("/")[1] for work in todo("promising", state)]
    assert first == ["l1", "l2", "l0"]


def test_handicap_is_two_rounds_for_ten_percent() -> None:
    state = {s.name: Standing(8, 48, 0.5) for s in GRID} | {"net/l1/V1/full": Standing(8, 48, 0.55)}
    assert handicap(GRID[2], state, GRID, 8) == pytest.approx(HANDICAP * 8)
    assert handicap(GRID[0], state, GRID, 8) == 0
    untried = state | {"net/l1/V1/full": Standing(0, 48)}
    assert handicap(GRID[2], untried, GRID, 8) == 0
    nothing_complete = state | {"net/l1/V1/full": Standing(8, 48)}
    assert handicap(GRID[2], nothing_complete, GRID, 8) == HANDICAP * 8


def test_promising_tries_every_study_before_it_prefers() -> None:
    state = standings({}) | {"net/l0/V1/full": Standing(8, 48, 0.5)}
    assert todo("promising", state)[0] == ["net/l0/IT/full"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_ends_with_every_study_done(order: str) -> None:
    done = dict.fromkeys((s.name for s in GRID), 0)
    rounds = 0
    while True:
        state = {
            s.name: Standing(done[s.name], 20, 0.5 + s.layer_index / 10 if done[s.name] else None)
            for s in GRID
        }
        work = next_work(GROUPS, state, order, specs=GRID, round_size=8)
        if not work:
            break
        rounds += 1
        for s in work[0].specs:
            done[s.name] = min(done[s.name] + 8, 20)
    assert set(done.values()) == {20}
    assert rounds <= 3 * len(GRID)


@pytest.mark.parametrize("order", ORDERS)
def test_closed_forms_come_before_all_else_all_regions_at_once(order: str) -> None:
    grid = [*GRID, *(spec(layer, r, "smooth") for layer in range(2) for r in ("V1", "IT"))]
    state = {s.name: Standing(0, 68 if s.closed_form else 24, 0.1) for s in grid}
    groups = {cohort: [members] for cohort, members in cohorts(grid).items()}
    work = next_work(groups, state, order, specs=grid, round_size=8)
    assert [one.cohort[2] for one in work[:3]] == ["smooth", "smooth", "full"]
    assert names(work[:2]) == [[f"net/l{i}/V1/smooth", f"net/l{i}/IT/smooth"] for i in range(2)]


def test_studies_that_were_set_aside_are_left_out() -> None:
    assert todo("fewest", standings({}, closed=True)) == []


def test_the_shallower_neighbour_shares_everything_but_the_layer() -> None:
    assert shallower(spec(2, "IT"), GRID) == GRID[3]
    assert shallower(GRID[0], GRID) is None
    assert shallower(spec(2, "IT", "factorized"), GRID) is None
