"""Kept weights: one safetensors file per kept trial, and one per study with the best of every unit.

Files are written first, under names that follow from their content, and become part of the search in the transaction that
tells the trials; files that lose their place are deleted after it. A kill between leaves a file without a row, never a row
without a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from studies.database.killpoints import reach
from tuner.atomic import replacing
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


class Artifacts:
    """The folder ``storage.artifacts``, in the layout of optuna's file-system artifact store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        digest = hashlib.blake2b(identity.encode() + b"\0" + content, digest_size=16)
        artifact_id = digest.hexdigest()
        target = self.path(artifact_id)
        try:
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

    def read_tensors(self, artifact_id: str) -> Tensors:
        """Read tensors.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path(artifact_id)
        try:
            return load_file(path)
        except FileNotFoundError:
            raise InputError(
                f"{path}: kept weights are missing; restore the folder storage.artifacts, or mend "
                "with 'tuner doctor --fix'"
            ) from None
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: kept weights are damaged ({error}); restore them from a copy, or mend "
                "with 'tuner doctor --fix'"
            ) from error

    def delete(self, artifact_id: str) -> None:
        """Delete an artifact; one that is gone already is fine."""
        self.path(artifact_id).unlink(missing_ok=True)


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
