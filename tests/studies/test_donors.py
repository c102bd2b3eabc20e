"""First settings from other studies: who gives to whom, who waits for whom, and that the clock has no say in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.database.trials import Trial
from studies.grid import Spec, cohorts
from studies.names import StudyKey
from studies.search.donors import MOST, Donors, waves
from studies.search.queue import ORDERS, Standing, next_work
from tests.conftest import Run
from tests.soak.outcome import differences, look
from tests.studies.conftest import MakeExperiment
from tuner.readouts.readout import FeatureShape

ROUND = 4


def spec(backbone: str, layer: int, region: str, readout: str = "full") -> Spec:
    key = StudyKey(backbone, f"layer{layer}", region, readout)
    return Spec(key, layer, np.arange(2), FeatureShape(2, 1, 1), {})


def grid(layers: int = 5, regions: str = "AB", backbones: str = "x") -> list[Spec]:
    return [
        spec(b, layer, region, readout)
        for b in backbones
        for layer in range(layers)
        for region in regions
        for readout in ("full", "factorized", "smooth")
    ]


def named(specs: list[Spec], name: str) -> Spec:
    return next(s for s in specs if s.name == name)


def finished(study: int, values: list[float], first: int = 0) -> list[Trial]:
    return [
        Trial(100 * study + i, study, first + i, TrialState.COMPLETE, {"a": float(v)}, v)
        for i, v in enumerate(values)
    ]


def test_layers_come_in_waves_from_the_middle() -> None:
    assert list(waves(grid(5)).values()) == [0, 1, 1, 2, 2]
    assert waves(grid(5))["x", "layer2"] == 0
    assert sorted(waves(grid(1, backbones="xy")).values()) == [0, 0]


def test_the_nearest_give_first() -> None:
    every = grid(7, "AB", "xy")  # waves of the layers: 2 1 2 0 2 1 2
    donors = Donors(every, every, ROUND)
    assert donors.of(named(every, "x/layer3/A/full")) == ()
    names = [d.name for d in donors.of(named(every, "x/layer6/A/full"))]
    assert names == [
        "x/layer5/A/full",
        "x/layer3/A/full",
        "x/layer1/A/full",
        "x/layer5/B/full",
        "x/layer3/B/full",
        "x/layer1/B/full",
        "y/layer5/A/full",
        "y/layer3/A/full",
    ]
    assert len(names) == MOST


def test_who_is_not_selected_gives_what_it_has() -> None:
    every = grid(3)
    mine = [s for s in every if s.key.region == "A"]
    donors = Donors(every, mine, ROUND)
    one = named(every, "x/layer1/A/full")
    assert [d.name for d in donors.of(one)] == [
        "x/layer1/B/full",
        "x/layer0/B/full",
        "x/layer2/B/full",
    ]
    known = {
        "x/layer1/B/full": finished(1, [0.9] * 8 + [0.2]),
        "x/layer0/B/full": finished(2, [0.5] * 7),  # has not come far enough
        "x/layer2/B/full": finished(3, [0.2] * 9),  # the same setting again
    }
    assert donors.gifts(one, known) == [({"a": 0.2}, "best of x/layer1/B/full")]


def test_a_selected_donor_gives_the_best_of_its_first_rounds() -> None:
    """What it finds later depends on who came first."""
    every = grid(3, "A")
    donors = Donors(every, every, ROUND)
    shallow = named(every, "x/layer0/A/full")
    found = finished(1, [0.9, 0.7, 0.8, 0.95, 0.6, 0.65, 0.9, 0.9, 0.1])
    assert donors.gifts(shallow, {"x/layer1/A/full": found}) == [
        ({"a": 0.6}, "best of x/layer1/A/full")
    ]
    assert donors.gifts(shallow, {"x/layer1/A/full": finished(1, [])}) == []


@given(
    data=st.data(),
    layers=st.integers(1, 6),
    backbones=st.sampled_from(["x", "xy"]),
    target=st.integers(1, 20),
    order=st.sampled_from(ORDERS),
)
def test_something_may_always_be_begun(
    data: st.DataObject, layers: int, backbones: str, target: int, order: str
) -> None:
    """Whatever is selected, set aside or done already: while a study lacks trials there is work."""
    every = [s for s in grid(layers, "AB", backbones) if not s.closed_form]
    mine = data.draw(st.lists(st.sampled_from(every), min_size=1, unique_by=lambda s: s.name))
    mine.sort(key=lambda s: [e.name for e in every].index(s.name))
    counts = {s.name: data.draw(st.integers(0, target)) for s in mine}
    aside = {s.name for s in mine if data.draw(st.booleans())}
    donors = Donors(every, mine, ROUND)
    groups = {cohort: [members] for cohort, members in cohorts(mine).items()}
    for _ in range(1000):
        standings = {s.name: Standing(counts[s.name], target, 0.5, s.name in aside) for s in mine}
        work = next_work(
            groups,
            standings,
            order,
            specs=mine,
            round_size=ROUND,
            after=donors.awaits,
        )
        if not work:
            break
        for one in data.draw(st.sampled_from(work)).specs:
            if counts[one.name] == 0:
                for donor in donors.of(one):
                    far = counts.get(donor.name, 99) >= min(target, donors.trials)
                    assert far or donor.name in aside
            counts[one.name] = min(target, counts[one.name] + ROUND)
    assert all(counts[s.name] == target or s.name in aside for s in mine)


def search(make: MakeExperiment, run: Run, name: str, *more: Any) -> Path:
    elsewhere = {"sparsity": {"low": 1e-5, "high": 1e-4}}  # than all settings of the portfolio
    config = make({"search": {"rungs": "auto", "space": {"full": elsewhere}}}, name)
    assert run("study", "create", "-c", config).code == 0
    for words in more:
        run("optimize", "-c", config, "--n-trials", *words)
    assert run("optimize", "-c", config, "--n-trials", "12").code == 0
    return config


def test_first_trials_are_the_bests_of_donors_and_say_so(
    make_experiment: MakeExperiment, run: Run, open_experiment: Callable[[Path], Stores]
) -> None:
    config = search(make_experiment, run, "one")
    stores = open_experiment(config)
    stored = stored_studies(stores.storage)
    loaded = trials.load(stores.storage, [s.study_id for s in stored.values()])
    scouts = {r: stored[f"net/_blocks.4/{r}/full"].study_id for r in ("V1", "IT")}
    best = {
        region: min(
            (t for t in loaded[study][:8] if t.state == TrialState.COMPLETE),
            key=lambda t: (t.value, t.number),
        ).params
        for region, study in scouts.items()
    }
    for region, other in (("V1", "IT"), ("IT", "V1")):
        mine = loaded[stored[f"net/_blocks.2/{region}/full"].study_id]
        assert [t.params for t in mine[:2]] == [best[region], best[other]]
        assert mine[2].params not in best.values()
        shown = run(
            "study", "show", f"net/_blocks.2/{region}/full", "--format", "json", "-c", config
        ).json[0]
        origins = {t["number"]: t["origin"] for t in shown["trials"]}
        assert origins[0] == f"best of net/_blocks.4/{region}/full"
        assert origins[1] == f"best of net/_blocks.4/{other}/full"
        assert origins[2] is None
    assert (
        json.loads(json.dumps(stored["net/_blocks.2/V1/full"].fingerprint))["search.warm_start"]
        == "finished"
    )


def test_a_search_in_pieces_or_in_another_order_takes_the_same_course(
    make_experiment: MakeExperiment, run: Run
) -> None:
    """As when it is killed, or when another worker comes to its rounds first."""
    whole = look(search(make_experiment, run, "whole"), 12)
    pieces = search(make_experiment, run, "pieces", (12, "--budget", 1), (12, "--budget", 9))
    depth = search(make_experiment, run, "depth", (12, "--order", "depth"))
    for config in (pieces, depth):
        again = look(config, 12)
        assert whole.problems == again.problems == []
        assert differences(whole.outcome, again.outcome) == []
