"""The sweep over timm's families finds small members, and tells what works from what is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

from benchmarks.families import attempt, page, smallest


def test_the_smallest_member_is_found_by_its_parameters() -> None:
    assert smallest(["resnet50", "test_resnet", "resnet18"]) == "test_resnet"


def test_what_works_and_what_is_refused_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    works = attempt("vision_transformer", "test_vit")
    assert (works.size, works.said) == (64, "")
    assert works.layers > 3
    monkeypatch.setattr("benchmarks.families.SIZES", (63,))  # no multiple of its patches
    monkeypatch.setattr(
        "tuner.backbones.timm_models.TimmModels.canonical", lambda *_: (), raising=True
    )
    refused = attempt("vision_transformer", "test_vit")
    assert refused.refused
    assert refused.layers == 0
    text = page([works, refused])
    assert "works for 1 of 2 families" in text
    assert "choose another network" in text
