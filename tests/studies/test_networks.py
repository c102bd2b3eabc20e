"""What one ``[[backbone]]`` table stands for: networks of a pattern, draws of random weights."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.text import Text

from studies.config.experiment import Experiment, load_experiment, parse_experiment
from studies.database.stores import as_made, open_stores
from studies.export import images
from studies.export.heatmap import draw_heatmap
from studies.results.best_layers import region_layers
from studies.results.encoders import best_studies
from studies.workspace import Workspace
from tests.conftest import Run
from tests.studies.conftest import MakeExperiment
from tuner.errors import InputError


def experiment(*tables: dict[str, Any], **others: Any) -> Experiment:
    return parse_experiment({"backbone": list(tables), **others})


def test_draws_are_networks_of_their_own() -> None:
    made = experiment(
        {"name": "squeezenet1_1", "alias": "net", "weights": "random", "seeds": 3},
        {"name": "pixels"},
        search={"seed": 7},
    )
    assert [table.alias for table in made.backbone] == ["net-1", "net-2", "net-3", "pixels"]
    assert [table.draws_of for table in made.backbone] == ["net", "net", "net", ""]
    workspace = Workspace(made)
    assert [workspace.networks.seed(table.alias) for table in made.backbone] == [7, 8, 9, 7]
    digests = {workspace.networks.backbone(table.alias).digest for table in made.backbone}
    assert len(digests) == 4
    one = experiment({"name": "squeezenet1_1", "weights": "random"}, search={"seed": 7})
    assert (
        Workspace(one).networks.backbone("squeezenet1_1").digest
        == workspace.networks.backbone("net-1").digest
    )


def test_a_pattern_is_a_table_for_each_network() -> None:
    pytest.importorskip("timm")
    made = experiment(
        {"timm": ["vit_tiny_patch16_*", "resnet10t"], "weights": "random", "tokens": "grid"},
        {"name": "vgg19"},
    )
    names = [table.name for table in made.backbone]
    assert {"timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_384"} <= set(names)
    assert names[-2:] == ["timm/resnet10t", "vgg19"]
    assert {table.weights for table in made.backbone[:-1]} == {"random"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "vgg19", "seeds": 3}, r"backbone\[0\].seeds: only with weights = \"random\""),
        ({"name": "vgg19", "mean": [1, 2]}, r"backbone\[0\].mean: must be three numbers"),
        ({"name": "vgg19", "rectify": "no"}, r"backbone\[0\].rectify: must be \"auto\", true or"),
        ({"timm": 3}, r"backbone\[0\].timm: must be a list of patterns"),
        ({"timm": ["vit_tiny*"], "name": "a"}, r"backbone\[0\].name: not beside timm"),
        ({"timm": ["no_such_net*"]}, r"\"no_such_net\*\" fits none of timm's networks"),
    ],
)
def test_wrong_tables(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(table)


def test_a_draw_may_not_take_the_alias_of_another() -> None:
    drawn = {"name": "vgg19", "alias": "a", "weights": "random", "seeds": 2}
    with pytest.raises(InputError, match='"a-2" is the alias of a draw'):
        experiment(drawn, {"name": "vgg19", "alias": "a-2"})


def test_network_against_region_is_exported(
    make_experiment: MakeExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Baselines, a network and its draws: the best layer of each, its place in depth, one panel for all draws."""
    net = {"name": "squeezenet1_1", "layers": ["features.0", "features.12"], "weights": "random"}
    config = make_experiment(
        {
            "backbone": [
                {"name": "gabor", "layers": ["simple", "both"], "max_grid": 2},
                net | {"alias": "drawn", "seeds": 2, "max_grid": 2},
            ],
            "search": {"space": {"smooth": {"width": [0.0], "penalty": [1.0, 100.0]}}},
        }
    )
    text = config.read_text()
    config.write_text(text.replace("full = {  }, factorized = {  }, ", ""))
    assert run("study", "create", "-q", "-c", config).code == 0
    assert run("optimize", "--n-trials", "1", "-q", "-c", config).code == 0
    out = config.parent / "out"
    ended = run("export", "heatmap", "--stacked", "--random", "-o", out, "-q", "-c", config)
    assert ended.code == 0, ended.err
    with (out / "networks.csv").open(newline="") as file:
        rows = {(row["network"], row["region"]): row for row in csv.DictReader(file)}
    with (out / "heatmap.csv").open(newline="") as file:
        studies = [row for row in csv.DictReader(file) if row["readout"] == "smooth"]
    assert {network for network, _ in rows} == {"gabor", "drawn-1", "drawn-2"}
    for (network, region), row in rows.items():
        own = [s for s in studies if (s["backbone"], s["region"]) == (network, region)]
        sure = [s for s in own if s["fit_failed"] == "false"]
        best = min(sure or own, key=lambda s: float(s["validation_loss"]))
        assert row["layer"] == (best["layer"] if sure else "none")
        assert row["fit_failed"] == best["fit_failed"]
        assert row["test_correlation"] == best["test_correlation"]
        assert row["stacked_test_correlation"] != ""
        assert float(row["stacked_test_correlation_low"]) <= float(row["stacked_test_correlation"])
        depths = {"simple": 0.0, "both": 1.0, "features.0": 0.0}
        if not sure:
            assert (row["depth"], row["layer_index"], row["readout"]) == ("", "", "")
        elif row["layer"] in depths:
            assert float(row["depth"]) == depths[row["layer"]]
        else:
            assert 0 < float(row["depth"]) < 1
    with (out / "references.csv").open(newline="") as file:
        assert {row["backbone"] for row in csv.DictReader(file)} == {"drawn-1", "drawn-2"}
    assert rows["gabor", "V1"]["kind"] == "baseline"
    assert rows["drawn-2", "V1"]["kind"] == "untrained"
    assert rows["drawn-2", "V1"]["draws_of"] == "drawn"
    assert {p.name for p in out.glob("networks.*")} == {
        *("networks.csv", "networks.png", "networks.svg"),
    }

    # a network that has learned nothing is a control, and no judge of what trained ones and baselines see
    monkeypatch.setattr(
        images, "first_told", lambda rivals: rivals[0]
    )  # whatever the fits are worth
    workspace = Workspace(as_made(load_experiment(config)))
    with open_stores(workspace.experiment) as stores:
        ready = best_studies(workspace, stores, workspace.grid)
        judges = {}
        for best in ready:
            if best.spec.key.region == "V1":
                _, found = images.judges_of(best, [])
                judges[best.spec.key.backbone] = {name.split("/")[0] for name in found}
        drawn = draw_heatmap(workspace, stores, workspace.grid, references=["random"]).figure
    titles = {text.get_text() for text in drawn.findobj(Text)}
    assert "drawn, 2 draws (random)" in titles  # one panel for the references of all draws too
    assert not any("drawn-1" in title for title in titles)
    assert judges["gabor"] == {"gabor"}
    assert judges["drawn-1"] == {"gabor", "drawn-1", "drawn-2"}


def test_networks_that_are_not_in_use_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.networks.HELD_BYTES", 10)
    workspace = Workspace(experiment({"name": "pixels"}, {"name": "gabor"}))
    held = workspace.networks._loaded
    first, digest = workspace.networks.layers("gabor"), workspace.networks.digest("gabor")
    assert list(held) == ["gabor"]
    workspace.networks.backbone("pixels")
    assert list(held) == ["pixels"]
    assert workspace.networks.layers("gabor") is first  # known without loading it again
    assert workspace.networks.digest("gabor") == digest
    assert list(held) == ["pixels"]


def test_that_a_control_is_the_best_is_noted() -> None:
    net = {"name": "squeezenet1_1"}
    both = experiment(net | {"alias": "trained"}, net | {"alias": "untrained", "weights": "random"})
    alone = experiment(net | {"alias": "untrained", "weights": "random"})

    def note(made: Experiment, **losses: float) -> str:
        about = {
            "region": "V4",
            "layer": "a",
            "layer_index": 0,
            "readout": "full",
            "fit_failed": False,
        }
        rows = [about | {"backbone": b, "validation_loss": loss} for b, loss in losses.items()]
        found: Any = [SimpleNamespace(row=row) for row in rows]
        (row,) = region_layers(Workspace(made), found)
        return str(row["note"])

    assert "has random weights" in note(both, trained=0.6, untrained=0.5)
    assert note(both, trained=0.5, untrained=0.6) == ""
    assert note(alone, untrained=0.5) == ""


def test_controls_do_not_judge_what_trained_networks_made() -> None:
    made = experiment(
        {"name": "squeezenet1_1", "alias": "trained"},
        {"name": "squeezenet1_1", "alias": "drawn", "weights": "random"},
        {"name": "gabor"},
        {"name": "pixels"},
    )
    assert images.no_judges(made, "trained") == {"drawn", "gabor", "pixels"}
    assert images.no_judges(made, "gabor") == {"drawn"}
    assert images.no_judges(made, "drawn") == set()


def test_the_forecast_knows_networks_without_a_multiplication(
    make_experiment: MakeExperiment, run: Run
) -> None:
    config = make_experiment({"backbone": [{"name": "pixels"}, {"name": "gabor"}]})
    rows = run("study", "create", "--dry-run", "--format", "json", "-c", config).json
    assert {row["backbone"] for row in rows} == {"pixels", "gabor"}
    assert all(row["search_seconds"] > 0 for row in rows)
