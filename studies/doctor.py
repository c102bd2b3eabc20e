"""What kills and copies leave behind: found, and on request mended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.config.ranges import CLOSED_FORM
from studies.database import ghosts, ownership, rounds, trials, weights
from studies.database.artifacts import UnreadableWeights
from studies.database.stores import Stores
from studies.database.studies import Stored, stored_studies, take_up
from studies.fingerprint import difference
from studies.search import best_weights
from studies.workspace import Workspace

if TYPE_CHECKING:
    from tuner.features.cache import FeatureCache, Listed

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
        What mends it, and says whether it did: what a search works on is left to it. None where only a person can.
    remedy
        What ``--fix`` does, or what a person can do.
    """

    what: str
    remedy: str
    mend: Callable[[], bool] | None = None


def examine(workspace: Workspace, stores: Stores) -> list[Finding]:
    """Look for everything that can be found; changes nothing."""
    stored = stored_studies(stores.storage)
    return [
        *_ghosts(stores),
        *_orphans(stores, list(stored.values())),
        *_set_aside(stores, list(stored.values())),
        *_unreadable_weights(stores, stored),
        *_stray_files(stores, list(stored.values())),
        *_cache(workspace),
        *_fingerprints(workspace, stored),
    ]


def _ghosts(stores: Stores) -> list[Finding]:
    def mend(token: str) -> bool:
        ghosts.forget(stores.storage, stores.artifacts, {token})
        return True

    return [
        Finding(
            f"study {ghost.name}: deleted through optuna's own tools; {len(ghost.files)} kept files "
            "of it are left",
            "forget it, and delete these files; 'tuner study create' makes it anew",
            partial(mend, ghost.token),
        )
        for ghost in ghosts.ghosts(stores.storage)
    ]


def _orphans(stores: Stores, studies: list[Stored]) -> list[Finding]:
    running = trials.running(stores.storage)
    findings = []
    for study in studies:
        if study.study_id not in running or stores.claims.held(study.claim):
            continue

        def mend(study: Stored = study) -> bool:
            with stores.claims.claim(study.claim) as mine:
                if mine:
                    rounds.requeue(stores.storage, [study], "mending")
                return mine

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
            partial(_take_up, stores, study),
        )
        for study in studies
        if study.set_aside is not None
    ]


def _take_up(stores: Stores, study: Stored) -> bool:
    take_up(stores.storage, study)
    return True


def _unreadable_weights(stores: Stores, stored: Mapping[str, Stored]) -> list[Finding]:
    """Kept weights that are missing or are not those that were written."""
    findings = []
    for file in weights.all_files(stores.storage):
        study = stored.get(file.study or "")
        if study is None and file.study is not None:
            continue  # a ghost's, see above
        if study is None:
            problem, remedy = f"weights {file.artifact_id} belong to no study", "forget the file"
        else:
            try:
                file.read(stores.artifacts)
                continue
            except UnreadableWeights as error:
                problem = str(error).split(";")[0]
            if not weights.is_named(stores.storage, file):
                continue  # a search replaced it by better ones just now
            remedy = (
                "put its trials back; the next 'tuner optimize' fits it again"
                if study.key.readout == CLOSED_FORM
                else "made anew of the trials whose weights are kept"
                if file.trial_number is None
                else "put the trial back; the next 'tuner optimize' runs it again"
            )
        which = "its units" if file.trial_number is None else f"trial {file.trial_number}"
        findings.append(
            Finding(
                f"study {file.study or file.study_id}, weights of {which}: {problem}",
                f"{remedy}; or restore storage.artifacts from a copy first",
                partial(_mend_weights, stores, study, file),
            )
        )
    # The best of every unit is made of the trials that are left.
    return sorted(findings, key=lambda finding: "weights of its units" in finding.what)


def _mend_weights(stores: Stores, study: Stored | None, file: weights.KeptFile) -> bool:
    if study is None:
        rounds.forget(stores.storage, file)
        return True
    with stores.claims.claim(study.claim) as mine:
        if not mine:
            return False
        if not weights.is_named(stores.storage, file):
            return True
        if study.key.readout == CLOSED_FORM:
            stores.artifacts.set_aside(file.artifact_id)
            rounds.run_again(stores.storage, study, file, whole_study=True)
        elif file.trial_number is None:
            loaded = trials.load(stores.storage, [study.study_id], curves=False)
            values = {t.number: t.value or 0.0 for t in loaded[study.study_id]}
            best_weights.mend_units(stores.storage, stores.artifacts, study, values)
        else:
            stores.artifacts.set_aside(file.artifact_id)
            rounds.run_again(stores.storage, study, file)
        return True


def _stray_files(stores: Stores, studies: list[Stored]) -> list[Finding]:
    """Files in ``storage.artifacts`` that no row names: written by a process that was killed before it told."""
    folder = stores.artifacts.folder
    if not folder.is_dir():
        return []
    known = weights.named_files(stores.storage)
    old = time.time() - _AGE
    strays = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.name not in known
        and ownership.is_file_name(path.name)
        and path.stat().st_mtime < old
    ]
    found = ownership.found_there(stores.storage, folder)
    return [
        Finding(
            f"{path}: no trial has this file", "delete it", partial(_delete, stores, studies, path)
        )
        if found is not None and path.name not in found
        else Finding(
            f"{path}: no trial has this file",
            "delete it if no other database has it; it may not be this one's",
        )
        for path in strays
    ]


def _delete(stores: Stores, studies: list[Stored], path: Path) -> bool:
    """Delete a file that nobody names, unless a search runs: it may be about to name it."""
    claims = {study.claim for study in studies}
    if any(stores.claims.held(claim) for claim in claims):
        return False
    if path.name not in weights.named_files(stores.storage):
        path.unlink(missing_ok=True)
    return True


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


def _remove(cache: FeatureCache, entry: Listed) -> bool:
    return cache.remove(entry.key, partial=entry.partial)


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
