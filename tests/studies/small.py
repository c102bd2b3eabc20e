"""An experiment that is searched in a second: few images, a small network, two regions, two layers, both readouts."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

IMAGES, TEST, REPEATS, SIZE = 120, 12, 4, 32
REGIONS = {"V1": 3, "IT": 2}

DOCUMENT: dict[str, Any] = {
    "data": {"path": "recording.h5", "image_size": SIZE, "validation_fraction": 0.25},
    "backbone": [
        {"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2", "_blocks.4"]}
    ],
    "training": {"steps": 20, "batch_size": 20, "report_every": 2, "folds": 1, "device": "cpu"},
    "search": {
        "parallel_trials": 4,
        "keep": 2,
        "rungs": "reports",
        "space": {"full": {}, "factorized": {}},
    },
    "storage": {},
}
"""Fastened to the CPU, so that two machines with and without an accelerator run the same; cut late, so that of few trials
several go to their end."""


def write_recording(path: Path, *, seed: int = 0, units: Mapping[str, int] = REGIONS) -> Path:
    """Write a recording whose units answer to colour and coarse structure, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (IMAGES + TEST, 4, 4, 3)).repeat(SIZE // 4, 1)
    images = coarse.repeat(SIZE // 4, 2).astype(np.uint8)
    flat = coarse.reshape(len(coarse), -1)[:, ::97] / 255.0
    areas = [area for area, count in units.items() for _ in range(count)]
    clean = (flat - flat.mean(0)) @ rng.standard_normal((flat.shape[1], len(areas)))
    noisy = clean + 0.3 * rng.standard_normal(clean.shape)
    with h5py.File(path, "w") as file:
        file["train/images"] = images[:IMAGES]
        file["train/responses"] = noisy[:IMAGES].astype(np.float32)
        file["test/images"] = images[IMAGES:]
        file["test/responses"] = (
            clean[IMAGES:] + 0.3 * rng.standard_normal((REPEATS, TEST, len(areas)))
        ).astype(np.float32)
        file["units/area"] = np.array(areas, dtype=h5py.string_dtype())
    return path


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of one document laid over those of another."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def toml(document: Mapping[str, Any]) -> str:
    """Write a document of tables and plain values."""
    lines: list[str] = []

    def value(item: Any) -> str:
        if isinstance(item, Mapping):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in item.items()) + " }"
        if isinstance(item, list | tuple):
            return "[" + ", ".join(map(value, item)) + "]"
        if isinstance(item, bool):
            return str(item).lower()
        return f'"{item}"' if isinstance(item, str | Path) else repr(item)

    for table, content in document.items():
        for one in content if isinstance(content, list) else [content]:
            lines.append(f"[[{table}]]" if isinstance(content, list) else f"[{table}]")
            lines += [f"{key} = {value(item)}" for key, item in one.items()]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def write_experiment(folder: Path, shared: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a config file whose recording and feature cache lie in `shared`, made there if need be.

    Returns
    -------
    Path
        The config file.
    """
    shared.mkdir(parents=True, exist_ok=True)
    recording = shared / "recording.h5"
    if not recording.exists():
        write_recording(recording)
    document = merged(
        DOCUMENT,
        {"data": {"path": str(recording)}, "storage": {"cache": str(shared / "cache")}},
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tuner.toml"
    file.write_text(toml(merged(document, changes or {})))
    return file


def file_digest(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
