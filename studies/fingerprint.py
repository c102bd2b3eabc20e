"""What a study's results depend on, stored with it and compared before anything is added to it or read from it.

Free to change: device, memory, cache limit, number of trials, and which other studies there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.config.experiment import Experiment
from studies.config.ranges import plain_space
from studies.earlier import completed
from studies.grid import Spec
from tuner.errors import InputError

Fingerprint = dict[str, Any]

_ONLY_SEARCHED = (
    "training.steps",
    "training.batch_size",
    "training.report_every",
    "training.center",
    "training.size_invariant",
    "search.sampler",
    "search.proposals",
    "search.pruner",
    "search.rungs",
    "search.parallel_trials",
    "search.warm_start",
    "search.seed",
)
"""Keys that a closed form, which takes no steps and draws nothing, does not depend on."""

_REMEDY = {
    "data.responses": "restore the recording",
    "data.images": "restore the images",
    "data.split": "restore the recording, data.seed and data.validation_fraction",
    "backbone.weights": "set backbone.weights back or restore its file",
}


def array_digest(*arrays: NDArray[Any]) -> str:
    """Hash of arrays: type, shape and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def fingerprint(
    experiment: Experiment,
    spec: Spec,
    *,
    responses: str,
    images: str,
    split: str,
    weights: str,
    max_grid: int,
    tokens: str,
    rectify: str | bool,
    precision: str,
    folds: int,
    start: str,
) -> Fingerprint:
    """Everything that changes a study's results, by the key a person would change.

    Parameters
    ----------
    responses
        Digest of the units and their training responses.
    images
        Digest of the prepared training images.
    split
        Digest of the cut into fit and validation images, or into folds.
    weights
        Digest of the backbone.
    max_grid
        The backbone's pooling limit.
    tokens, rectify
        What becomes of its tokens, and of values below 0.
    precision
        What it computes in.
    folds
        How many folds ``training.folds`` comes to.
    start
        What ``training.start`` comes to.
    """
    data, training, search = experiment.data, experiment.training, experiment.search
    # What a person writes comes before what follows from it: the first difference is the one that is named.
    everything = {
        "data.responses": responses,
        "data.image_size": data.image_size,
        "data.fit": data.fit,
        "data.images": images,
        "data.duplicates": data.duplicates,
        "training.folds": folds,
        "data.split": split,
        # before the digest, which depends on them too and would say less
        "backbone.tokens": tokens,
        "backbone.precision": precision,
        "backbone.weights": weights,
        "backbone.layers": spec.key.layer,
        "backbone.max_grid": max_grid,
        "backbone.rectify": rectify,
        "training.start": start,
        "training.relative": training.relative,
        "training.steps": training.steps,
        "training.batch_size": training.batch_size,
        "training.report_every": training.report_every,
        "training.loss": training.loss,
        "training.center": training.center,
        "training.size_invariant": training.size_invariant,
        "search.sampler": search.sampler,
        "search.proposals": search.proposals,
        "search.pruner": search.pruner,
        "search.rungs": search.rungs,
        "search.parallel_trials": search.parallel_trials,
        "search.warm_start": search.warm_start,
        "search.seed": search.seed,
        f"search.space.{spec.key.readout}": plain_space(spec.space),
    }
    if spec.closed_form:
        return {key: value for key, value in everything.items() if key not in _ONLY_SEARCHED}
    return everything


def difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """First key in which two fingerprints differ, or None; one without a key was made before there was the key."""
    normal = completed(json.loads(json.dumps(now)))
    stored = completed(stored)
    for key in [*normal, *(key for key in stored if key not in normal)]:
        if stored.get(key) != normal.get(key):
            return str(key)
    return None


def refuse(config: object, study: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a study that was made with other settings.

    Raises
    ------
    InputError
        Naming the key, what it was and what it is.
    """
    key = difference(stored, now)
    if key is None:
        return
    was, is_ = _shown(completed(stored).get(key)), _shown(now.get(key))
    remedy = _REMEDY.get(key, "set it back")
    raise InputError(
        f"{config}: {key} is {is_} but study {study} was created with {was}; {remedy}, or start it "
        "anew with 'tuner study create --force' (its trials are deleted), or use another storage.url"
    )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
