"""The fused step of the full readout in C, compiled on first use where there is a compiler, and kept in the user's cache.

A CPU's memory is what limits a step; one pass over the weights is several times faster than the same formulas as a chain
of tensor operations, each of which reads and writes them anew. On a GPU torch.compile does the same job.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from tuner.errors import EnvironmentFailure

FIELDS = 9
"""Numbers per column, in the order of the enumeration in ``full_step.c``."""

_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-fopenmp",
)
# Sums over a plane may be reordered, so that they use vectors; NaN and infinity keep their meaning.
_FLAGS_SUM = ("-fassociative-math", "-fno-signed-zeros")


def compiler() -> str | None:
    """The C compiler that would be used: ``$CC``, or cc, gcc or clang."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cortex-tuner"


def _processor() -> str:
    """What ``-march=native`` depends on: folders of users are shared between machines."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    lines = (line for line in text.splitlines() if line.startswith(wanted))
    return "\n".join(dict.fromkeys(lines))


def _openmp() -> list[str]:
    """Torch's own OpenMP runtime, so that both share one pool of threads."""
    folder = Path(torch.__file__).parent
    found = sorted([*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")])
    return [str(found[0])] if found else []


@functools.cache
def library() -> ctypes.CDLL:
    """Compile (once for this machine) and load the fused step.

    Raises
    ------
    EnvironmentFailure
        If there is no compiler or it fails.
    """
    source = (files("tuner.readouts") / "full_step.c").read_text(encoding="utf-8")
    cc = compiler()
    if cc is None:
        raise EnvironmentFailure(
            "studies were created to run with compiled code and there is no C compiler here; "
            "install gcc or clang"
        )
    command = [*_FLAGS, *_FLAGS_SUM]
    identity = "\n".join([source, *command, *_openmp(), cc, platform.platform(), _processor()])
    name = f"full_step-{hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()}.so"
    folder = _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if not usable:  # a home that cannot be written: compile for this process alone
        folder = Path(tempfile.mkdtemp(prefix="cortex-tuner-"))
    target = folder / name
    if not target.exists():
        with FileLock(folder / f"{name}.lock"):
            if not target.exists():
                _compile(cc, command, source, target)
    loaded = ctypes.CDLL(str(target))
    loaded.full_step.restype = ctypes.c_int
    loaded.full_step.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_void_p] * 5
    return loaded


def _compile(cc: str, flags: list[str], source: str, target: Path) -> None:
    temporary = target.with_suffix(f".{os.getpid()}.partial.so")
    command = [cc, *flags, "-x", "c", "-", "-x", "none", *_openmp(), "-lm", "-o", str(temporary)]
    try:
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EnvironmentFailure(f"{cc}: cannot be run: {error}") from error
    if done.returncode != 0:
        last = " ".join(done.stderr.split())[-300:]
        raise EnvironmentFailure(f"{cc}: cannot compile the fused step: {last}")
    temporary.replace(target)


def full_step(
    channels: int,
    height: int,
    width: int,
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    gradient: Tensor,
    column: Tensor,
) -> None:
    """One step in place on ``(K, C*h*w)`` float32 rows; ``column`` is ``(K, FIELDS)``."""
    for tensor in (weight, first, second, gradient, column):
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError("the fused step takes contiguous float32 tensors")
    failed = library().full_step(
        len(weight),
        channels,
        height,
        width,
        weight.data_ptr(),
        first.data_ptr(),
        second.data_ptr(),
        gradient.data_ptr(),
        column.data_ptr(),
    )
    if failed:
        raise MemoryError("no memory for the fused step")
