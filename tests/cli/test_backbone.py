"""``tuner backbone``."""

from __future__ import annotations

import csv
import io

import pytest


def test_list_has_the_named_ones_and_torchvisions(run):
    rows = {row["name"]: row for row in run("backbone", "list", "--format", "json").json}
    assert {"vgg19", "inceptionv1", "efficientnet_lite0", "resnet50"} <= rows.keys()
    assert rows["efficientnet_lite0"]["imagenet"] is True


def test_list_as_a_table_fits(run):
    ended = run("backbone", "list")
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "efficientnet_lite0" in ended.out


def test_layers_come_in_depth_order_with_shape_field_and_cost(run):
    rows = run("backbone", "layers", "vgg19", "--format", "json").json
    assert [row["name"] for row in rows][:3] == ["features.0", "features.2", "features.5"]
    assert len(rows) == 16
    first, last = rows[0], rows[-1]
    assert (first["channels"], first["height"], first["receptive_field"]) == (64, 224, 3)
    assert (last["receptive_field"], last["stride"]) == (252, 16)
    # The first convolution: 224^2 cells x 64 channels x 3 channels x 3 x 3 weights.
    assert first["macs"] == 224**2 * 64 * 27
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)


def test_layers_can_be_chosen_and_the_size_given(run):
    ended = run(
        "backbone", "layers", "efficientnet_lite0", "--image-size", 64, "--format", "csv",
        "--layer", "_blocks.4", "--layer", "_blocks.1",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert [(row["name"], row["height"]) for row in rows] == [
        ("_blocks.1", "16"),
        ("_blocks.4", "8"),
    ]


def test_layers_as_a_table_fit(run):
    ended = run("backbone", "layers", "vgg19")
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "512 x 14 x 14" in ended.out


def test_aliases_and_the_image_size_come_from_the_config(run, folder):
    (folder / "tuner.toml").write_text(
        "[data]\nimage_size = 64\n[[backbone]]\nname = 'efficientnet_lite0'\nalias = 'small'\n"
    )
    rows = run("backbone", "layers", "small", "--format", "json").json
    assert (rows[0]["name"], rows[0]["height"]) == ("_blocks.0", 32)


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (["vgg99"], ["unknown backbone 'vgg99'", "vgg19", "inceptionv1"]),
        (["vgg19", "--layer", "features.99"], ["unknown layer 'features.99'", "features.34"]),
        (["vit_b_16"], ["vit_b_16", "tokens"]),
        (["vgg19", "-c", "nope.toml"], ["nope.toml: not found"]),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(run, folder, words, mentions):
    run("backbone", "layers", *words).check_one_line_error(2, *mentions)
