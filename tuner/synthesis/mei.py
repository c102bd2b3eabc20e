"""Most exciting images: for each unit an image that its encoder predicts the largest response to.

All images of a run go through one batched optimisation: the loss is minus the sum over the batch of
each image's own unit's readout output. Everything random is drawn per (seed, step) or per (seed,
unit, variant), and no operation couples the images of a batch, so an image is the same whichever
others are made with it, in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.encoder import Encoder, Together, as_batch
from tuner.errors import InputError, unknown
from tuner.synthesis import lucent_bridge, priors, transforms
from tuner.synthesis.canvas import Job
from tuner.synthesis.chunks import chunk_size, chunks
from tuner.synthesis.determinism import deterministic
from tuner.synthesis.photometry import Photometry, quantize
from tuner.synthesis.receptive_fields import from_readout

StepsDone = Callable[[int, int], None]
"""Called with the optimisation steps done and to do, counted over all images."""


MATCHES = ("image", "field")
"""Where mean and contrast are held."""


@dataclass(frozen=True)
class MeiSettings:
    """How images are made; all of it goes into the manifest.

    Parameters
    ----------
    prior, transforms
        Names of the prior and of the transforms.
    prior_options
        Of the prior, see there; what files they name is hashed in them.
    steps
        Steps of gradient ascent.
    learning_rate
        None: the prior's own.
    weight_decay
        Weight decay of the optimiser on the prior's parameters.
    mean, contrast, norm
        See :class:`~tuner.synthesis.photometry.Photometry`.
    match
        Where they are held: over the whole ``"image"``, or inside the unit's receptive ``"field"``, beyond
        which the image is grey. Over the whole image a unit gathers all contrast in its field, and wins by
        that over images that cannot.
    variants
        Images per unit, from different beginnings.
    seed
        Seed of everything that is drawn: initial images and transforms.
    keep_every
        Every so many steps the image as it would be shown is measured, and the best one is kept.
    chunk
        Images per batch; 0: chosen by image size and device.
    """

    prior: str = "fft"
    prior_options: Mapping[str, Any] = field(default_factory=dict)
    transforms: str = "jitter"
    steps: int = 200
    learning_rate: float | None = None
    weight_decay: float = 0.0
    mean: float = 0.5
    contrast: float | None = 0.1
    norm: float | None = None
    match: str = "image"
    variants: int = 1
    seed: int = 0
    keep_every: int = 10
    chunk: int = 0

    def __post_init__(self) -> None:
        options = dict(self.prior_options)
        if self.contrast is None and self.prior in ("fft", "pixel"):
            # without a fixed contrast the size of the spectrum counts, not only its direction
            options.setdefault("ascent", "adam")
        prior = priors.get(self.prior, options)
        object.__setattr__(self, "prior_options", prior.options)
        if self.transforms not in transforms.TRANSFORMS:
            transforms.build(self.transforms, 1, 0.5)
        for name, least in (
            ("steps", 1),
            ("variants", 1),
            ("keep_every", 1),
            ("seed", 0),
            ("chunk", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"learning_rate = {self.learning_rate:g}: must be positive")
        if self.match not in MATCHES:
            raise unknown("match", self.match, MATCHES)
        if self.weight_decay < 0:
            raise InputError(f"weight_decay = {self.weight_decay:g}: must not be negative")
        _ = self.photometry

    @property
    def photometry(self) -> Photometry:
        """Mean and contrast of the images."""
        return Photometry(mean=self.mean, contrast=self.contrast, norm=self.norm)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Mei:
    """One image.

    Parameters
    ----------
    job
        Unit (index in the recording) and variant.
    pixels
        ``(S, S, 3)`` uint8.
    activation
        Predicted response to these pixels, in the recording's own units.
    step
        The step after which the image was kept.
    """

    job: Job
    pixels: NDArray[np.uint8]
    activation: float
    step: int


@dataclass(frozen=True)
class MeiResult:
    """Images of some units of one region.

    Parameters
    ----------
    units
        ``(n,)`` unit indices in the recording.
    names
        What to call them.
    pixels
        ``(n, variants, S, S, 3)`` uint8.
    activation
        ``(n, variants)``, in the recording's own units.
    steps
        ``(n, variants)``: when each image was kept.
    chunk
        Images per batch.
    nondeterministic
        Operations without a deterministic form that took part; empty on a CPU.
    """

    units: NDArray[np.int64]
    names: list[str]
    pixels: NDArray[np.uint8]
    activation: NDArray[np.float64]
    steps: NDArray[np.int64]
    chunk: int
    nondeterministic: tuple[str, ...] = field(default=())

    @property
    def images(self) -> NDArray[np.float32]:
        """``(n * variants, S, S, 3)`` in [0, 1], a unit's variants side by side."""
        flat = self.pixels.reshape(-1, *self.pixels.shape[2:])
        return flat.astype(np.float32) / np.float32(255)


class Ensemble:
    """Encoders of the same units, taken together: the mean of their outputs.

    Raises
    ------
    InputError
        If there is none, or they are not of the same units and image size.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._together = Together(encoders)
        self.encoders = self._together.encoders
        self.first = self.encoders[0]
        for encoder in self.encoders[1:]:
            if not np.array_equal(encoder.unit_indices, self.first.unit_indices):
                raise InputError("the encoders of an ensemble must be of the same units")

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.first.device

    @property
    def image_size(self) -> int:
        """Side of the images."""
        return self.first.image_size

    def _own(self, images: Tensor, units: Tensor) -> Iterator[tuple[Encoder, Tensor]]:
        for _, encoder, features in self._together.features(images):
            yield encoder, encoder.own_drive(images, units, features=features)

    def own_drive(self, images: Tensor, units: Tensor) -> Tensor:
        """Mean output ``(B,)`` of unit ``units[i]`` (position in the encoders) for image ``i``."""
        total = sum(drive for _, drive in self._own(images, units))
        return torch.as_tensor(total) / len(self.encoders)

    def own_response(self, images: Tensor, units: Tensor) -> Tensor:
        """Mean response, in the recording's own units, ``(B,)``."""
        total = sum(encoder.respond(drive, units) for encoder, drive in self._own(images, units))
        return torch.as_tensor(total) / len(self.encoders)

    def positions(self, units: Sequence[int]) -> list[int]:
        """Where units (indices in the recording) stand in the encoders.

        Raises
        ------
        InputError
            If the encoders have no such unit.
        """
        where = {int(index): k for k, index in enumerate(self.first.unit_indices)}
        for unit in units:
            if int(unit) not in where:
                raise InputError(
                    f"unit {unit} is not of this region; "
                    f"its units: {_ranges(self.first.unit_indices)}"
                )
        return [where[int(unit)] for unit in units]


def _ranges(indices: NDArray[np.int64]) -> str:
    """``0-11, 14``: compact, for messages."""
    parts: list[list[int]] = []
    for index in sorted(int(i) for i in indices):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def synthesize(
    encoders: Sequence[Encoder],
    units: Sequence[int] | None,
    settings: MeiSettings,
    progress: StepsDone | None = None,
    *,
    finished: Callable[[Job], Mei | None] | None = None,
    keep: Callable[[Mei], None] | None = None,
) -> MeiResult:
    """Make the most exciting images of some units.

    Parameters
    ----------
    encoders
        One, or an ensemble of the same units.
    units
        Indices in the recording; None: all of the encoders' units.
    settings
        How the images are made.
    progress
        Called after each step.
    finished
        Returns an image that was made before with the same settings, or None.
    keep
        Called with each new image as soon as its batch is done.

    Returns
    -------
    MeiResult
        In the order of ``units``.

    Raises
    ------
    InputError
        If a unit is unknown or given twice, or an encoder answers with NaN.
    """
    ensemble = Ensemble(encoders)
    chosen = [int(u) for u in (ensemble.first.unit_indices if units is None else units)]
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError("units: name at least one, and each once")
    positions = dict(zip(chosen, ensemble.positions(chosen), strict=True))
    chunk = settings.chunk or chunk_size(ensemble.image_size, ensemble.device.type)
    jobs = [Job(unit, variant) for unit in chosen for variant in range(settings.variants)]
    done: dict[Job, Mei] = {}
    for job in jobs:
        earlier = finished(job) if finished else None
        if earlier is not None:
            done[job] = earlier
    batches = chunks([job for job in jobs if job not in done], chunk)
    total = len(batches) * settings.steps
    windows = _windows(ensemble) if settings.match == "field" else None
    with deterministic(ensemble.device) as missing:
        for number, batch in enumerate(batches):
            rows = torch.tensor([positions[job.unit] for job in batch], device=ensemble.device)
            before = number * settings.steps

            def report(step: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + step, total)

            for mei in _ascend(ensemble, batch, rows, settings, windows, report):
                if mei.job not in done:
                    done[mei.job] = mei
                    if keep is not None:
                        keep(mei)
    return _gather(ensemble, chosen, positions, settings, done, chunk, tuple(sorted(missing)))


def _ascend(
    ensemble: Ensemble,
    jobs: Sequence[Job],
    rows: Tensor,
    settings: MeiSettings,
    windows: Tensor | None,
    progress: Callable[[int], None],
) -> list[Mei]:
    """Optimise one batch of images."""
    prior = priors.get(settings.prior, settings.prior_options)
    photometry = settings.photometry
    window = None if windows is None else windows[rows]

    def shown(images: Tensor, *, exact: bool = False) -> Tensor:
        if window is None:
            return photometry.apply(images, exact=exact)
        return photometry.inside(images, window, exact=exact)

    canvas = prior.start(
        jobs,
        ensemble.image_size,
        seed=settings.seed,
        steps=settings.steps,
        learning_rate=settings.learning_rate or prior.learning_rate,
        weight_decay=settings.weight_decay,
        device=ensemble.device,
    )
    best = _Best(ensemble, jobs, rows)

    def measure(step: int) -> None:
        with torch.no_grad():
            best.offer(quantize(shown(canvas.image(), exact=True)), step)

    def after_step(step: int) -> None:
        canvas.after_step(step)
        if step % settings.keep_every == 0 or step == settings.steps:
            measure(step)
        progress(step)

    measure(0)
    lucent_bridge.ascend(
        score=lambda images: ensemble.own_drive(images, rows),
        image=lambda: shown(canvas.image()),
        parameters=canvas.parameters,
        optimizer=canvas.optimizer,
        transforms=transforms.build(settings.transforms, ensemble.image_size, settings.mean),
        image_size=ensemble.image_size,
        steps=settings.steps,
        seed=settings.seed,
        after_step=after_step,
    )
    return best.images()


def _windows(ensemble: Ensemble) -> Tensor:
    """``(n_units, 1, S, S)``: the receptive fields of the first encoder's units."""
    found = from_readout(ensemble.first).windows()
    return torch.from_numpy(found).float()[:, None].to(ensemble.device)


class _Best:
    """The best image of each job so far, judged as it would be shown: 8 bits, nothing displaced."""

    def __init__(self, ensemble: Ensemble, jobs: Sequence[Job], rows: Tensor) -> None:
        self.ensemble, self.jobs, self.rows = ensemble, jobs, rows
        self.drive = np.full(len(jobs), -np.inf)
        self.response = np.full(len(jobs), np.nan)
        self.step = np.zeros(len(jobs), dtype=np.int64)
        self.pixels: NDArray[np.uint8] | None = None

    def offer(self, pixels: NDArray[np.uint8], step: int) -> None:
        """Keep what is better than before."""
        if self.pixels is None:
            self.pixels = pixels.copy()
        images = as_batch(pixels, self.ensemble.device)
        drive = self.ensemble.own_drive(images, self.rows).double().cpu().numpy()
        response = self.ensemble.own_response(images, self.rows).double().cpu().numpy()
        better = drive > self.drive
        self.drive[better], self.response[better] = drive[better], response[better]
        self.step[better] = step
        self.pixels[better] = pixels[better]

    def images(self) -> list[Mei]:
        """One per job."""
        assert self.pixels is not None
        for job, response in zip(self.jobs, self.response, strict=True):
            if not np.isfinite(response):
                raise InputError(
                    f"unit {job.unit}: its encoder answers images with {response}; fit it again"
                )
        return [
            Mei(job, pixels, float(response), int(step))
            for job, pixels, response, step in zip(
                self.jobs, self.pixels, self.response, self.step, strict=True
            )
        ]


def _gather(
    ensemble: Ensemble,
    units: Sequence[int],
    positions: dict[int, int],
    settings: MeiSettings,
    done: dict[Job, Mei],
    chunk: int,
    missing: tuple[str, ...],
) -> MeiResult:
    names = ensemble.first.unit_names()
    table = [[done[Job(unit, v)] for v in range(settings.variants)] for unit in units]
    return MeiResult(
        units=np.array(units, dtype=np.int64),
        names=[names[positions[unit]] for unit in units],
        pixels=np.stack([np.stack([mei.pixels for mei in row]) for row in table]),
        activation=np.array([[mei.activation for mei in row] for row in table]),
        steps=np.array([[mei.step for mei in row] for row in table], dtype=np.int64),
        chunk=chunk,
        nondeterministic=missing,
    )
