"""The fused steps of the readouts in C, compiled on first use where there is a compiler, and kept in the user's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

from tuner.errors import EnvironmentFailure
from tuner.readouts.native import cache

_log = logging.getLogger("tuner")

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


_FUNCTIONS = tuple(
    f"{kind}_{what}" for kind in ("full", "factorized") for what in ("packed", "pack", "step")
)

_REMEDY = "mend this compiler, or name another: CC=clang tuner ..."


def compiler() -> str | None:
    """The C compiler that would be used: ``$CC``, or cc, gcc or clang."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


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
        If there is no compiler, it fails, or what it makes cannot be loaded.
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
    stem = f"steps-{hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()}"
    folder = cache.private_folder()
    if folder is None:  # none that is only ours: compile for this process alone
        with tempfile.TemporaryDirectory(
            prefix="cortex-tuner-", ignore_cleanup_errors=True
        ) as name:
            return _declared(ctypes.CDLL(str(_built(cc, sources, Path(name), stem))))
    target = cache.find(folder, stem)
    if target is None:
        with FileLock(folder / f"{stem}.lock", mode=0o600):
            target = cache.find(folder, stem) or _built(cc, sources, folder, stem)
    return _declared(ctypes.CDLL(str(target)))


def usable() -> bool:
    """Whether the fused steps can be compiled and loaded on this machine."""
    if compiler() is None:
        return False
    try:
        library()
    except EnvironmentFailure as error:
        _log.warning("%s; readouts are trained by tensor operations meanwhile", error)
        return False
    return True


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions take and return."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    for kind in ("full", "factorized"):
        packed, pack = getattr(loaded, f"{kind}_packed"), getattr(loaded, f"{kind}_pack")
        packed.restype, packed.argtypes = number, [number] * 3
        pack.restype, pack.argtypes = None, [number] * 3 + [pointer] * 2
    loaded.full_step.restype = ctypes.c_int
    loaded.full_step.argtypes = [number] * 5 + [pointer] * 8
    loaded.factorized_step.restype = ctypes.c_int
    loaded.factorized_step.argtypes = [number] * 4 + [pointer] * 11 + [ctypes.c_int]
    return loaded


def _built(cc: str, sources: list[Path], folder: Path, stem: str) -> Path:
    """Compile with OpenMP, and where that cannot be had without it; what does not load in another process is refused."""
    said = ""
    with tempfile.TemporaryDirectory(
        prefix=".building-", dir=folder, ignore_cleanup_errors=True
    ) as aside:
        made = Path(aside) / "steps.so"
        for threads in (["-fopenmp", *_openmp()], []):
            command = [cc, *_FLAGS, *map(str, sources), *threads, "-lm", "-o", str(made)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise EnvironmentFailure(f"{cc}: cannot be run: {error}; {_REMEDY}") from error
            if done.returncode != 0:
                said = " ".join(done.stderr.split())[-300:]
                continue
            wrong = cache.tried(made, _FUNCTIONS)
            if wrong is None:
                return cache.keep(made, folder, stem)
            said = f"what it makes cannot be loaded: {wrong}"
    raise EnvironmentFailure(f"{cc}: cannot compile the fused steps: {said}; {_REMEDY}")
