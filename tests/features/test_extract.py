"""Extraction: the numbers, the cache's hits, and going on after interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.features.tiny import Pictures, raw, tiny
from tuner.backbones.backbone import Backbone
from tuner.errors import InputError
from tuner.features import sweeps, waiting
from tuner.features.cache import FeatureCache
from tuner.features.extract import LayerFeatures, extract
from tuner.features.layout import chunk_images, feature_key, layouts

LAYERS = ("first", "relu", "second", "third")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have images go through the network twice."""
    monkeypatch.setattr("tuner.features.extract.waiting", lambda *_: waiting.Waiting((), 0, 1.0))


def _same(one: dict[str, LayerFeatures], two: dict[str, LayerFeatures]) -> bool:
    def arrays(a: LayerFeatures, b: LayerFeatures) -> bool:
        tests = (a.test is None) == (b.test is None) and (
            a.test is None or b.test is None or np.array_equal(a.test, b.test)
        )
        return tests and np.array_equal(a.train, b.train)

    return list(one) == list(two) and all(
        arrays(one[layer], two[layer])
        and torch.equal(one[layer].normalization.mean, two[layer].normalization.mean)
        and torch.equal(one[layer].normalization.sd, two[layer].normalization.sd)
        for layer in one
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_numbers(cache: FeatureCache, layer: str) -> None:
    backbone, train, test = tiny(), Pictures(45), Pictures(7, seed=1)
    found = extract(backbone, [layer], train, test, max_grid=5, cache=cache)[layer]
    values = raw(backbone, train, layer).double()
    mean, sd = values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)
    assert torch.allclose(found.normalization.mean.double(), mean, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.normalization.sd.double(), sd, rtol=1e-5)
    assert found.normalization.rectified == (layer == "relu")
    expected = found.normalization.apply(raw(backbone, train, layer))
    assert found.train.dtype == np.float16
    assert found.train.shape == (45, *found.shape) == tuple(expected.shape)
    assert max(found.shape[1:]) <= 5
    np.testing.assert_allclose(found.train, expected.numpy(), rtol=2e-3, atol=1e-4)
    assert found.test is not None
    # test images are normalised by the others' statistics, and do not touch them
    expected = found.normalization.apply(raw(backbone, test, layer))
    np.testing.assert_allclose(found.test, expected.numpy(), rtol=2e-3, atol=1e-4)
    alone = extract(backbone, [layer], train, None, max_grid=5, cache=None)[layer]
    assert alone.test is None
    assert np.array_equal(alone.train, found.train)


def test_memory_and_cache_agree(cache: FeatureCache) -> None:
    backbone, train, test = tiny(), Pictures(70), Pictures(40, seed=1)
    cached = extract(backbone, LAYERS, train, test, max_grid=6, cache=cache)
    assert _same(cached, extract(backbone, LAYERS, train, test, max_grid=6, cache=None))


def test_kept_and_recomputed_maps_agree(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = extract(tiny(), LAYERS, Pictures(50), max_grid=6, cache=None)
    nothing_waits(monkeypatch)
    assert _same(kept, extract(tiny(), LAYERS, Pictures(50), max_grid=6, cache=cache))


def test_images_go_through_the_network_once(cache: FeatureCache) -> None:
    train, test = Pictures(70), Pictures(9, seed=1)
    extract(tiny(), LAYERS, train, test, max_grid=6, cache=cache)
    assert train.reads == list(range(70))
    assert test.reads == list(range(9))
    assert not list(cache.folder.rglob("train.raw"))


def test_without_room_they_go_twice(tmp_path: Path) -> None:
    train = Pictures(70)
    found = extract(tiny(), LAYERS, train, max_grid=6, cache=FeatureCache(tmp_path / "wide"))
    features = sum(features.train.nbytes for features in found.values())
    again, narrow = Pictures(70), FeatureCache(tmp_path / "narrow", features + 10_000)
    assert _same(extract(tiny(), LAYERS, again, max_grid=6, cache=narrow), found)
    assert again.reads == 2 * list(range(70))


def test_a_full_disk_has_nothing_wait(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = extract(tiny(), LAYERS, Pictures(70), max_grid=6, cache=None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tuner.features.waiting.OnDisk.__init__", full)
    assert _same(extract(tiny(), LAYERS, Pictures(70), max_grid=6, cache=cache), expected)


def test_the_deepest_layers_wait() -> None:
    sizes = {
        "wide": waiting.Layout(64, 112, 112, 4, (28, 28), False),
        "middle": waiting.Layout(64, 28, 28, 1, (28, 28), False),
        "deep": waiting.Layout(64, 7, 7, 1, (7, 7), False),
    }
    macs = {"wide": 10**7, "middle": 10**9, "deep": 2 * 10**9}
    images = 10_000

    def chosen(room: float, device: str = "cpu") -> waiting.Waiting:
        return waiting.waiting(sizes, macs, images, room, device)

    # what is large and soon computed again does not wait, whatever the room
    assert chosen(1e15).layers == ("deep", "middle")
    assert chosen(1e15).n_bytes == 4 * 64 * (28**2 + 7**2) * images
    assert chosen(1e15).again == pytest.approx((20 * 4 * 64 * (28**2 + 7**2) + 1e7) / 2e9)
    assert chosen(4 * 64 * 7**2 * images).layers == ("deep",)
    assert chosen(0) == waiting.Waiting((), 0, 1.0)
    # a device that computes more in the time of a byte has less wait
    assert chosen(1e15, "cuda").layers == ("deep",)
    # little always waits
    assert set(waiting.waiting(sizes, macs, 5, 1e15, "cpu").layers) == set(sizes)


def test_a_second_run_extracts_nothing(cache: FeatureCache) -> None:
    backbone, train, test = tiny(), Pictures(40), Pictures(9, seed=1)
    first = extract(backbone, LAYERS, train, test, max_grid=0, cache=cache)
    train.reads.clear()
    test.reads.clear()
    calls: list[object] = []
    second = extract(
        tiny(), LAYERS, train, test, max_grid=0, cache=cache, progress=lambda *a: calls.append(a)
    )
    assert _same(first, second)
    assert train.reads == test.reads == calls == []
    # a layer that is new is extracted, those that are there are not
    fewer = FeatureCache(cache.folder / "other")
    extract(backbone, ["second"], train, max_grid=0, cache=fewer)
    ran: list[str] = []
    hook = backbone.module.third.register_forward_hook(lambda *_: ran.append("third"))
    extract(backbone, ["first", "second"], train, max_grid=0, cache=fewer)
    hook.remove()
    assert len(fewer.entries()) == 2
    assert ran == []


def test_the_key_is_the_content() -> None:
    backbone, train, test = tiny(), Pictures(10), Pictures(5, seed=1)
    key = feature_key(backbone, "second", train, 4, test)
    assert key == feature_key(tiny(), "second", Pictures(10), 4, Pictures(5, seed=1))
    others = {
        feature_key(tiny(seed=1), "second", train, 4, test),
        feature_key(backbone, "third", train, 4, test),
        feature_key(backbone, "second", train, 2, test),
        feature_key(backbone, "second", Pictures(10, seed=2), 4, test),
        feature_key(backbone, "second", Pictures(11), 4, test),
        feature_key(backbone, "second", Pictures(10, size=32), 4, test),
        feature_key(backbone, "second", train, 4, Pictures(5, seed=3)),
        feature_key(backbone, "second", train, 4),
    }
    assert len(others) == 8
    assert key not in others
    # grids that do not pool are one
    assert feature_key(backbone, "second", train, 8) == feature_key(backbone, "second", train, 0)


def test_layouts_are_known_beforehand() -> None:
    backbone, train = tiny(), Pictures(20)
    planned = layouts(backbone, LAYERS, train.size, 5)
    found = extract(backbone, LAYERS, train, max_grid=5, cache=None)
    for layer in LAYERS:
        assert planned[layer].shape == found[layer].shape
        assert planned[layer].cached_bytes(20) == found[layer].train.nbytes
        assert planned[layer].kernel == found[layer].normalization.kernel


@pytest.mark.parametrize(("size", "count"), [(16, 32), (64, 32), (224, 16), (500, 2), (4096, 1)])
def test_chunks_are_fixed_by_the_image_size(size: int, count: int) -> None:
    assert chunk_images(size) == count


def test_progress_counts_both_sweeps() -> None:
    calls: list[tuple[str, int, int]] = []
    extract(
        tiny(), LAYERS, Pictures(40), Pictures(9, seed=1), max_grid=0, cache=None,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert [done for _, done, _ in calls] == [32, 40, 72, 80, 89]
    assert {total for *_, total in calls} == {89}
    assert "tiny" in calls[0][0]
    calls.clear()
    extract(
        tiny(), LAYERS, Pictures(4), None, max_grid=0, cache=None, called="untrained",
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert calls[0][0] == f"untrained, {len(LAYERS)} layers"


@pytest.mark.parametrize(
    ("stop", "keep"), [*((stop, False) for stop in range(1, 12)), (2, True), (6, True), (8, True)]
)
def test_interrupted_anywhere_it_ends_with_the_same_numbers(
    cache: FeatureCache, stop: int, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keep:
        nothing_waits(monkeypatch)
    train, test = Pictures(130), Pictures(40, seed=1)
    expected = extract(tiny(), LAYERS, train, test, max_grid=6, cache=None)
    train.reads.clear()
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tiny(), LAYERS, train, test, max_grid=6, cache=cache, progress=interrupt)
    assert all(entry.partial for entry in cache.entries())
    train.reads.clear()
    seen: list[int] = []

    def count(_: str, done: int, __: int) -> None:
        seen.append(done)

    found = extract(tiny(), LAYERS, train, test, max_grid=6, cache=cache, progress=count)
    assert _same(found, expected)
    assert seen[-1] == 300
    assert len(seen) == 12 - stop  # chunks that were done are not done again
    if stop >= 5:  # the first sweep was over
        assert len(train.reads) <= 130
    assert not any(entry.partial for entry in cache.entries())


def test_layers_at_different_points_go_on_together(cache: FeatureCache) -> None:
    train = Pictures(130)
    expected = extract(tiny(), LAYERS, train, max_grid=6, cache=None)

    def after(count: int) -> object:
        left = iter(range(count))

        def stop(*_: object) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        return stop

    for layer, count in zip(LAYERS[:3], (1, 4, 7), strict=True):
        with pytest.raises(KeyboardInterrupt):
            extract(tiny(), [layer], train, max_grid=6, cache=cache, progress=after(count))
    assert _same(extract(tiny(), LAYERS, train, max_grid=6, cache=cache), expected)


_CHILD = """
    import sys
    from pathlib import Path
    from tests.features.tiny import Pictures, tiny
    from tuner.features import partial
    from tuner.features.cache import FeatureCache
    from tuner.features.extract import extract
    partial._SAVE_EVERY = 0.0
    pictures = Pictures(160, delay={delay})
    extract(tiny(), ["first", "third"], pictures, max_grid=6, cache=FeatureCache(Path(sys.argv[1])),
            progress=lambda _, done, total: print(done, flush=True))
    print("read", len(pictures.reads), flush=True)
"""


def _child(folder: Path, delay: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(_CHILD.format(delay=delay))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("damaged", [False, True])
def test_killed_and_run_again(tmp_path: Path, damaged: bool) -> None:
    child = _child(tmp_path, 0.2)
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(7)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert seen == [32, 64, 96, 128, 160, 192, 224]
    train, cache = Pictures(160), FeatureCache(tmp_path)
    assert [entry.partial for entry in cache.entries()] == [True, True]
    for entry in cache.entries():
        raw = tmp_path / f"{entry.key}.partial" / "train.raw"
        if damaged:  # in its fourth chunk of five
            with raw.open("r+b") as file:
                file.seek(3 * raw.stat().st_size // 5 + 8)
                file.write(b"torn")
    found = extract(tiny(), ["first", "third"], train, max_grid=6, cache=cache)
    # what the layers returned waited for its statistics; what is not as it was written is computed again
    assert train.reads == (list(range(96, 128)) if damaged else [])
    assert not list(tmp_path.rglob("train.raw"))
    expected = extract(tiny(), ["first", "third"], Pictures(160), max_grid=6, cache=None)
    assert _same(found, expected)


def test_two_processes_extract_once(tmp_path: Path) -> None:
    children = [_child(tmp_path, 0.1) for _ in range(2)]
    reads = []
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        reads.append(int(out.split()[-1]))
    assert sorted(reads)[0] == 0
    assert sorted(reads)[1] == 160


def test_values_that_are_not_finite_name_backbone_and_layer(cache: FeatureCache) -> None:
    backbone = tiny()
    with torch.no_grad():
        backbone.module.second.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"backbone tiny: layer 'second' .* not finite"):
        extract(backbone, ["first", "second"], Pictures(40), max_grid=0, cache=cache)
    assert cache.entries() == []


def test_nothing_overflows_half_precision() -> None:
    train = Pictures(40)
    train.pixels[:] = 128
    train.pixels[0, 0, 0] = 129  # all but constant: what differs lies thousands of sds away
    test = Pictures(8, seed=1)
    found = extract(tiny(), LAYERS, train, test, max_grid=0, cache=None)
    for features in found.values():
        assert np.isfinite(features.train).all()
        assert np.isfinite(features.test).all()
    huge = sweeps.to_half(torch.tensor([1e9, 65504.0, 1.0]))
    assert huge.tolist() == [65504.0, 65504.0, 1.0]


def test_no_images() -> None:
    empty = Pictures(1)
    empty.pixels = empty.pixels[:0]
    with pytest.raises(InputError, match="no images"):
        extract(tiny(), ["first"], empty, max_grid=0, cache=None)
    # a recording without test images may also say so by an empty set
    found = extract(tiny(), ["first"], Pictures(3), empty, max_grid=0, cache=None)
    assert found["first"].test is None


def test_errors_of_the_images_come_through(cache: FeatureCache) -> None:
    class Broken(Pictures):
        def read(self, indices: np.ndarray) -> np.ndarray:
            if 70 in indices:
                raise InputError("image 70 cannot be read")
            return super().read(indices)

    with pytest.raises(InputError, match="image 70"):
        extract(tiny(), ["first"], Broken(90), max_grid=0, cache=cache)


def test_too_little_device_memory_splits_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = extract(tiny(), LAYERS, Pictures(50), Pictures(9, seed=1), max_grid=6, cache=None)
    capture = Backbone.capture

    def small(self: Backbone, images: torch.Tensor, *args: object) -> object:
        if len(images) > 5:
            raise torch.OutOfMemoryError("on purpose")
        return capture(self, images, *args)

    monkeypatch.setattr(Backbone, "capture", small)
    nothing_waits(monkeypatch)
    found = extract(tiny(), LAYERS, Pictures(50), Pictures(9, seed=1), max_grid=6, cache=None)
    for layer in LAYERS:
        np.testing.assert_allclose(found[layer].train, expected[layer].train, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(found[layer].test, expected[layer].test, rtol=2e-3, atol=1e-4)


def test_reading_overlaps_computing() -> None:
    following = threading.Event()

    class Watched(Pictures):
        def read(self, indices: np.ndarray) -> np.ndarray:
            if 32 in indices:
                following.set()
            return super().read(indices)

    overlapped: list[bool] = []
    backbone = tiny()
    backbone.describe("all", 16)  # which runs the network, too
    backbone.module.first.register_forward_hook(
        lambda *_: overlapped.append(following.wait(timeout=20))
    )
    extract(backbone, ["first"], Watched(160), max_grid=0, cache=None)
    # the second chunk was read while the first was in the network
    assert overlapped[0]


def test_the_process_id_is_not_part_of_an_entry(cache: FeatureCache) -> None:
    extract(tiny(), ["first"], Pictures(4), max_grid=0, cache=cache)
    (entry,) = cache.entries()
    names = sorted(path.name for path in (cache.folder / entry.key).iterdir())
    assert names == ["entry.json", "train.npy"]
    assert str(os.getpid()) not in (cache.folder / entry.key / "entry.json").read_text()
