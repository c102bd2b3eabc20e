"""Tests that the documentation names are there."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT, pages

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_a_page_names_is_there() -> None:
    named = {match.groups() for page in pages() for match in NAMED.finditer(page.read_text())}
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), (file, test)
