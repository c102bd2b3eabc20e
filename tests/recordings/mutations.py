"""Damage to files: bytes flipped, zeroed, cut off; datasets removed, retyped, turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def raw_ranges(path: Path) -> list[tuple[int, int]]:
    """Find where in a sound file the values lie; the rest is structure."""
    found: list[tuple[int, int]] = []

    def visit(_: str, member: Any) -> None:
        if not isinstance(member, h5py.Dataset) or not member.size:
            return
        if member.chunks:
            member.id.chunk_iter(lambda c: found.append((c.byte_offset, c.byte_offset + c.size)))
        elif (start := member.id.get_offset()) is not None:
            found.append((start, start + member.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(visit)
    return sorted(found)


def structure(path: Path) -> np.ndarray[Any, Any]:
    """List the offsets of all bytes that are not values."""
    mask = np.ones(path.stat().st_size, dtype=bool)
    if h5py.is_hdf5(path):
        for start, stop in raw_ranges(path):
            mask[start:stop] = False
    return np.flatnonzero(mask)


def damage_bytes(
    path: Path, where: np.ndarray[Any, Any], rng: np.random.Generator
) -> tuple[str, int]:
    """Damage a file byte by byte; `where` lists the bytes of its structure.

    Returns
    -------
    what, touched
        A description, and how many bytes are not what they were (a cut counts as none: nothing
        may be wrong after it).
    """
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "structure", "structure", "zero", "random", "cut", "insert"])
    if kind == "cut":
        length = int(rng.integers(len(content)))
        path.write_bytes(content[:length])
        return f"cut at {length} of {len(content)}", 0
    if kind == "insert":
        at, more = int(rng.integers(len(content))), int(rng.integers(1, 9))
        content[at:at] = rng.bytes(more)
        path.write_bytes(content)
        return f"{more} bytes inserted at {at} of {len(content)}", 0
    if kind in ("flip", "structure"):
        places = rng.integers(len(content), size=rng.integers(1, 9))
        if kind == "structure" and where.size:
            places = rng.choice(where, size=rng.integers(1, 4))
        for place in places:
            content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        return f"{kind}: bits flipped at {places.tolist()} of {len(content)}", len(places)
    start = int(rng.integers(len(content)))
    length = int(rng.integers(1, 65))
    stop = min(start + length, len(content))
    content[start:stop] = bytes(stop - start) if kind == "zero" else rng.bytes(stop - start)
    path.write_bytes(content)
    return f"{kind}: {start} to {stop} of {len(content)}", stop - start


def damage_structure(path: Path, rng: np.random.Generator) -> str:
    """Rewrite one dataset of a file in a wrong way, or remove one member or attribute."""
    names: list[str] = []
    with h5py.File(path, "r+") as file:
        file.visit(names.append)
        name = str(rng.choice(sorted(names)))
        kind = str(rng.choice(sorted(DAMAGE)))
        if kind == "attribute":
            attributes = sorted(file[name].attrs)
            if attributes:
                gone = str(rng.choice(attributes))
                del file[name].attrs[gone]
                return f"attribute {gone} of {name} removed"
            kind = "remove"
        member = file[name]
        if kind == "remove" or not isinstance(member, h5py.Dataset):
            del file[name]
            return f"{name} removed"
        if member.dtype.kind not in "fiub":
            kind = str(rng.choice(["number", "group", "short"]))
        values = member[()]
        attributes = dict(member.attrs) if member.dtype.kind != "O" else {}
        del file[name]
        with np.errstate(all="ignore"):
            changed = DAMAGE[kind](values)
        if changed is not None:
            try:
                file[name] = changed
            except TypeError:  # Not something that h5py can store: the member stays removed.
                return f"{name} removed"
            for key, value in attributes.items():
                if key.startswith("MATLAB") or key in ("unit", "conversion", "offset"):
                    file[name].attrs[key] = value
        else:
            file.create_group(name)
    return f"{name}: {kind}"


DAMAGE: dict[str, Any] = {
    "attribute": None,
    "remove": None,
    "transposed": lambda v: np.transpose(v),
    "not a number": lambda v: np.full(np.shape(v), np.nan),
    "infinite": lambda v: np.full(np.shape(v), np.inf),
    "float32": lambda v: np.asarray(v).astype("f4"),
    "big-endian": lambda v: np.asarray(v).astype(">f8"),
    "integers": lambda v: np.nan_to_num(np.asarray(v, dtype="f8")).astype("i4"),
    "complex": lambda v: np.asarray(v).astype(complex),
    "texts": lambda v: np.asarray(v).astype("S8"),
    "huge": lambda v: np.asarray(v) * 1e200,
    "number": lambda v: 3.0,
    "text": lambda v: "text",
    "empty": lambda v: np.empty((0, *np.shape(v)[1:])),
    "short": lambda v: np.asarray(v)[:-1] if np.ndim(v) else 0,
    "flat": lambda v: np.ravel(v),
    "more axes": lambda v: np.asarray(v)[None],
    "group": lambda v: None,
}
