"""A search by workers: whatever they do, in whatever order, it takes the course that one process takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from studies.cluster import coordinator, crew, messages
from studies.cluster.homes import Homes
from studies.config.experiment import load_experiment
from studies.search import round as rounds
from studies.search.ledger import Ledger
from tests.soak.outcome import look
from tests.studies.conftest import MakeExperiment
from tests.studies.small import write_recording
from tests.studies.workers import SMALL, TRIALS, Died, Given, StandIn, Told, created, search
from tuner.errors import InputError, TunerError
from tuner.features.cache import FeatureCache


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "LOOK_SECONDS", 0.001)


@pytest.mark.parametrize("count", [1, 3])
def test_workers_take_the_course_of_one_process(
    make_experiment: MakeExperiment,
    shared: Path,
    alone: Any,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "HELP_SECONDS", float("inf"))
    own = {"cluster": {"cache": str(shared / "cache")}}
    config = created(make_experiment({**SMALL, **own}))
    engine = StandIn(count=count, seed=count)
    done = search(config, engine, TRIALS)
    assert done.complete
    seen = look(config, TRIALS)
    assert not seen.problems
    assert seen.outcome == alone
    assert 1 < engine.most <= count or count == 1
    assert engine.ahead > 0  # a round lay ready where another was told
    opened = {given.address for given in engine.log if given.kind in ("groups", "open")}
    assert len(opened) == count  # none of them begins with that when it is given its first round
    extracted = [
        layer
        for given in engine.log
        if given.kind == "extract"
        for layer in messages.unpack(given.task).header["layers"]
    ]
    assert sorted(extracted) == ["_blocks.2", "_blocks.4"]


def test_a_lost_worker_costs_its_round_and_nothing_else(
    make_experiment: MakeExperiment, alone: Any
) -> None:
    config = created(make_experiment(SMALL))
    lost: list[bytes] = []
    extracting: list[bytes] = []

    def once(given: Given) -> bool:
        """The first extraction, and every other round the first time that it is fitted."""
        if given.kind == "extract" and not any(extracting):
            return extracting.append(given.task) is None
        if given.kind != "fit" or given.task in lost or len(engine.log) % 2:
            return False
        lost.append(given.task)
        return True

    engine, told = StandIn(seed=5, lose=once), Told()
    search(config, engine, TRIALS, told)
    assert len(lost) > 2
    assert sum("its round runs again" in line for line in told.lines) == len(lost)
    assert "last words of" in next(line for line in told.lines if "lost" in line)
    seen = look(config, TRIALS)
    assert not seen.problems
    assert seen.outcome == alone


def test_a_worker_lost_in_mid_extraction_leaves_what_it_has_done_to_the_next(
    make_experiment: MakeExperiment, alone: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {"cluster": {"cache": str(tmp_path / "own")}}
    config = created(make_experiment({**SMALL, **own}))
    finish, finished, died = FeatureCache.finish, [], []

    def finishing(self: FeatureCache, key: str, *rest: Any) -> None:
        if finished and not died:
            died.append(key)
            raise Died
        finish(self, key, *rest)
        finished.append(key)

    monkeypatch.setattr(FeatureCache, "finish", finishing)
    told = Told()
    assert search(config, StandIn(count=1), TRIALS, told).complete
    assert any("w0 was lost" in line for line in told.lines)
    assert sorted(finished) == sorted({*finished, *died})  # each layer once
    assert len(finished) == 2
    assert look(config, TRIALS).outcome == alone


def test_a_study_that_kills_its_workers_is_set_aside_and_the_others_go_on(
    make_experiment: MakeExperiment,
) -> None:
    config = created(make_experiment(SMALL))

    def deadly(given: Given) -> bool:
        studies = messages.unpack(given.task).header.get("asked", {})
        return "net/_blocks.2/IT/full" in studies

    engine, told = StandIn(lose=deadly), Told()
    done = search(config, engine, 4, told)
    assert list(done.set_aside) == ["net/_blocks.2/IT/full"]
    assert "was lost (last words of w" in done.set_aside["net/_blocks.2/IT/full"]
    assert any("run one by one" in line for line in told.lines)
    studies = look(config, 4).outcome
    others = [s for name, s in studies.items() if name not in done.set_aside]
    assert len(others) == 11
    assert all(state in ("COMPLETE", "PRUNED") for s in others for _, state, *_ in s["trials"])


def test_a_study_that_raises_is_set_aside_after_three_attempts(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = created(make_experiment(SMALL))
    whole = rounds.Round.run
    attempts = []

    def some_raise(self: rounds.Round, observer: Any = None) -> rounds.Result:
        if any(len(member.units) == 2 for member in self.members):  # IT
            attempts.append(len(self.members))
            raise ZeroDivisionError("made up")
        return whole(self, observer)

    monkeypatch.setattr(rounds.Round, "run", some_raise)
    done = search(config, StandIn(count=1), 4)
    assert sorted(attempts) == [*[1] * 12, 2, 2, 2, 2]
    assert {name.split("/")[2] for name in done.set_aside} == {"IT"}
    assert len(done.set_aside) == 4
    assert done.set_aside["net/_blocks.2/IT/full"] == "ZeroDivisionError: made up"


def test_a_machine_that_fails_is_given_nothing_more(
    make_experiment: MakeExperiment, alone: Any
) -> None:
    config = created(make_experiment(SMALL))
    met: list[str] = []

    def full_disk(given: Given) -> None:
        if given.address == "w1#0":
            met.append(given.kind)
            raise OSError(28, "No space left on device")

    engine, told = StandIn(before=full_disk), Told()
    search(config, engine, TRIALS, told)
    assert len(met) == 1
    assert any("worker w1: OSError" in line and "nothing more" in line for line in told.lines)
    assert look(config, TRIALS).outcome == alone


def test_where_every_machine_fails_the_search_stops_and_trials_wait(
    make_experiment: MakeExperiment,
) -> None:
    config = created(make_experiment(SMALL))

    def full_disk(given: Given) -> None:
        if given.kind == "fit":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        search(config, StandIn(before=full_disk), TRIALS)
    states = {s for study in look(config, TRIALS).outcome.values() for _, s, *_ in study["trials"]}
    assert states == {"WAITING"}


def test_an_interrupt_puts_back_and_the_next_start_goes_on(
    make_experiment: MakeExperiment, alone: Any
) -> None:
    config = created(make_experiment(SMALL))
    fits: list[str] = []

    def interrupted(given: Given) -> bool:
        fits.append(given.kind)
        if fits.count("fit") == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        search(config, StandIn(lose=interrupted), TRIALS)
    states = {s for study in look(config, TRIALS).outcome.values() for _, s, *_ in study["trials"]}
    assert "RUNNING" not in states
    assert "WAITING" in states
    assert search(config, StandIn(count=2, seed=9), TRIALS).complete
    assert look(config, TRIALS).outcome == alone


def test_a_budget_ends_where_one_process_ends(make_experiment: MakeExperiment) -> None:
    one, many = created(make_experiment(SMALL, "one")), created(make_experiment(SMALL, "many"))
    words = ["optimize", "-q", "--n-trials", str(TRIALS), "--budget", "20", "-c", str(one)]
    assert main(words) == 0
    done = search(many, StandIn(seed=2), TRIALS, budget=20)
    assert not done.complete
    assert look(many, TRIALS).outcome == look(one, TRIALS).outcome


def test_at_the_end_of_its_time_rounds_that_lie_ready_are_not_begun(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = created(make_experiment(SMALL))
    fitted: list[str] = []

    def over(self: Ledger) -> bool:
        return len(fitted) >= 2

    monkeypatch.setattr(Ledger, "late", over)
    engine = StandIn(
        count=2,
        seed=1,
        before=lambda given: fitted.append(given.key) if given.kind == "fit" else None,
    )
    assert not search(config, engine, TRIALS).complete
    assert len(fitted) < sum(given.kind == "fit" for given in engine.log)
    studies = look(config, TRIALS).outcome.values()
    assert "WAITING" in {state for study in studies for _, state, *_ in study["trials"]}


def test_another_recording_on_a_worker_is_refused(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = created(make_experiment(SMALL))
    other = write_recording(tmp_path / "other.h5", seed=1)
    plain = messages.document(load_experiment(config))
    plain["tables"]["data"]["path"] = str(other)
    monkeypatch.setattr(messages, "document", lambda experiment: plain)
    with pytest.raises(InputError, match=r"data\.responses"):
        search(config, StandIn(), TRIALS)


def test_what_comes_back_is_compared_with_what_was_asked(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = created(make_experiment(SMALL))
    pack = messages.pack_ended
    monkeypatch.setattr(messages, "pack_ended", lambda results: bytes(pack(results)[:-1]) + b"?")
    with pytest.raises(messages.Garbled, match="damaged"):
        search(config, StandIn(), TRIALS)

    def without_one(results: Any) -> bytes:
        return pack({name: (outcomes[1:], []) for name, (outcomes, _) in results.items()})

    monkeypatch.setattr(messages, "pack_ended", without_one)
    with pytest.raises(TunerError, match="other trials"):
        search(config, StandIn(), TRIALS)


def test_a_worker_reads_the_experiment_without_the_database(
    make_experiment: MakeExperiment,
) -> None:
    config = make_experiment(
        {
            "training": {"memory": "2GB"},
            "cluster": {"cache": "$HOME/tuner", "cores": 2},
            "backbone": [
                {"timm": ["resnet18"]},
                {"name": "vgg11", "alias": "drawn", "weights": "random", "seeds": 2},
            ],
        }
    )
    experiment = load_experiment(config)
    plain = messages.document(experiment)
    assert plain["cache"] == "$HOME/tuner"
    assert "url" not in plain["tables"]["storage"]
    there = messages.experiment_of(json.loads(json.dumps({**plain, "cache": None})))
    left_out = {"storage": {"url"}, "cluster": True}
    assert [b.draw for b in there.backbone] == [b.draw for b in experiment.backbone] == [0, 0, 1]
    assert [b.draws_of for b in there.backbone] == [b.draws_of for b in experiment.backbone]
    assert there.model_dump(exclude=left_out) == experiment.model_dump(exclude=left_out)


def test_layers_are_dealt_once_and_rounds_go_where_their_features_are() -> None:
    layers = [("net", f"layer{i}") for i in range(6)]
    homes = Homes(dict.fromkeys(layers, 10), 1000, shared=False)
    everyone = {"a", "b"}
    assert homes.choose(layers[0], everyone, everyone) == "a"
    homes.settle(layers[0], "a", 2, everyone)
    assert homes.together(layers[0], "a") == ["layer0", "layer2", "layer4"]
    assert homes.choose(layers[2], {"b"}, everyone) is None
    assert homes.choose(layers[1], everyone, everyone) == "b"
    homes.settle(layers[1], "b", 2, everyone)
    assert homes.together(layers[1], "b") == ["layer1", "layer3", "layer5"]
    # b is lost: what it had is another's.
    assert homes.choose(layers[3], {"a"}, {"a"}) == "a"
    homes.settle(layers[3], "a", 2, {"a"})
    assert homes.of(layers[3]) == "a"


def test_layers_that_the_cache_does_not_hold_are_extracted_one_at_a_time() -> None:
    layers = [("net", f"layer{i}") for i in range(4)]
    homes = Homes(dict.fromkeys(layers, 10), 30, shared=True)
    homes.settle(layers[0], "a", 1, {"a"})
    assert homes.together(layers[0], "a") == ["layer0"]
