"""The two sweeps over the images: statistics first, then normalised, rectified, pooled maps.

Where what a layer returned waits for its statistics, the second sweep reads it; the network then runs once.

Images go through in chunks of a fixed size, the last one filled up, so that the numbers depend
neither on where an extraction was interrupted nor on which images shared a chunk.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
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
from tuner.features.waiting import in_pieces
from tuner.progress import Progress

T = TypeVar("T")
Half = NDArray[np.float16]

_LARGEST_HALF = 65504.0


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
    called: str

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
            waiting = self.sinks[layer].raw
            if (
                waiting is not None and len(raw) == count
            ):  # not where memory was short and halves run
                with self.guard():
                    waiting.put(index, raw)
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
            return in_pieces(raw, partial(self._made, layer, normalizations[layer]))

        def join(first: Half, second: Half) -> Half:
            return np.concatenate([first, second])

        pending = {layer: sink.done(name) for layer, sink in self.sinks.items()}
        wanted = {
            index: [layer for layer, done in pending.items() if done <= index]
            for index in self._todo(name, pending)
        }
        held = {
            (layer, index)
            for index, layers in wanted.items()
            for layer in layers
            if name == "train" and (raw := self.sinks[layer].raw) and raw.holds(index)
        }
        again = [i for i, layers in wanted.items() if any((la, i) not in held for la in layers)]
        with closing(self._chunks(name, again)) as chunks:
            for index, layers in wanted.items():
                lost = [
                    layer
                    for layer in layers
                    if (layer, index) not in held
                    or not self._take(layer, index, normalizations[layer])
                ]
                if index in again:
                    _, pixels, count = next(chunks)
                elif lost:
                    _, pixels, count = self._read(name, index)
                if lost:
                    for layer, half in self._run(pixels, count, lost, keep, join).items():
                        self._write(name, layer, half)
                self._step(self._count(name, index))

    def _take(self, layer: str, index: int, normalization: Normalization) -> bool:
        """Write a chunk of training features from what waited; False where it is not as it was written."""
        waiting = self.sinks[layer].raw
        assert waiting is not None

        def made(raw: Tensor) -> Half:
            return self._made(layer, normalization, raw.to(self.job.device))

        with self.guard():
            half = waiting.take(index, made)
        if half is not None:
            self._write("train", layer, half)
        return half is not None

    def _made(self, layer: str, normalization: Normalization, raw: Tensor) -> Half:
        features = normalization.apply(raw)
        # a sum is quicker to look at, and beyond all numbers only where there is reason to look closer
        if not math.isfinite(float(features.sum())):
            self._require_finite(layer, bool(torch.isfinite(features).all()))
        half: Half = to_half(features).cpu().numpy()
        return half

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
            what = f"{self.job.called}, {layers} layer{'s' if layers != 1 else ''}"
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
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead: deque[Future[tuple[int, NDArray[np.uint8], int]]] = deque()
            try:
                for index in indices:
                    ahead.append(reader.submit(self._read, name, index))
                    if len(ahead) > 2:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _read(self, name: str, index: int) -> tuple[int, NDArray[np.uint8], int]:
        source, chunk = self.job.sources[name], self.job.chunk
        count = self._count(name, index)
        pixels = source.read(np.arange(index * chunk, index * chunk + count))
        if count < chunk:
            filler = np.repeat(pixels[-1:], chunk - count, axis=0)
            pixels = np.concatenate([pixels, filler])
        return index, pixels, count

    def _count(self, name: str, index: int) -> int:
        """Return the number of images in a chunk."""
        return min(self.job.chunk, len(self.job.sources[name]) - index * self.job.chunk)

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
