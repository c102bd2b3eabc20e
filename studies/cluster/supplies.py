"""A worker that does not see the coordinator's files is sent them by value, once: the recording, its images, weights.

What is sent are files under the hash of their content. The worker keeps them in ``cluster.cache``, a folder of its own,
where the next search finds them, and reads them from there in the place of the paths that the coordinator has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.cluster import messages
from tuner.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:
    from studies.config.experiment import Experiment

PARCEL = 32 * 2**20
"""Most bytes of files in one message."""

_DIGEST = 20


# -- the coordinator's side ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cargo:
    """A file or folder that the config file names, and the files of it that are read.

    Attributes
    ----------
    path
        As the config file names it.
    root, names
        The files, as paths below a folder.
    """

    path: Path
    root: Path
    names: tuple[str, ...]


def named_paths(experiment: Experiment) -> list[Path]:
    """Files and folders that a worker reads, as the config file names them."""
    data = experiment.data
    out = [] if data.format == "simulated" else [data.path, data.stimuli, data.images]
    weights = {table.weights for table in experiment.backbone} - {"imagenet", "random"}
    out += [Path(one) for one in sorted(weights)]
    return [path for path in out if path is not None and path.exists()]


def cargo(experiment: Experiment) -> list[Cargo]:
    """Everything that a worker reads, file by file; of the images those that the recording names."""
    data = experiment.data
    out = []
    for path in named_paths(experiment):
        if data.format != "simulated" and path == data.images:
            out.append(Cargo(path, path, tuple(_images(experiment))))
        elif path.is_dir():
            files = sorted(one for one in path.rglob("*") if one.is_file())
            out.append(Cargo(path, path, tuple(str(one.relative_to(path)) for one in files)))
        else:
            beside = [n for n in ("things_imgs.mat", "_logs/things_imgs.mat") if path == data.path]
            there = [name for name in beside if (path.parent / name).is_file()]
            out.append(Cargo(path, path.parent, (path.name, *there)))
    return out


def _images(experiment: Experiment) -> Iterator[str]:
    from studies.recording import open_recording
    from tuner.recordings.sources import FileImages

    recording = open_recording(experiment)
    for source in (recording.train_images, recording.test_images):
        if isinstance(source, FileImages):
            yield from source.names


class Manifest:
    """The files of an experiment with their hashes.

    Parameters
    ----------
    experiment
        The experiment; every file of it is read through.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._files: dict[str, Path] = {}
        self.plain: list[dict[str, Any]] = []
        for one in cargo(experiment):
            files = []
            for name in dict.fromkeys(one.names):
                with (one.root / name).open("rb") as file:
                    digest = hashlib.file_digest(file, _hasher).hexdigest()
                self._files[digest] = one.root / name
                files.append([name, digest])
            inside = "" if one.root == one.path else one.path.name
            self.plain.append({"path": str(one.path), "inside": inside, "files": files})

    def parcels(self, wanted: Sequence[str], sending: str) -> Iterator[bytes]:
        """Messages that hold these files, small ones together, big ones in parts.

        Parameters
        ----------
        wanted
            Hashes of the files.
        sending
            A name that no other sending has: workers of one machine may be sent the same file at the same time.
        """
        held: list[tuple[str, int, bytes]] = []
        size = 0
        for digest in wanted:
            with self._files[digest].open("rb") as file:
                at = 0
                while True:
                    part = file.read(PARCEL)
                    if held and size + len(part) > PARCEL:
                        yield _pack(held, sending)
                        held, size = [], 0
                    held.append((digest, at, part))
                    at, size = at + len(part), size + len(part)
                    if len(part) < PARCEL:
                        break
        if held:
            yield _pack(held, sending)


def _hasher() -> Any:
    return hashlib.blake2b(digest_size=_DIGEST)


def _pack(parts: Sequence[tuple[str, int, bytes]], sending: str) -> bytes:
    import torch

    rows = [[digest, at, len(part)] for digest, at, part in parts]
    content = bytearray(b"".join(part for _, _, part in parts) or b"\0")
    return messages.pack(
        {"sending": sending, "parts": rows},
        {"content": torch.frombuffer(content, dtype=torch.uint8)},
    )


# -- the worker's side --------------------------------------------------------------------------------

_moved: dict[str, str] = {}
"""Where files lie here that the config file names elsewhere."""


def sees(path: str) -> bool:
    """Whether this machine has a file or folder under a path."""
    return os.access(path, os.R_OK)


def supplied(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment that was sent, with the paths under which this machine has its files."""
    tables = dict(plain["tables"])
    data = dict(tables["data"])
    for key in ("path", "images", "stimuli"):
        if key in data:
            data[key] = _moved.get(data[key], data[key])
    backbones = [
        {**table, "weights": _moved.get(str(table.get("weights")), table.get("weights"))}
        for table in tables["backbone"]
    ]
    return {**plain, "tables": {**tables, "data": data, "backbone": backbones}}


def look(experiment: Mapping[str, Any], message: messages.Message) -> bytes:
    """Say whether this machine sees all of some paths.

    Raises
    ------
    InputError
        If it does not, and has no folder of its own to keep files in.
    """
    unseen = [path for path in message.header["paths"] if not sees(path)]
    if unseen and experiment["cache"] is None:
        raise InputError(
            f"{unseen[0]}: a worker does not see it; set cluster.cache to a folder on a disk of each "
            "machine's own, and it is sent there"
        )
    return messages.pack({"sees": not unseen})


def have(experiment: Mapping[str, Any], message: messages.Message) -> bytes:
    """Say which files this machine lacks; where it lacks none they are put in their places."""
    folder = _folder(experiment)
    digests = {d: None for one in message.header["cargo"] for _, d in one["files"]}
    lacking = [digest for digest in digests if not (folder / "files" / digest).is_file()]
    if not lacking:
        for one in message.header["cargo"]:
            _moved[one["path"]] = str(_arranged(folder, one))
    return messages.pack({"lacking": lacking})


def keep(experiment: Mapping[str, Any], message: messages.Message) -> bytes:
    """Keep files, or parts of them, that were sent."""
    files = _folder(experiment) / "files"
    content = message.tensors["content"].numpy()
    begin = 0
    for digest, at, size in message.header["parts"]:
        part = files / f"{digest}.{message.header['sending']}"
        with part.open("r+b" if at else "wb") as file:
            file.seek(at)
            file.write(content[begin : begin + size].tobytes())
        begin += size
        if size < PARCEL:  # its last part
            with part.open("rb") as file:
                found = hashlib.file_digest(file, _hasher).hexdigest()
            if found != digest:
                raise EnvironmentFailure(f"{part}: is not what was sent; check this machine's disk")
            part.replace(files / digest)
    return messages.pack({})


def _folder(experiment: Mapping[str, Any]) -> Path:
    folder = Path(os.path.expandvars(experiment["cache"])).expanduser() / "recording"
    (folder / "files").mkdir(parents=True, exist_ok=True)
    return folder


def _link(file: Path, place: Path) -> None:
    """Have a file under a second name; a link that is followed would lead out of the folder of images."""
    try:
        place.hardlink_to(file)
    except FileExistsError:  # another worker of this machine
        return
    except OSError:  # a file system without them
        shutil.copyfile(file, place)


def _arranged(folder: Path, one: Mapping[str, Any]) -> Path:
    """Give files their names again, in a folder that is named after all of them."""
    listed = messages.pack({"files": one["files"]})
    here = folder / hashlib.blake2b(listed, digest_size=8).hexdigest()
    for name, digest in one["files"]:
        place = here / name
        if not place.resolve().is_relative_to(here.resolve()):
            raise EnvironmentFailure(f"{name}: a file outside its folder is not kept")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(folder / "files" / digest, place)
    here.mkdir(exist_ok=True)
    return here / one["inside"] if one["inside"] else here
