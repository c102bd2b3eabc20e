"""What one ``[[backbone]]`` table stands for: networks of a pattern, draws of random weights."""

from __future__ import annotations

from typing import Any

import pytest

from studies.config.experiment import Experiment, parse_experiment
from studies.workspace import Workspace
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
    assert [workspace.weights_seed(table.alias) for table in made.backbone] == [7, 8, 9, 7]
    digests = {workspace.backbone(table.alias).digest for table in made.backbone}
    assert len(digests) == 4
    one = experiment({"name": "squeezenet1_1", "weights": "random"}, search={"seed": 7})
    assert Workspace(one).backbone("squeezenet1_1").digest == workspace.backbone("net-1").digest


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
