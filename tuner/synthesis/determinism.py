"""Same seed, same machine: same bytes. What has to be switched for that, and what cannot be."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch


@contextmanager
def deterministic(device: torch.device) -> Iterator[set[str]]:
    """Run with deterministic algorithms; yields the names of operations that have none.

    On a CPU nothing needs switching. On CUDA convolutions are pinned and TF32 is off; an operation
    that exists only in a non-deterministic form is run all the same, and named.
    """
    missing: set[str] = set()
    if device.type != "cuda":
        yield missing
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield missing
        for warning in caught:
            name = re.match(r"(\S+) does not have a deterministic", str(warning.message))
            if name:
                missing.add(name.group(1))
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what else bytes depend on: versions, machine, threads."""
    names = ("torch", "numpy", "pillow", "torch-lucent", "kornia", "cortex-tuner")
    return {
        "versions": {"python": platform.python_version(), **{n: _version(n) for n in names}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
