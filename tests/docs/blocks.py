"""The code in a page of the documentation, and how each kind of it is run."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

SHORTER = {
    '["_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10"]': '["_blocks.0", "_blocks.2"]',
    "steps = 300": "steps = 20",
    "report_every = 30": "report_every = 10",
    "--n-trials 16": "--n-trials 8",
    "export mei -o": "export mei --steps 3 -o",
    "stimuli export -o": "stimuli export --steps 3 -o",
}
"""What is made smaller, so that the tests take seconds: fewer layers, and less training."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if path.exists())


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(str(path.relative_to(ROOT)), line, found[1], found[2])


def shortened(text: str) -> str:
    """Train for less long; with ``--from`` the manifest says how many steps there are."""
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return re.sub(r" --steps 3(?=[^\n]* --from )", "", text)


@dataclass(frozen=True)
class Typed:
    """A command of a console block, what it is shown to print, and the exit code it is shown to have."""

    words: list[str]
    shown: str
    code: int


def typed(block: Block) -> list[Typed]:
    """The commands of a console block; lines that begin with ``$ tuner``."""
    out = []
    text = re.sub(r"\\\n\s*", "", block.text)  # a command that is broken goes on below
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, _, shown = part.partition("\n")
        command, _, note = first.partition("  # exit ")
        words = shlex.split(shortened(command))
        assert words[0] == "tuner", f"{block.where}: only tuner is typed in console blocks"
        out.append(Typed(words[1:], shown, int(note or 0)))
    return out


def run_console(block: Block, main: Callable[[list[str]], int]) -> None:
    """Type every command of a block and compare what is printed with what is shown."""
    for command in typed(block):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(command.words)
        said = f"{block.where}: tuner {shlex.join(command.words)}\n{out.getvalue()}{err.getvalue()}"
        assert code == command.code, said
        printed = err.getvalue() if command.code else out.getvalue()
        if command.shown.strip():
            same = doctest.OutputChecker().check_output(command.shown, printed, FLAGS)
            assert same, f"{said}\nshown:\n{command.shown}"
