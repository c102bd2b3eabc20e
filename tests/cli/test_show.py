"""Listings: json and csv for programs, tables that fit 80 columns for people."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cli.show import Column, Format, detail, flatten, note, show, to_json

ROWS = [
    {"study": "a/b", "trials": {"complete": 3, "failed": 0}, "best": None, "layers": ["x", "y"]},
    {"study": "c,d", "trials": {"complete": 1, "failed": 2}, "best": 0.5, "layers": []},
]


def test_json_holds_the_rows_as_they_are(capsys):
    show(ROWS, Format.json)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == ROWS
    assert captured.err == ""


def test_csv_is_flat_and_can_be_read_back(capsys):
    show(ROWS, Format.csv)
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["study"] for row in read] == ["a/b", "c,d"]
    assert [row["trials.complete"] for row in read] == ["3", "1"]
    assert [row["best"] for row in read] == ["", "0.5"]
    assert json.loads(read[0]["layers"]) == ["x", "y"]


def test_csv_has_the_parts_of_what_is_nothing_in_some_rows(capsys):
    show([{"a": 1, "best": None}, {"a": 2, "best": {"value": 0.5}}], Format.csv)
    assert capsys.readouterr().out == "a,best.value\n1,\n2,0.5\n"
    show([{"a": 1, "best": None}], Format.csv)
    assert capsys.readouterr().out == "a,best\n1,\n"


def test_csv_has_every_column_that_any_row_has(capsys):
    show([{"a": 1}, {"a": 2, "b": 3}], Format.csv)
    assert capsys.readouterr().out == "a,b\n1,\n2,3\n"


def test_nothing_is_an_empty_list_for_programs_and_a_word_for_people(capsys):
    show([], Format.json)
    assert capsys.readouterr().out == "[]\n"
    show([], Format.table, empty="no studies yet")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no studies yet\n")


def test_json_has_no_NaN_and_no_foreign_kinds():
    value = {
        "nan": math.nan,
        "inf": -math.inf,
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "array": np.array([[1.0, np.nan]]),
        "yes": np.bool_(True),
        "path": Path("a/b"),
        "nested": ({"deep": np.nan},),
        3: "key",
    }
    assert json.loads(to_json(value)) == {
        "nan": None,
        "inf": None,
        "numpy": 0.5,
        "count": 3,
        "array": [[1.0, None]],
        "yes": True,
        "path": "a/b",
        "nested": [{"deep": None}],
        "3": "key",
    }
    with pytest.raises(TypeError, match="object has no place in a listing"):
        to_json({"x": object()})


def test_tables_fit_80_columns_and_lose_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"name": "n" * 100, "value": i, "share": 0.123456} for i in range(3)]
    show(rows, Format.table, [Column("name", fold=True), Column("value"), Column("share")])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("n") == 301  # the heading has one
    assert out.count("0.123") == 3
    assert "\x1b" not in out
    monkeypatch.delenv("COLUMNS")  # into a pipe: names are not cut
    show(rows, Format.table, [Column("name", fold=True), Column("value"), Column("share")])
    assert capsys.readouterr().out.count("n" * 100) == 3


@pytest.mark.parametrize("width", [20, 40, 200])
def test_tables_fit_any_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    show(ROWS, Format.table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_names_cannot_write_to_the_terminal_or_pass_for_markup(capsys):
    show([{"name": "[red]\x1b[31m\nx"}], Format.table)
    out = capsys.readouterr().out
    assert "[red]\\x1b[31m x" in out


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "-"),
        (math.nan, "-"),
        (True, "yes"),
        (False, "no"),
        (0.0, "0.000"),
        (1.23456, "1.235"),
        (1e-5, "1.00e-05"),
        (2e7, "2.00e+07"),
        (7, "7"),
        (["a", 1.5], "a, 1.500"),
    ],
)
def test_cells(capsys, value, cell):
    show([{"x": value}], Format.table)
    assert capsys.readouterr().out.split("\n")[2].strip() == cell


def test_a_column_may_write_its_values_itself(capsys):
    show([{"size": 2048}, {"size": None}], Format.table, [Column("size", text=lambda n: f"{n} B")])
    assert capsys.readouterr().out.split("\n")[2:4] == ["2048 B", "     -"]


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_notes_go_to_standard_error_as_asked(capsys, monkeypatch):
    from cli import options

    settings = options.reset()
    note("a")
    detail("b")
    assert capsys.readouterr().err == "a\n"
    settings.verbose = True
    detail("b")
    assert capsys.readouterr().err == "b\n"
    settings.quiet = True
    note("a")
    detail("b")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
