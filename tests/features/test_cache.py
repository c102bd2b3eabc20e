"""The cache on disk: bounded, least recently used first, damage recognised, disks that fail."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.features.tiny import Pictures, tiny
from tuner.errors import EnvironmentFailure, InputError
from tuner.features import partial
from tuner.features.cache import FeatureCache
from tuner.features.extract import LayerFeatures, extract

LAYERS = ("first", "relu", "second", "third")


def _extract(cache: FeatureCache, *layers: str, pictures: Pictures | None = None) -> LayerFeatures:
    found = extract(tiny(), layers, pictures or Pictures(40), max_grid=0, cache=cache)
    return found[layers[0]]


def _age(cache: FeatureCache, key: str, seconds: int) -> None:
    for name in ("entry.json", "progress.json"):
        for folder in (key, f"{key}.partial"):
            path = cache.folder / folder / name
            if path.exists():
                os.utime(path, (seconds, seconds))


def test_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    keys = {}
    for age, layer in enumerate(LAYERS[:3]):
        keys[layer] = _extract(cache, layer).key
        _age(cache, keys[layer], 1000 + age)
    gc.collect()
    _extract(cache, "first")  # used again: now the youngest
    gc.collect()
    sizes = {entry.key: entry.bytes for entry in cache.entries()}
    cache.limit_bytes = cache.used_bytes() + 10
    _extract(cache, "third")
    left = {entry.key for entry in cache.entries()}
    assert keys["relu"] not in left
    assert {keys["first"], keys["second"]} < left
    assert cache.used_bytes() <= cache.limit_bytes
    assert sizes[keys["relu"]] > sizes[keys["second"]]


def test_entries_in_use_stay(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    held = _extract(cache, "first")
    idle = _extract(cache, "relu").key
    _age(cache, held.key, 1000)
    view = held.train[3:5]
    expected = view.copy()
    key = held.key
    del held
    gc.collect()
    # a view keeps an entry as well as the array does; another process sees the lock, too
    assert not FeatureCache(tmp_path).remove(key)
    cache.limit_bytes = cache.used_bytes()
    _extract(cache, "second")
    assert {entry.key for entry in cache.entries()} >= {key}
    assert idle not in {entry.key for entry in cache.entries()}
    assert np.array_equal(view, expected)
    del view
    gc.collect()
    assert cache.remove(key)
    assert not cache.remove(key)


def test_a_limit_that_cannot_be_kept(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    held = _extract(cache, "first")
    cache.limit_bytes = held.train.nbytes + 5000
    with pytest.raises(InputError, match=r"storage\.cache_limit of \d+\.\d kB is too small"):
        _extract(cache, "second", pictures=Pictures(90))
    assert len(cache.entries()) == 1


def test_unfinished_extractions_count_and_can_go(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tiny(), ["first"], Pictures(90), max_grid=0, cache=cache, progress=stop)
    (left,) = cache.entries()
    assert left.partial
    assert left.bytes > 90 * 6 * 16 * 16 * 2
    assert left.description == "tiny first"
    cache.limit_bytes = left.bytes + 100
    _extract(cache, "second")
    assert not any(entry.partial for entry in cache.entries())


def _truncate(folder: Path) -> None:
    with (folder / "train.npy").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)


def _hole(folder: Path) -> None:
    size = (folder / "train.npy").stat().st_size
    with (folder / "train.npy").open("r+b") as file:
        file.truncate(size - 500)
        file.truncate(size)


def _header(folder: Path) -> None:
    content = bytearray((folder / "train.npy").read_bytes())
    content[12:20] = b"\xff" * 8
    (folder / "train.npy").write_bytes(content)


def _dtype(folder: Path) -> None:
    content = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(content.replace(b"<f2", b"<i2", 1))


def _object_array(folder: Path) -> None:
    size = (folder / "train.npy").stat().st_size
    np.save(folder / "train.npy", np.array([{}]), allow_pickle=True)
    with (folder / "train.npy").open("r+b") as file:
        file.truncate(size)


def _record(folder: Path) -> None:
    record = json.loads((folder / "entry.json").read_text())
    record["meta"]["normalization"]["sd"][0] *= 2
    (folder / "entry.json").write_text(json.dumps(record))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "hole": _hole,
    "header": _header,
    "dtype": _dtype,
    "objects": _object_array,
    "file-gone": lambda folder: (folder / "train.npy").unlink(),
    "record": _record,
    "record-empty": lambda folder: (folder / "entry.json").write_text(""),
    "record-half": lambda folder: (folder / "entry.json").write_text('{"meta": '),
    "record-list": lambda folder: (folder / "entry.json").write_text("[]"),
    "record-binary": lambda folder: (folder / "entry.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_entries_are_extracted_again(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(tmp_path)
    first = _extract(cache, "second")
    expected, key = first.train.copy(), first.key
    del first
    assert cache.verify(key) is None
    damage(tmp_path / key)
    assert cache.verify(key)
    pictures = Pictures(40)
    with caplog.at_level(logging.WARNING):
        again = _extract(cache, "second", pictures=pictures)
    assert np.array_equal(again.train, expected)
    assert len(pictures.reads) == 40
    assert len(caplog.records) == 1  # said once
    assert "damaged" in caplog.text
    assert cache.verify(key) is None


def test_a_deep_look_finds_what_a_quick_one_does_not(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    key = _extract(cache, "first", pictures=Pictures(100)).key
    path = tmp_path / key / "train.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert cache.open(key) is not None
    problem = cache.verify(key)
    assert problem is not None
    assert "chunk" in problem


@pytest.mark.parametrize("damage", ["progress", "data", "moments", "size", "other"])
def test_damaged_partial_entries(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path)
    expected = extract(tiny(), ["first"], Pictures(130), max_grid=0, cache=None)["first"]
    calls = iter(range(7))

    def stop(*_: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tiny(), ["first"], Pictures(130), max_grid=0, cache=cache, progress=stop)
    (folder,) = tmp_path.glob("*.partial")
    progress = folder / "progress.json"
    if damage == "progress":
        progress.write_text(progress.read_text()[:100])
    elif damage == "data":  # what a power cut leaves: recorded as written, but never on the disk
        content = bytearray((folder / "train.npy").read_bytes())
        content[5000:9000] = bytes(4000)
        (folder / "train.npy").write_bytes(content)
    elif damage == "moments":
        record = json.loads(progress.read_text())
        record["moments"]["mean"][0] = float("nan")
        progress.write_text(json.dumps(record))
    elif damage == "size":
        _truncate(folder)
    else:
        record = json.loads(progress.read_text())
        record["meta"]["layout"]["kernel"] = 2
        progress.write_text(json.dumps(record))
    found = extract(tiny(), ["first"], Pictures(130), max_grid=0, cache=cache)["first"]
    assert np.array_equal(found.train, expected.train)


def test_killed_before_the_last_rename(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    first = _extract(cache, "first")
    key, expected = first.key, first.train.copy()
    del first
    # as if the process had died between writing the record and renaming the folder
    (tmp_path / key).rename(tmp_path / f"{key}.partial")
    assert np.array_equal(_extract(cache, "first").train, expected)
    assert [entry.partial for entry in cache.entries()] == [False]


def test_a_removal_that_was_cut_short(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    (tmp_path / ".abc.1.removed").mkdir(parents=True)
    (tmp_path / ".abc.1.removed" / "entry.json").write_text("{}")
    assert cache.entries() == []
    _extract(cache, "first")
    assert not list(tmp_path.glob(".*.removed"))


def test_disk_full_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(EnvironmentFailure) as caught:
            _extract(cache, "first", "second")
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "122.9 kB" in message  # 40 images of 6 x 16 x 16 halves
    assert "free space" in message
    assert not list(tmp_path.glob("*.partial"))  # nothing is left that takes space
    _extract(cache, "first", "second")


def test_disk_full_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    write, calls = os.pwrite, iter(range(4))

    def full(*args: int) -> int:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(EnvironmentFailure, match="is full"):
            _extract(cache, "first", pictures=Pictures(160))
    found = _extract(cache, "first", pictures=Pictures(160))
    expected = extract(tiny(), ["first"], Pictures(160), max_grid=0, cache=None)["first"]
    assert np.array_equal(found.train, expected.train)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"storage\.cache"):
        _extract(FeatureCache(tmp_path / "cache"), "first")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    _extract(cache, "first")
    shutil.rmtree(tmp_path / "cache" / "locks")
    (tmp_path / "cache").chmod(0o500)
    try:
        _extract(cache, "first")  # reading is enough
        with pytest.raises(EnvironmentFailure, match="cannot be used"):
            _extract(cache, "second")
    finally:
        (tmp_path / "cache").chmod(0o700)


def test_arrays_are_read_only(tmp_path: Path) -> None:
    features = _extract(FeatureCache(tmp_path), "first")
    with pytest.raises(ValueError, match="read-only"):
        features.train[0] = 0


def test_progress_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    write = partial.write_bytes
    monkeypatch.setattr(
        partial, "write_bytes", lambda path, *a, **k: (saved.append(path), write(path, *a, **k))
    )
    _extract(FeatureCache(tmp_path), "first", pictures=Pictures(320))
    # 20 chunks in two sweeps take no two seconds: once at the end, and the record itself
    assert [path.name for path in saved] == ["progress.json", "entry.json"]
