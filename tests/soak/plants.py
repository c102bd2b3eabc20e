"""Faults that are planted in the processes of a chaos run: each must be found, or the run would find nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from studies.database import fences, rounds, tokens
from studies.database.artifacts import Artifacts
from studies.database.claims import Claims
from studies.search import search


def _token() -> None:
    """Whether a study is still the one that was read is not looked at."""
    fences.gone = lambda connection, studies, lock=None: []


def _epoch() -> None:
    """Whether a claim was taken by somebody else is not looked at."""
    tokens.refuse_taken = lambda connection, claim: None


def _all() -> None:
    """Nothing is looked at: studies, claims, states of trials, nor who works on what is to be deleted."""
    _token()
    _epoch()
    rounds.expect = lambda connection, expected, state: None
    there: Any = Claims
    there.all = lambda self, wanted, **named: nullcontext()


def _settings() -> None:
    """Studies of other settings are gone on with."""
    there: Any = search
    there.refuse = lambda *given: None


def _hashes() -> None:
    """Kept files are believed."""
    there: Any = Artifacts
    there.verify = lambda self, artifact_id, identity: None


PLANTS: dict[str, Callable[[], None]] = {
    "fences": _all,
    "token": _token,
    "epoch": _epoch,
    "settings": _settings,
    "hashes": _hashes,
}
