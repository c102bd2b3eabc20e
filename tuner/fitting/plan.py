"""How much is trained together: memory, work, and what follows from them.

The plan depends on sizes and on a memory figure that is resolved once, when studies are created; never on the clock or on
what happens to be free. So a round is cut the same way today and tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.errors import EnvironmentFailure
from tuner.fitting.columns import COPY_BYTES
from tuner.fitting.trainer import STEPS_AHEAD, validation_chunk
from tuner.readouts.full import gradient_bytes
from tuner.readouts.readout import ColumnKernel, FeatureShape, Readout

_GROUP_WORK = {"cpu": 1e11, "cuda": 6e12, "mps": 1e12}
"""Weights times steps that some 10 minutes take on a device of each kind."""

RUNTIME_BYTES = 48 << 20
"""What torch and its libraries keep once they compute."""

_COMPILE_WORK = 1e8
"""Weights times steps of a group from which compiling pays for itself."""


def resolve_device(name: str) -> torch.device:
    """The device that ``training.device`` means.

    Raises
    ------
    EnvironmentFailure
        If it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, True):
        raise EnvironmentFailure(
            f'training.device: {name} is not there; set it to "auto" or "cpu", or check the driver'
        )
    return device


def resolve_memory(setting: int | str, device: torch.device) -> int:
    """Bytes that training may take: ``auto`` is half of the host's memory, 0.85 of a GPU's."""
    if isinstance(setting, int):
        return setting
    if device.type == "cuda":
        return int(0.85 * torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total // 2)


def compiler_there(device: torch.device) -> bool:
    """Whether the fused step can be compiled on this machine: by a C compiler, or by torch.compile on a GPU."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return False
        return True
    from tuner.readouts.native.build import usable

    return device.type == "cpu" and usable()


@dataclass(frozen=True)
class Block:
    """Some units of one study, all its trials; what one turn trains."""

    study: int
    units: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Studies that make a round together.

    Attributes
    ----------
    studies
        Positions of the studies.
    turns
        Blocks that are in memory at the same time; more than one turn only for a single study that is too big.
    """

    studies: tuple[int, ...]
    turns: tuple[tuple[Block, ...], ...]


def column_bytes(kernel: ColumnKernel, batch_size: int, judged: int = 0) -> int:
    """Memory a column takes while it is trained: the readout's, and the trainer's own.

    Parameters
    ----------
    judged
        Images that it is judged on, whose answers are kept.
    """
    trainer = 4 * (10 * STEPS_AHEAD + 3 * validation_chunk(kernel.shape) + 2 * judged)
    return kernel.bytes_per_column(batch_size) + trainer


def fixed_bytes(shape: FeatureShape, batch_size: int, device: torch.device) -> int:
    """Memory that does not grow with columns, whatever the readout.

    Two feature batches, as they come and as the fused step reads them, or a chunk of validation features, each float32
    beside its half-precision rows; their mean; and the pieces in which gradients and copies are made.
    """
    chunk = validation_chunk(shape)
    batches = (8 * batch_size + max(10 * batch_size, 10 * chunk) + 4) * shape.size
    return batches + gradient_bytes(device) + COPY_BYTES + RUNTIME_BYTES


def grouping(
    units: Sequence[NDArray[np.int64]],
    trials: int,
    *,
    readout: Readout,
    shape: FeatureShape,
    batch_size: int,
    steps: int,
    device: torch.device,
    memory: int,
    compiled: bool,
    folds: int = 1,
    judged: int = 0,
) -> list[Group]:
    """Cut a cohort into groups of studies, and a study that is too big into blocks of units, never into trials.

    Parameters
    ----------
    units
        Unit indices of each study of the cohort, in order.
    trials
        Trials of each study in a round.
    memory
        Bytes that training may take.
    folds
        Columns of a unit under a trial: they stay together.
    judged
        Images that a column is judged on.

    Raises
    ------
    EnvironmentFailure
        If not even one unit with all its trials and folds fits.
    """
    column = column_bytes(readout.kernel(shape, device, compiled=compiled), batch_size, judged)
    fixed = fixed_bytes(shape, batch_size, device)
    room = (memory - fixed) // column
    unit = trials * folds
    if room < unit:
        need = column * unit + fixed
        many = "" if folds == 1 else f" of {folds} folds"
        raise EnvironmentFailure(
            f"training.memory: one unit of a {readout.name} readout with {shape.size} features and "
            f"{trials} trials{many} takes {need / 1e9:.2f} GB, and {memory / 1e9:.2f} GB are "
            "allowed; raise training.memory, or lower backbone.max_grid or search.parallel_trials"
        )
    work = _GROUP_WORK.get(device.type, _GROUP_WORK["cpu"])
    limit = min(room, max(unit, int(work / (shape.size * steps))))
    groups: list[Group] = []
    open_studies: list[int] = []
    taken = 0

    def close() -> None:
        if open_studies:
            blocks = tuple(Block(study, units[study]) for study in open_studies)
            groups.append(Group(tuple(open_studies), (blocks,)))
            open_studies.clear()

    for study, mine in enumerate(units):
        columns = len(mine) * unit
        if columns > room:
            close()
            taken = 0
            pieces = -(-columns // (room // unit * unit))
            parts = np.array_split(mine, pieces)
            groups.append(Group((study,), tuple((Block(study, part),) for part in parts)))
            continue
        if open_studies and taken + columns > limit:
            close()
            taken = 0
        open_studies.append(study)
        taken += columns
    close()
    return groups


def worth_compiling(
    readout: Readout, columns: int, shape: FeatureShape, steps: int, device: torch.device
) -> bool:
    """Whether a round of this size is big enough for the readout's fused step, and a compiler there."""
    pays = device.type != "cpu" or readout.fused_pays(shape)
    return pays and columns * shape.size * steps >= _COMPILE_WORK and compiler_there(device)
