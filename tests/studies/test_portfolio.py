"""Settings known to be good elsewhere: that they can be proposed, and who begins with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from studies.config.ranges import FloatRange, IntRange, default_space
from studies.database import trials
from studies.database.stores import Stores
from studies.database.studies import stored_studies
from studies.search.portfolio import PORTFOLIO, STEPS, portfolio
from studies.search.proposals import KNOWN
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment


def test_settings_lie_in_the_default_ranges() -> None:
    """Else nobody would ever begin with them."""
    assert set(PORTFOLIO) == {"full", "factorized"}
    for readout, every in PORTFOLIO.items():
        space = default_space(readout)
        for settings in every:
            assert set(settings) == set(space)
            for name, value in settings.items():
                setting = space[name]
                assert isinstance(setting, FloatRange | IntRange)
                assert setting.low <= value <= setting.high


def test_a_longer_trial_drops_its_rate_later_within_the_range() -> None:
    space = default_space("full")
    wide = {**space, "drop": IntRange(low=1, high=10_000)}
    for settings, twice in zip(PORTFOLIO["full"], portfolio("full", wide, 2 * STEPS), strict=True):
        assert twice["drop"] == 2 * settings["drop"]
        assert isinstance(twice["drop"], int)
        assert {**twice, "drop": 0} == {**settings, "drop": 0}
    for steps in (1, 10 * STEPS):
        assert all(20 <= one["drop"] <= 400 for one in portfolio("full", space, steps))
    assert portfolio("of one's own", space, STEPS) == []


def test_a_study_begins_with_the_bests_of_its_donors_and_with_what_is_known_to_be_good(
    make_experiment: MakeExperiment, run: Run, open_experiment: Callable[[Path], Stores]
) -> None:
    config = make_experiment(
        {
            "training": {"steps": 20, "report_every": 20},
            "search": {"rungs": "auto", "space": {"full": {"smoothness": 1e-4}}},
        }
    )
    assert run("study", "create", "-c", config).code == 0
    assert run("optimize", "-c", config, "--n-trials", "8").code == 0
    stores = open_experiment(config)
    stored = stored_studies(stores.storage)
    known = [
        {name: value for name, value in settings.items() if name != "smoothness"}
        for settings in portfolio("full", default_space("full"), 20)
    ]
    for layer in ("_blocks.4", "_blocks.2"):
        name = f"net/{layer}/V1/full"
        study = stored[name].study_id
        begun = [t.params for t in trials.load(stores.storage, [study])[study]]
        assert [some for some in begun if some in known] == known  # once, donors' bests or not
        shown = run("study", "show", name, "--format", "json", "-c", config).json[0]
        origins = [t["origin"] for t in shown["trials"]]
        given = ["best of" in (o or "") or o == KNOWN for o in origins]
        assert given == sorted(given, reverse=True)
        assert origins[:5] == [KNOWN] * 5 or origins[0].startswith("best of")
        assert None in origins  # some are drawn at random
