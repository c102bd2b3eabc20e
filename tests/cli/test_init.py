"""``tuner init``."""

from __future__ import annotations

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
