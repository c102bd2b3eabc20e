from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.docs.blocks import ROOT, blocks, run_console, shortened

EXAMPLES = ROOT / "docs" / "examples"
Main = Callable[[list[str]], int]


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in a folder, with the examples importable, on one thread."""
    before, threads, path = Path.cwd(), torch.get_num_threads(), list(sys.path)
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
        sys.path[:] = path


def write_recording(folder: Path) -> dict[str, object]:
    """Run the script that the pages show; returns its variables."""
    with within(folder):
        return runpy.run_path(str(EXAMPLES / "write_recording.py"))


@pytest.fixture(scope="session")
def main() -> Main:
    from cli.main import main

    return main


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory, main: Main) -> Path:
    """The folder of somebody who did what the README says, with less training."""
    folder = tmp_path_factory.mktemp("mine")
    write_recording(folder)
    with within(folder):
        for block in blocks(ROOT / "README.md"):
            if block.language == "toml":
                (folder / "tuner.toml").write_text(shortened(block.text))
            elif block.language == "console":
                run_console(block, main)
    return folder
