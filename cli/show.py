"""Listings: a table for people, json and csv for programs, on standard output alone."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import one_line
from cli.options import settings

Row = Mapping[str, Any]


UNBOUNDED = 10_000
"""Columns of a table that is not written to a terminal."""


class Format(StrEnum):
    """How a listing is written."""

    table = "table"
    json = "json"
    csv = "csv"


FormatOption = Annotated[
    Format, typer.Option("--format", help="A table for people, json or csv for programs.")
]


@dataclass(frozen=True)
class Column:
    """A column of a table for people.

    Attributes
    ----------
    key
        Where the value stands in a row; dots lead into nested ones: ``trials.complete``.
    title
        Its heading; the key where not given.
    digits
        Digits of a real number after the point.
    fold
        Whether this column gives way, its values taking several lines, where the terminal is too
        narrow for all columns.
    text
        Writes a value, where that is not how its kind is written.
    """

    key: str
    title: str = ""
    digits: int = 3
    fold: bool = False
    text: Callable[[Any], str] | None = None


def show(
    rows: Sequence[Row],
    format: Format,  # noqa: A002 - the word of the command line
    columns: Sequence[Column] | None = None,
    *,
    title: str = "",
    empty: str = "nothing to list",
) -> None:
    """Write rows to standard output.

    Parameters
    ----------
    rows
        One mapping per row; json writes them as they are, csv flattens nested ones.
    format
        Whether a table, json or csv is written.
    columns
        What a table shows; every column of the first row where not given.
    title
        A line above the table.
    empty
        What is said, on standard error, where there are no rows for a table.
    """
    if format is Format.json:
        write(to_json([dict(row) for row in rows]))
    elif format is Format.csv:
        _write_csv(rows)
    elif not rows:
        note(empty)
    else:
        shown = columns or [Column(key) for key in flatten(rows[0])]
        _write_table(rows, shown, title)


def to_json(value: Any) -> str:
    """Write a value as JSON; NaN and infinities, which JSON has not, become null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def write(text: str) -> None:
    """Print a result on standard output."""
    print(text)


def note(text: str) -> None:
    """Print a message on standard error, unless the command is to be quiet."""
    if not settings().quiet:
        print(text, file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """Print a message on standard error, if the command is to say more."""
    if settings().verbose and not settings().quiet:
        print(text, file=sys.stderr, flush=True)


def flatten(row: Row, prefix: str = "") -> dict[str, Any]:
    """Bring nested mappings to one level: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(value: Any) -> Any:
    """Turn numpy's and our own kinds of values into JSON's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a listing")


def _write_csv(rows: Sequence[Row]) -> None:
    from tuner.figures.tables import harmless

    flat = [flatten({str(k): _plain(v) for k, v in row.items()}) for row in rows]
    fields = dict.fromkeys(key for row in flat for key in row)
    # What is nothing in one row and has parts in another is its parts: `best` before the first complete trial.
    for name in [key for key in fields if any(other.startswith(f"{key}.") for other in fields)]:
        if not any(row.get(name) is not None for row in flat):
            del fields[name]
            flat = [{key: v for key, v in row.items() if key != name} for row in flat]
    writer = csv.DictWriter(sys.stdout, list(fields), restval="", lineterminator="\n")
    writer.writeheader()
    for row in flat:
        plain = {key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()}
        writer.writerow({k: harmless(v) if isinstance(v, str) else v for k, v in plain.items()})


def _write_table(rows: Sequence[Row], columns: Sequence[Column], title: str) -> None:
    # rich knows pipes and widths; it is slow to import and only tables need it.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    flat = [flatten(row) for row in rows]
    values = [[row.get(column.key) for row in flat] for column in columns]
    cells = [
        [column.title or column.key, *(_cell(value, column) for value in present)]
        for column, present in zip(columns, values, strict=True)
    ]
    # what goes into a pipe or a file is searched by line: a name stands on one
    wide = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else UNBOUNDED
    console = Console(file=sys.stdout, highlight=False, width=wide)
    widths = [max(map(cell_len, texts)) for texts in cells]
    # Columns keep their width while others can give way; where that is not enough, all fold.
    kept = [w for w, column in zip(widths, columns, strict=True) if not column.fold]
    gives_way = sum(kept) + 3 * len(columns) < console.width and len(kept) < len(columns)
    folds = [column.fold or not gives_way for column in columns]
    widths = narrowed(widths, folds, console.width)
    right = [_numeric(present) for present in values]
    heading, *lines = (_row_text(texts, widths, right) for texts in zip(*cells, strict=True))
    plain = bool(os.environ.get("NO_COLOR"))
    # Captured: rich would end the process itself where nobody reads any more.
    with console.capture() as above:
        if title:
            console.print(Text(title, style="" if plain else "italic"))
        console.print(Text(heading, style="" if plain else "bold"), soft_wrap=True)
    write(above.get().rstrip("\n"))
    write("─" * (sum(widths) + 3 * (len(widths) - 1)))
    write("\n".join(lines))


def narrowed(widths: Sequence[int], folds: Sequence[bool], room: int) -> list[int]:
    """Widths of columns, those that fold made narrower until all of them fit."""
    fitted = list(widths)
    gives = [i for i, fold in enumerate(folds) if fold]
    while gives and sum(fitted) + 3 * (len(fitted) - 1) > room:
        widest = max(gives, key=lambda i: fitted[i])
        if fitted[widest] == 1:
            break
        fitted[widest] -= 1
    return fitted


def _row_text(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """A row of a table, on as many lines as its folded cells need."""
    from rich.cells import cell_len

    parts = [_folded(text, width) for text, width in zip(texts, widths, strict=True)]
    lines = []
    for pieces in itertools.zip_longest(*parts, fillvalue=""):
        line = []
        for text, width, number_like in zip(pieces, widths, right, strict=True):
            space = " " * (width - cell_len(text))
            line.append(space + text if number_like else text + space)
        lines.append("   ".join(line).rstrip())
    return "\n".join(lines)


def _folded(text: str, width: int) -> list[str]:
    """Pieces of a text no wider than ``width``, cut behind a slash or a space where there is one."""
    from rich.cells import cell_len, chop_cells

    pieces = []
    while cell_len(text) > width:
        head = chop_cells(text, width)[0]
        cut = max(head.rfind("/"), head.rfind(" ")) + 1 or len(head)
        pieces.append(text[:cut].rstrip())
        text = text[cut:]
    return [*pieces, text]


def _numeric(values: Iterable[Any]) -> bool:
    """Tell whether a column holds numbers, which stand right-aligned."""
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(_plain(value), int | float | None) and not isinstance(value, bool)
        for value in present
    )


def _cell(value: Any, column: Column) -> str:
    value = _plain(value)
    if value is None:
        return "-"
    if column.text is not None:
        return column.text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            f"{value:.{column.digits}f}"
            if 1e-3 <= abs(value) < 1e6 or value == 0
            else f"{value:.2e}"
        )
    if isinstance(value, list):
        return ", ".join(_cell(inner, column) for inner in value)
    return one_line(str(value))
