"""Sentences that state a figure say what their table says."""

from __future__ import annotations

import pytest

from benchmarks.audit import sentences


def test_sentences_say_what_their_tables_say() -> None:
    assert sentences.wrong() == []


@pytest.mark.parametrize("page", sentences.pages())
def test_every_figure_in_prose_is_accounted_for(page: str) -> None:
    """A new one is added to `benchmarks/audit/sentences.py`, with its table, or as a setting."""
    assert sentences.unlisted(page) == []


def test_a_wrong_figure_and_a_new_one_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sentences.prose
    told = {"README.md": "is better by .123 on 17 % of images. `--x 0.5` and 20 % are settings."}
    monkeypatch.setattr(sentences, "prose", lambda page: told.get(page) or real(page))
    monkeypatch.setitem(sentences.SETTINGS, "README.md", ("20 %",))
    assert sentences.unlisted("README.md") == [".123", "17 %"]
    assert any(line.startswith("README.md: states None") for line in sentences.wrong())
