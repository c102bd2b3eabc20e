"""Kept weights: one safetensors file per kept trial, and one per study with the best of every unit.

Files are written first, under names that follow from their content, and become part of the search in the transaction that
tells the trials; files that lose their place are deleted after it. A kill between leaves a file without a row, never a row
without a file. A name is computed from the content before a file is used: what does not match is never used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from studies.database.killpoints import reach
from tuner.atomic import replacing
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


DAMAGED = "damaged"
"""Folder beside the kept files for those that no longer match their names."""


class UnreadableWeights(InputError):  # noqa: N818 - what it is about, as in tuner.errors
    """A kept weights file is missing, damaged, or another than its name says."""


def identity(study: str, trial_number: int | None) -> str:
    """What the name of a weights file says besides its content; None for the best of every unit."""
    return f"{study}/{'units' if trial_number is None else trial_number}"


class Artifacts:
    """The folder ``storage.artifacts``, in the layout of optuna's file-system artifact store.

    Parameters
    ----------
    folder
        Where.
    take
        Called before the first file is written: makes the folder its database's own, or refuses.
    """

    def __init__(self, folder: Path, take: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self._take = take
        self._verified: dict[tuple[str, str], _Mark] = {}

    def take(self) -> None:
        """Make the folder the database's own.

        Raises
        ------
        InputError
            If it belongs to another database.
        """
        if self._take is not None:
            self._take()
            self._take = None

    def path(self, artifact_id: str) -> Path:
        """Where an artifact lies."""
        return self.folder / artifact_id

    def write(self, content: bytes, identity: str) -> str:
        """Write bytes durably under a name that follows from them and from ``identity``.

        Raises
        ------
        EnvironmentFailure
            If the folder cannot be written or the disk is full.
        """
        digest = _digest(identity)
        digest.update(content)
        artifact_id = digest.hexdigest()
        target = self.path(artifact_id)
        try:
            self.take()
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(target, durable=True) as partial:
                partial.write_bytes(content)
                reach("file half written")
            _settle(self.folder)
        except OSError as error:
            remedy = (
                "free space on that disk and run the command again; finished trials are safe"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else "make the folder writable"
            )
            raise EnvironmentFailure(
                f"storage.artifacts: cannot write {len(content)} bytes to {self.folder}: "
                f"{error.strerror}; {remedy}"
            ) from error
        return artifact_id

    def write_tensors(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], identity: str
    ) -> tuple[str, int]:
        """Write tensors; returns the artifact's name and size."""
        from safetensors.torch import save

        # One entry only: safetensors writes several in any order, and the same weights would get another name.
        described = {"tuner": json.dumps(dict(metadata))}
        content = save({k: v.contiguous() for k, v in tensors.items()}, described)
        return self.write(content, identity), len(content)

    def read_tensors(self, artifact_id: str, identity: str) -> Tensors:
        """Read tensors, once it is certain that they are those that were written.

        Parameters
        ----------
        artifact_id
            The file's name.
        identity
            What it was written as.

        Raises
        ------
        UnreadableWeights
            If the file is missing, damaged, or holds anything else than its name says.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self.verify(artifact_id, identity)
        path = self.path(artifact_id)
        try:
            # Mapped, as ever: products of floats round by where in memory they begin.
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UnreadableWeights(
                f"{path}: kept weights cannot be read ({error}); {_REMEDY}"
            ) from error

    def verify(self, artifact_id: str, identity: str) -> None:
        """Compute a file's name from its content; raises as ``read_tensors`` does.

        A file that was found to match is not computed again as long as the file system says that nobody has touched it.
        """
        path = self.path(artifact_id)
        digest = _digest(identity)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                mark = _mark(status)
                if self._verified.get((artifact_id, identity)) == mark:
                    return
                if status.st_size:
                    with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                        digest.update(content)
        except FileNotFoundError:
            raise UnreadableWeights(f"{path}: kept weights are missing; {_REMEDY}") from None
        except OSError as error:
            raise UnreadableWeights(
                f"{path}: kept weights cannot be read ({error.strerror}); {_REMEDY}"
            ) from error
        if digest.hexdigest() != artifact_id:
            raise UnreadableWeights(
                f"{path}: kept weights are damaged: they do not match their name; {_REMEDY}"
            )
        # Another write within the same tick of the file system's clock would leave the same times.
        if time.time_ns() - status.st_ctime_ns > _TICK:
            self._verified[artifact_id, identity] = mark

    def set_aside(self, artifact_id: str) -> None:
        """Move a file that does not match its name out of the way, into the folder ``damaged``; a missing one is fine."""
        path = self.path(artifact_id)
        try:
            (self.folder / DAMAGED).mkdir(exist_ok=True)
            path.replace(self.folder / DAMAGED / artifact_id)
        except FileNotFoundError:
            return
        except OSError as error:
            raise EnvironmentFailure(
                f"{path}: cannot be moved aside: {error.strerror}; make the folder writable"
            ) from error

    def delete(self, artifact_id: str) -> None:
        """Delete an artifact; one that is gone already is fine."""
        self.path(artifact_id).unlink(missing_ok=True)


_REMEDY = "restore the folder storage.artifacts from a copy, or let 'tuner doctor --fix' put the trial back to be run again"


_TICK = 2_000_000_000
"""Nanoseconds within which a file system may give two writes the same time."""

_Mark = tuple[int, int, int, int, int]


def _mark(status: os.stat_result) -> _Mark:
    """What changes when a file is written or replaced; its time of change cannot be set back."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _digest(identity: str) -> hashlib.blake2b:
    """The hash that names a file, before its content."""
    return hashlib.blake2b(identity.encode() + b"\0", digest_size=16)


def _settle(folder: Path) -> None:
    """Bring a folder's list of files to the disk: no row may outlive a power cut that its file did not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def dashboard_attribute(artifact_id: str, filename: str, mimetype: str) -> tuple[str, str]:
    """System attribute by which optuna-dashboard finds an artifact of a trial."""
    meta = {
        "artifact_id": artifact_id,
        "filename": filename,
        "mimetype": mimetype,
        "encoding": None,
    }
    return f"artifacts:{artifact_id}", json.dumps(meta)
