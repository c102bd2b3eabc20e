"""The two sweeps over the images: statistics first, then normalised, rectified, pooled maps.

Images go through in chunks of a fixed size, the last one filled up, so that the numbers depend
neither on where an extraction was interrupted nor on which images shared a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.backbones.backbone import Backbone
from tuner.errors import EnvironmentFailure, InputError
from tuner.features.layout import Images, Layout
from tuner.features.normalize import Moments, Normalization
from tuner.features.partial import Sink
from tuner.progress import Progress

T = TypeVar("T")
Half = NDArray[np.float16]

_LARGEST_HALF = 65504.0
# what the layers return is kept from the first sweep for the second where all of it is this small
_KEEP_BYTES = 256 * 2**20


def to_half(features: Tensor) -> Tensor:
    """Round features to half precision; what would overflow becomes the largest number there is."""
    return features.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()


def as_images(pixels: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """Turn (n, S, S, 3) bytes into (n, 3, S, S) float32 in [0, 1] on a device."""
    moved = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return moved.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


@dataclass(frozen=True)
class Job:
    """What is to be extracted: some layers, from some sets of images, in chunks."""

    backbone: Backbone
    layouts: Mapping[str, Layout]
    sources: Mapping[str, Images]
    chunk: int
    device: torch.device
    progress: Progress | None

    @property
    def n_images(self) -> int:
        """Images in all sets."""
        return sum(len(source) for source in self.sources.values())


class Sweeps:
    """The two sweeps over the images, filling sinks from wherever they stopped before."""

    def __init__(self, job: Job, sinks: Mapping[str, Sink], guard: Callable[[], Any]) -> None:
        self.job = job
        self.sinks = sinks
        self.guard = guard
        self.backbone = job.backbone.to(job.device)
        self.total = len(job.sources["train"]) + job.n_images
        self.seen = 0
        raw = sum(job.layouts[layer].raw_bytes(len(job.sources["train"])) for layer in sinks)
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.keeping = job.device.type == "cpu" and raw <= _KEEP_BYTES

    def run(self, *, maps: bool = True) -> dict[str, Normalization]:
        """Go on from where the sinks are; return each layer's normalisation. Without maps, only the first sweep."""
        try:
            self._statistics()
            normalizations = {
                layer: sink.moments.normalization(
                    rectified=self.job.layouts[layer].rectified,
                    kernel=self.job.layouts[layer].kernel,
                    grid=self.job.layouts[layer].grid,
                    signed=self.job.layouts[layer].signed,
                ).to(self.job.device)
                for layer, sink in self.sinks.items()
            }
            for name in self.job.sources if maps else ():
                self._maps(name, normalizations)
        finally:
            with self.guard():
                for sink in self.sinks.values():
                    sink.save(now=True)
        return {layer: value.to("cpu") for layer, value in normalizations.items()}

    def _statistics(self) -> None:
        def keep(layer: str, raw: Tensor) -> Moments:
            if self.keeping:
                self.kept[layer, index] = raw.clone()
            return Moments.of(raw)

        pending = {layer: sink.moments_done for layer, sink in self.sinks.items()}
        indices = self._todo("train", pending)
        with closing(self._chunks("train", indices)) as chunks:
            for index, pixels, count in chunks:
                wanted = [layer for layer, done in pending.items() if done <= index]
                results = self._run(pixels, count, wanted, keep, Moments.merge)
                for layer, moments in results.items():
                    self._require_finite(layer, moments.finite())
                    self.sinks[layer].add_moments(moments)
                self._step(count)

    def _maps(self, name: str, normalizations: Mapping[str, Normalization]) -> None:
        def keep(layer: str, raw: Tensor) -> Half:
            features = normalizations[layer].apply(raw)
            self._require_finite(layer, bool(torch.isfinite(features).all()))
            half: Half = to_half(features).cpu().numpy()
            return half

        def join(first: Half, second: Half) -> Half:
            return np.concatenate([first, second])

        pending = {layer: sink.done(name) for layer, sink in self.sinks.items()}
        wanted = {
            index: [layer for layer, done in pending.items() if done <= index]
            for index in self._todo(name, pending)
        }
        known = {
            index
            for index, layers in wanted.items()
            if name == "train" and all((layer, index) in self.kept for layer in layers)
        }
        with closing(self._chunks(name, [i for i in wanted if i not in known])) as chunks:
            for index, layers in wanted.items():
                if index in known:
                    raws = {layer: self.kept.pop((layer, index)) for layer in layers}
                    count = len(next(iter(raws.values())))
                    results = {layer: keep(layer, raw) for layer, raw in raws.items()}
                else:
                    _, pixels, count = next(chunks)
                    results = self._run(pixels, count, layers, keep, join)
                for layer, half in results.items():
                    self._write(name, layer, half)
                self._step(count)

    def _todo(self, name: str, pending: Mapping[str, int]) -> range:
        """Return the chunks that some layer still needs; counts the others as seen."""
        images, chunk = len(self.job.sources[name]), self.job.chunk
        first = min(pending.values())
        self.seen += min(first * chunk, images)
        return range(first, -(-images // chunk))

    def _write(self, name: str, layer: str, features: Half) -> None:
        with self.guard():
            self.sinks[layer].write(name, features)

    def _step(self, count: int) -> None:
        self.seen += count
        with self.guard():
            for sink in self.sinks.values():
                sink.save()
        if self.job.progress:
            layers = len(self.sinks)
            what = f"{self.backbone.name}, {layers} layer{'s' if layers != 1 else ''}"
            self.job.progress(what, self.seen, self.total)

    def _require_finite(self, layer: str, finite: bool) -> None:
        if not finite:
            raise InputError(
                f"backbone {self.backbone.name}: layer {layer!r} returns values that are not "
                "finite for these images; are the weights right?"
            )

    def _chunks(
        self, name: str, indices: Sequence[int]
    ) -> Generator[tuple[int, NDArray[np.uint8], int]]:
        """Read chunks ahead of the backbone; yields index, filled-up pixels, true count."""
        source, chunk = self.job.sources[name], self.job.chunk

        def read(index: int) -> tuple[int, NDArray[np.uint8], int]:
            wanted = np.arange(index * chunk, min((index + 1) * chunk, len(source)))
            pixels = source.read(wanted)
            if len(wanted) < chunk:
                filler = np.repeat(pixels[-1:], chunk - len(wanted), axis=0)
                pixels = np.concatenate([pixels, filler])
            return index, pixels, len(wanted)

        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead: deque[Future[tuple[int, NDArray[np.uint8], int]]] = deque()
            try:
                for index in indices:
                    ahead.append(reader.submit(read, index))
                    if len(ahead) > 2:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _run(
        self,
        pixels: NDArray[np.uint8],
        count: int,
        layers: Sequence[str],
        keep: Callable[[str, Tensor], T],
        join: Callable[[T, T], T],
    ) -> dict[str, T]:
        """Run the backbone on a chunk whose first ``count`` images are wanted.

        Where the device has too little memory it goes through in halves.
        """
        try:
            with torch.no_grad():
                return self.backbone.capture(
                    as_images(pixels, self.job.device),
                    layers,
                    lambda layer, raw: keep(layer, raw[:count]),
                )
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise EnvironmentFailure(
                    f"device {self.job.device} has too little memory for one image of "
                    f"{pixels.shape[1]} px in backbone {self.backbone.name}"
                ) from error
        torch.cuda.empty_cache()
        half = len(pixels) // 2
        one = self._run(pixels[:half], min(count, half), layers, keep, join)
        if count <= half:
            return one
        two = self._run(pixels[half:], count - half, layers, keep, join)
        return {layer: join(one[layer], two[layer]) for layer in layers}
