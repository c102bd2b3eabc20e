"""The fused steps of the readouts in C, compiled on first use where there is a compiler, and kept in the user's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

from tuner.atomic import replacing
from tuner.errors import EnvironmentFailure

_SOURCES = ("full_step.c", "factorized_step.c")

# Sums are not reordered, and NaN and infinity keep their meaning.
_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)


_REMEDY = "mend this compiler, or name another: CC=clang tuner ..."


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
    """Compile (once for this machine) and load the fused steps.

    Raises
    ------
    EnvironmentFailure
        If there is no compiler or it fails.
    """
    here = Path(__file__).parent
    sources = [here / name for name in _SOURCES]
    cc = compiler()
    if cc is None:
        raise EnvironmentFailure(
            "studies were created to run with compiled code and there is no C compiler here; "
            "install gcc or clang"
        )
    text = [path.read_text(encoding="utf-8") for path in [*sources, here / "vectors.h"]]
    identity = "\n".join([*text, *_FLAGS, *_openmp(), cc, platform.platform(), _processor()])
    name = f"steps-{hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()}.so"
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
                _compile(cc, sources, target)
    loaded = ctypes.CDLL(str(target))
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    for kind in ("full", "factorized"):
        packed, pack = getattr(loaded, f"{kind}_packed"), getattr(loaded, f"{kind}_pack")
        packed.restype, packed.argtypes = number, [number] * 3
        pack.restype, pack.argtypes = None, [number] * 3 + [pointer] * 2
    loaded.full_turn.restype = ctypes.c_int
    loaded.full_turn.argtypes = [number] * 5 + [pointer] * 8
    loaded.factorized_turn.restype = ctypes.c_int
    loaded.factorized_turn.argtypes = [number] * 4 + [pointer] * 11 + [ctypes.c_int]
    return loaded


def _compile(cc: str, sources: list[Path], target: Path) -> None:
    """Compile with OpenMP, and where that cannot be had without it."""
    with replacing(target) as partial:
        for threads in (["-fopenmp", *_openmp()], []):
            command = [cc, *_FLAGS, *map(str, sources), *threads, "-lm", "-o", str(partial)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise EnvironmentFailure(f"{cc}: cannot be run: {error}; {_REMEDY}") from error
            if done.returncode == 0:
                return
        last = " ".join(done.stderr.split())[-300:]
        raise EnvironmentFailure(f"{cc}: cannot compile the fused steps: {last}; {_REMEDY}")
