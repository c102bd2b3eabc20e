"""What fits on other cuts came to, kept beside the features: the report need not make again what the heatmap made."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from studies.database.summaries import Summary
from studies.grid import Spec
from studies.workspace import Workspace
from tuner.atomic import write_bytes

VERSION = 1
"""Of how fits on other cuts are made and compared; a change of either gets another one."""


def kept_at(workspace: Workspace, ready: Iterable[tuple[Spec, Summary]], cuts: int) -> Path:
    """File of the comparison of these studies: named after all that it depends on but which fits failed.

    Parameters
    ----------
    ready
        The studies and their trials.
    cuts
        Number of further cuts.
    """
    about: dict[str, Any] = {
        "version": VERSION,
        "cuts": cuts,
        "intervals": workspace.experiment.data.intervals,
        "studies": [
            [spec.name, item.study.fingerprint, item.best.params, item.loss]
            for spec, item in ready
            if item.best is not None
        ],
    }
    text = json.dumps(about, sort_keys=True, default=str)
    name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return workspace.experiment.storage.cache / "other_cuts" / f"{name}.json"


def read_kept(path: Path, failed: Collection[str]) -> list[dict[str, Any]] | None:
    """Rows that were kept, if the same fits had failed; None where there are none, or the file is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows, text = found["rows"], json.dumps(found["rows"])
        if found["check"] != _check(text) or found["failed"] != sorted(failed):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return list(rows)


def keep(path: Path, failed: Collection[str], rows: list[dict[str, Any]]) -> None:
    """Keep rows."""
    whole = {"failed": sorted(failed), "rows": rows, "check": _check(json.dumps(rows))}
    with contextlib.suppress(OSError):  # no room, or not to be written to: made anew next time
        write_bytes(path, json.dumps(whole).encode())


def _check(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
