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

# Sums are not reordered, and NaN and infinity keep their meaning.
_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)


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
    command = list(_FLAGS)
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
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.full_packed.restype = number
    loaded.full_packed.argtypes = [number] * 3
    loaded.full_pack.restype = None
    loaded.full_pack.argtypes = [number] * 3 + [pointer] * 2
    loaded.full_turn.restype = ctypes.c_int
    loaded.full_turn.argtypes = [number] * 5 + [pointer] * 8
    return loaded


def _compile(cc: str, flags: list[str], source: str, target: Path) -> None:
    """Compile with OpenMP, and where that cannot be had without it."""
    temporary = target.with_suffix(f".{os.getpid()}.partial.so")
    for threads in (["-fopenmp", "-x", "none", *_openmp()], []):
        command = [cc, *flags, "-x", "c", "-", *threads, "-lm", "-o", str(temporary)]
        try:
            done = subprocess.run(
                command, input=source, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise EnvironmentFailure(f"{cc}: cannot be run: {error}") from error
        if done.returncode == 0:
            temporary.replace(target)
            return
    last = " ".join(done.stderr.split())[-300:]
    raise EnvironmentFailure(f"{cc}: cannot compile the fused step: {last}")


class FullStep:
    """The fused step, bound to a feature shape.

    Parameters
    ----------
    channels, height, width
        Of the features.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self._shape = channels, height, width
        self._library = library()
        self._packed = [torch.empty(0), torch.empty(0)]

    def pack(self, x: Tensor) -> Tensor:
        """A feature batch ``(B, F)`` as :meth:`turn` reads it; valid until two more are packed."""
        _check(x)
        channels, height, width = self._shape
        sizes = channels, height * width, len(x)
        self._packed.reverse()
        size = self._library.full_packed(*sizes)
        if len(self._packed[0]) != size:
            self._packed[0] = torch.empty(size)
        self._library.full_pack(*sizes, x.data_ptr(), self._packed[0].data_ptr())
        return self._packed[0]

    def turn(
        self,
        weight: Tensor,
        first: Tensor,
        second: Tensor,
        residual: Tensor,
        column: Tensor,
        now: Tensor,
        following: Tensor | None,
    ) -> Tensor | None:
        """One step in place on ``(K, F)`` rows, then their products with the next batch.

        Parameters
        ----------
        weight, first, second
            ``(K, F)`` weights and moments.
        residual
            ``(K, B)`` derivative of the loss by the product of weights and features.
        column
            ``(K, 9)``, in the order of the enumeration in ``full_step.c``.
        now, following
            Packed batches of equal size.

        Returns
        -------
        Tensor or None
            ``(K, B)`` if there is a next batch.
        """
        _check(weight, first, second, residual, column)
        k, batch = residual.shape
        y = None
        if following is not None:
            y = torch.empty(k, -(-batch // 4) * 4)
        failed = self._library.full_turn(
            k,
            *self._shape,
            batch,
            *(t.data_ptr() for t in (weight, first, second, residual, column, now)),
            None if following is None else following.data_ptr(),
            None if y is None else y.data_ptr(),
        )
        if failed:
            raise MemoryError("no memory for the fused step")
        return None if y is None else y[:, :batch]


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError("the fused step takes contiguous float32 tensors")
