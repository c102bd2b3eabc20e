"""Examples in docstrings are run, in the folder of an experiment that was searched and exported."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.blocks import FLAGS, ROOT
from tests.docs.conftest import within


def modules() -> list[str]:
    """Modules of ours with an example in them."""
    found = []
    for package in ("tuner", "studies", "cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(name.removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules())
def test_examples(name: str, experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with within(experiment):
        failed, tried = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert tried > 0
    assert failed == 0, capsys.readouterr().out
