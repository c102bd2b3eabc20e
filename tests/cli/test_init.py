"""``tuner init``."""

from __future__ import annotations

import re

import pytest

from studies.config.experiment import load_experiment
from studies.config.templates import read_template, template_names


@pytest.mark.parametrize("template", template_names())
def test_a_template_is_written_and_the_next_step_said(run, folder, template):
    ended = run("init", "deep/er", "--template", template)
    assert ended.code == 0
    assert ended.out == "wrote deep/er/tuner.toml\n"
    assert "tuner study create --dry-run" in ended.err
    assert (folder / "deep/er/tuner.toml").read_text() == read_template(template)
    assert load_experiment(folder / "deep/er/tuner.toml").folder == folder / "deep/er"
    assert ("CHANGE" in ended.err) == ("# CHANGE" in read_template(template))


@pytest.mark.parametrize("template", ["hdf5", "tvsd"])
def test_degrees_of_a_template_are_of_images_as_the_backbone_sees_them(template):
    """TVSD's screen has 28.9 pixels a degree: of 500 pixels, not of the 224 that a backbone is shown."""
    text = read_template(template)
    size = re.search(r"^image_size = (\d+)", text, re.M)
    each = re.search(r"^(?:# )?pixels_per_degree = ([\d.]+)", text, re.M)
    assert int(size[1]) / float(each[1]) == pytest.approx(17.3, abs=0.01)


def test_nothing_is_overwritten(run, folder):
    assert run("init", ".").code == 0
    (folder / "tuner.toml").write_text("mine")
    run("init", ".").check_one_line_error(2, "tuner.toml: exists and is left as it is")
    assert (folder / "tuner.toml").read_text() == "mine"


def test_an_unknown_template_lists_those_there_are(run, folder):
    ended = run("init", "x", "--template", "nwb")
    ended.check_one_line_error(2, "unknown template 'nwb'", "demo, hdf5, tvsd")
    assert not (folder / "x").exists()


def test_a_file_in_the_way_is_named(run, folder):
    (folder / "x").write_text("")
    run("init", "x").check_one_line_error(2, "x: ", "name another folder")
    run("init", "x/y").check_one_line_error(2, "x/y: ", "name another folder")


def test_quiet_says_only_what_was_written(run, folder):
    ended = run("init", "x", "--quiet")
    assert (ended.out, ended.err) == ("wrote x/tuner.toml\n", "")
