"""Which test responses a heatmap was made from, kept beside it: scores that differ for that reason say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from studies.fingerprint import array_digest
from tuner.atomic import write_bytes

if TYPE_CHECKING:
    from tuner.recordings import Recording

RECORD = "heatmap.json"
"""Beside ``heatmap.csv``: ``test_responses``, their digest, null without a test set."""


def changed(folder: Path, recording: Recording) -> str | None:
    """What to say of a folder whose last heatmap was made from other test responses; None where there is nothing.

    A folder without a heatmap, or without a readable record, has nothing to be compared with.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        before = record["test_responses"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if before == _digest(recording) or not (folder / "heatmap.csv").is_file():
        return None
    return (
        f"{folder / 'heatmap.csv'}: the last one was made from other test responses than {recording.source} has now; "
        "test scores and ceilings differ for that reason"
    )


def remember(folder: Path, recording: Recording) -> None:
    """Write down from which test responses the heatmap of a folder was made."""
    record = json.dumps({"test_responses": _digest(recording)}) + "\n"
    write_bytes(folder / RECORD, record.encode())


def _digest(recording: Recording) -> str | None:
    responses = recording.test_responses
    return None if responses is None else array_digest(responses)
