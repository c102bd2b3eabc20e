"""What a heatmap was made from, kept beside it: what its scores are over, and from which test responses they are.

Scores that differ because the responses do say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.fingerprint import array_digest
from tuner.atomic import write_bytes

if TYPE_CHECKING:
    from tuner.figures.captions import Basis
    from tuner.recordings import Recording

RECORD = "heatmap.json"
"""Beside ``heatmap.csv``: ``test_responses``, their digest, null without a test set; ``scores``, what each is over."""


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


def remember(
    folder: Path, recording: Recording, rows: Sequence[Mapping[str, Any]], basis: Basis
) -> None:
    """Write down what the heatmap of a folder was made from."""
    from tuner.figures import captions
    from tuner.figures.metrics import METRICS, number

    over = {
        metric.name: captions.scores(rows, metric, basis)
        for metric in METRICS.values()
        if any(math.isfinite(number(row.get(metric.name))) for row in rows)
    }
    record = {
        "simulated": recording.simulated,
        "scores": over,
        "test_responses": _digest(recording),
    }
    write_bytes(folder / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _digest(recording: Recording) -> str | None:
    responses = recording.test_responses
    return None if responses is None else array_digest(responses)
