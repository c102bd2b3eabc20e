"""What kills and copies leave behind: found, and on request mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.database import rounds, trials, weights
from studies.database.stores import Stores
from studies.database.studies import Stored, set_aside, stored_studies
from studies.fingerprint import difference
from studies.workspace import Workspace
from tuner.errors import InputError

if TYPE_CHECKING:
    from tuner.features.cache import FeatureCache
    from tuner.features.cache import Stored as CacheEntry

_AGE = 3600.0
"""Seconds after which a file that no row names is no longer one that is just being written."""


@dataclass(frozen=True)
class Finding:
    """Something amiss.

    Attributes
    ----------
    what
        One line that says it.
    mend
        What mends it; None where only a person can.
    remedy
        What ``--fix`` does, or what a person can do.
    """

    what: str
    remedy: str
    mend: Callable[[], None] | None = None


def examine(workspace: Workspace, stores: Stores) -> list[Finding]:
    """Look for everything that can be found; changes nothing."""
    stored = stored_studies(stores.storage)
    return [
        *_orphans(stores, list(stored.values())),
        *_set_aside(stores, list(stored.values())),
        *_missing_files(stores, list(stored.values())),
        *_stray_files(stores),
        *_cache(workspace),
        *_fingerprints(workspace, stored),
    ]


def _orphans(stores: Stores, studies: list[Stored]) -> list[Finding]:
    running = trials.running(stores.storage)
    findings = []
    for study in studies:
        if study.study_id not in running or stores.claims.held(study.claim):
            continue

        def mend(study: Stored = study) -> None:
            with stores.claims.claim(study.claim) as mine:
                if mine:
                    rounds.requeue(stores.storage, [study.study_id], "mending")

        findings.append(
            Finding(
                f"study {study.name}: {running[study.study_id]} trials are RUNNING and nobody "
                "works on them",
                "put back to WAITING; the next 'tuner optimize' does the same",
                mend,
            )
        )
    return findings


def _set_aside(stores: Stores, studies: list[Stored]) -> list[Finding]:
    return [
        Finding(
            f"study {study.name}: set aside: {study.set_aside}",
            "take it up again",
            partial(set_aside, stores.storage, study.study_id, None),
        )
        for study in studies
        if study.set_aside is not None
    ]


def _missing_files(stores: Stores, studies: list[Stored]) -> list[Finding]:
    names = {study.study_id: study.name for study in studies}
    findings = []
    for file in weights.all_files(stores.storage):
        problem = None
        try:
            stores.artifacts.read_tensors(file.artifact_id)
        except InputError as error:
            problem = str(error).split(";")[0]
        if file.study_id not in names:
            problem = f"weights {file.artifact_id} belong to no study"
        if problem is None:
            continue
        which = "its units" if file.trial_number is None else f"trial {file.trial_number}"
        findings.append(
            Finding(
                f"study {names.get(file.study_id, file.study_id)}, weights of {which}: {problem}",
                "forget the file (its trial keeps its value); or restore storage.artifacts from a "
                "copy first",
                partial(weights.forget, stores.storage, file),
            )
        )
    return findings


def _stray_files(stores: Stores) -> list[Finding]:
    """Files in ``storage.artifacts`` that no row names: written by a process that was killed before it told."""
    folder = stores.artifacts.folder
    if not folder.is_dir():
        return []
    known = weights.named_files(stores.storage)
    old = time.time() - _AGE
    return [
        Finding(
            f"{path}: no trial has this file",
            "delete it",
            partial(path.unlink, missing_ok=True),
        )
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in known and _ours(path) and path.stat().st_mtime < old
    ]


def _ours(path: Path) -> bool:
    """Names of files that this program writes there: 32 hexadecimal digits, or a part of one."""
    stem = path.name.lstrip(".").split(".")[0]
    return len(stem) == 32 and all(c in "0123456789abcdef" for c in stem)


def _cache(workspace: Workspace) -> list[Finding]:
    cache = workspace.cache
    findings = []
    for entry in cache.entries():
        problem = "half written" if entry.partial else cache.verify(entry.key)
        if problem is None:
            continue
        findings.append(
            Finding(
                f"feature cache entry {entry.key}: {problem}",
                "delete it; it is extracted again when it is needed",
                partial(_remove, cache, entry),
            )
        )
    return findings


def _remove(cache: FeatureCache, entry: CacheEntry) -> None:
    cache.remove(entry.key, partial=entry.partial)


def _fingerprints(workspace: Workspace, stored: dict[str, Stored]) -> list[Finding]:
    findings = []
    by_key: dict[str, list[str]] = {}
    for spec in workspace.grid:
        if spec.name in stored:
            key = difference(stored[spec.name].fingerprint, workspace.fingerprint(spec))
            if key is not None:
                by_key.setdefault(key, []).append(spec.name)
    for key, names in by_key.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        findings.append(
            Finding(
                f"{workspace.experiment.file}: {key} differs from what study {names[0]}{more} was "
                "created with",
                "set it back, or start anew with 'tuner study create --force'",
            )
        )
    extra = [name for name in stored if name not in {spec.name for spec in workspace.grid}]
    if extra:
        findings.append(
            Finding(
                f"{len(extra)} studies in the database are not in the config file's grid, such as "
                f"{extra[0]}",
                "fine if they are meant to rest; 'tuner study delete' removes them",
            )
        )
    return findings
