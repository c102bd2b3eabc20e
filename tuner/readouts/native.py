"""The fused steps of the readouts in C, compiled on first use where there is a compiler, and kept in the user's cache.

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
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

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
    temporary = target.with_suffix(f".{os.getpid()}.partial.so")
    for threads in (["-fopenmp", *_openmp()], []):
        command = [cc, *_FLAGS, *map(str, sources), *threads, "-lm", "-o", str(temporary)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise EnvironmentFailure(f"{cc}: cannot be run: {error}; {_REMEDY}") from error
        if done.returncode == 0:
            temporary.replace(target)
            return
    last = " ".join(done.stderr.split())[-300:]
    raise EnvironmentFailure(f"{cc}: cannot compile the fused steps: {last}; {_REMEDY}")


class _Packing:
    """Batches as the fused steps read them."""

    def __init__(self, kind: str, channels: int, cells: int) -> None:
        self._sizes = channels, cells
        self._size = getattr(library(), f"{kind}_packed")
        self._pack = getattr(library(), f"{kind}_pack")
        self._packed = [torch.empty(0), torch.empty(0)]

    def pack(self, x: Tensor) -> Tensor:
        """A feature batch ``(B, F)``; valid until two more are packed."""
        _check(x)
        sizes = *self._sizes, len(x)
        size = self._size(*sizes)
        self._packed.reverse()
        if len(self._packed[0]) != size:
            self._packed[0] = torch.empty(size)
        self._pack(*sizes, x.data_ptr(), self._packed[0].data_ptr())
        return self._packed[0]


class FullStep(_Packing):
    """The fused step of the full readout, bound to a feature shape.

    Parameters
    ----------
    channels, height, width
        Of the features.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__("full", channels, height * width)
        self._shape = channels, height, width

    def turn(
        self,
        weight: Tensor,
        first: Tensor,
        second: Tensor,
        residual: Tensor,
        fields: Tensor,
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
        fields
            ``(K, 9)``: those of ``readout.step_fields``, twice the smoothness, group sparsity.
        now, following
            Packed batches of equal size.

        Returns
        -------
        Tensor or None
            ``(K, B)`` if there is a next batch.
        """
        _check(weight, first, second, residual, fields, now)
        k, batch = residual.shape
        y = None if following is None else torch.empty(k, -(-batch // 4) * 4)
        failed = library().full_turn(
            k,
            *self._shape,
            batch,
            *_pointers(weight, first, second, residual, fields, now, following, y),
        )
        if failed:
            raise MemoryError("no memory for the fused step")
        return None if y is None else y[:, :batch]


LOSSES = {"mse": 0, "poisson": 1}
"""Losses whose derivative the fused step of the factorized readout knows."""

FACTORIZED_FIELDS = 9


class FactorizedStep(_Packing):
    """The fused step of the factorized readout, bound to a feature shape.

    Parameters
    ----------
    channels, cells
        Of the features.
    """

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__("factorized", channels, cells)

    def turn(
        self,
        features: Tensor,
        first: Tensor,
        second: Tensor,
        mask: Tensor,
        fields: Tensor,
        x: Tensor,
        target: Tensor,
        share: Tensor,
        loss: str,
    ) -> tuple[Tensor, Tensor]:
        """One step of the feature weights, in place, and the gradients of the rest.

        Parameters
        ----------
        features, first, second
            ``(K, C)`` feature weights and their moments.
        mask
            ``(K, P)``, never negative.
        fields
            ``(K, 9)``: those of ``readout.step_fields``, twice the weight decay, bias.
        x
            A packed batch.
        target, share
            ``(K, B)``; see :class:`tuner.readouts.readout.Batch`.
        loss
            One of :data:`LOSSES`.

        Returns
        -------
        tuple
            Gradients of the mask ``(K, P)`` and of the bias ``(K, 1)``, both before the mask's penalty.
        """
        by_mask, by_bias = torch.empty_like(mask), torch.empty(len(mask), 1)
        self._call(
            target.shape[1],
            LOSSES[loss],
            *(features, first, second, mask, fields, x, target, share, None, by_mask, by_bias),
        )
        return by_mask, by_bias

    def responses(
        self, features: Tensor, mask: Tensor, fields: Tensor, x: Tensor, batch: int
    ) -> Tensor:
        """``(K, B)`` responses; of ``fields`` only the bias is read."""
        y = torch.empty(len(mask), batch)
        self._call(batch, 0, features, None, None, mask, fields, x, None, None, y, None, None)
        return y

    def _call(self, batch: int, loss: int, *tensors: Tensor | None) -> None:
        _check(*(tensor for tensor in tensors if tensor is not None))
        features = tensors[0]
        assert features is not None
        sizes = len(features), *self._sizes, batch
        if library().factorized_turn(*sizes, *_pointers(*tensors), loss):
            raise MemoryError("no memory for the fused step")


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError("the fused step takes contiguous float32 tensors")
