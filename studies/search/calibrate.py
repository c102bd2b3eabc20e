"""How long steps take on this machine, from measurements that end after a given time, whatever the size of the problem.

Every kind of readout is timed at its smallest and largest layer first, then between them, while there is time; on as many
columns as a step of a fraction of a second allows. Layers that were not reached are read off between those that were, by
the time per column and feature. How far such a reading misses where there is a measurement to compare it with, and how
much repeated measurements differ, is the interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from studies.config.ranges import FloatRange, IntRange, points
from studies.grid import Spec
from studies.search.rungs import ReportGrid
from studies.workspace import Workspace

SECONDS = 60.0
"""That all measurements of a plan may take."""

STEPS = 4
"""Timed steps, after one that is not."""

_REST = 0.5
"""Share of the time that is left for the backbones."""

UNKNOWN = 0.4
"""Natural logarithm of how far a layer that was not timed may be off, where nothing is known of that."""

_PARAMETER_BYTES = 64e6
"""Of the parameters that are timed: enough for products at their full speed, little enough for a fraction of a second."""

_VALIDATION = 128
"""Validation images that are timed; time goes by their number."""


@dataclass(frozen=True)
class Span:
    """A time with the interval that it lies in, s."""

    low: float
    value: float
    high: float

    @classmethod
    def of(cls, repeats: Sequence[float]) -> Span:
        """Of repeated measurements: their median, least and greatest."""
        return cls(min(repeats), float(np.median(repeats)), max(repeats))

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.value + other.value, self.high + other.high)

    def __mul__(self, factor: float) -> Span:
        return Span(self.low * factor, self.value * factor, self.high * factor)

    def widened(self, logarithm: float) -> Span:
        """By a factor on either side."""
        factor = float(np.exp(logarithm))
        return Span(self.low / factor, self.value, self.high * factor)


ZERO = Span(0.0, 0.0, 0.0)


@dataclass
class Budget:
    """Seconds that are left for measuring."""

    seconds: float = SECONDS
    _begin: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Never below 0."""
        return max(0.0, self.seconds - (time.monotonic() - self._begin))

    def repeat(self, measure: Callable[[int], float], times: int, share: float) -> list[float]:
        """Measure so many times, at least once, while less than a share of the whole is spent on it."""
        begin = time.monotonic()
        found = [measure(0)]
        while len(found) < times and time.monotonic() - begin < share * self.seconds:
            found.append(measure(len(found)))
        return found


@dataclass(frozen=True)
class Timed:
    """A layer with one kind of readout, run in one way, that is to be timed."""

    members: Sequence[Spec]
    compiled: bool
    columns: int

    @property
    def kind(self) -> tuple[str, bool]:
        """What has a speed of its own."""
        return self.members[0].key.readout, self.compiled

    @property
    def size(self) -> int:
        """Features of an image."""
        return self.members[0].shape.size


def column_seconds(
    workspace: Workspace, wanted: Sequence[Timed], budget: Budget
) -> dict[int, Span]:
    """Seconds of a whole trial per column, for each of `wanted` by its place; those that were not reached are read off."""
    found: dict[tuple[str, bool], dict[int, Span]] = {}
    for done, place in enumerate(_order(wanted), start=1):
        one = wanted[place]
        known = found.setdefault(one.kind, {})
        if one.size not in known and (not known or budget.left() > _REST * budget.seconds):
            known[one.size] = trial_seconds(workspace, one, budget)
        workspace.progress("calibrating", done, len(wanted))
    return {place: read_off(found[one.kind], one.size) for place, one in enumerate(wanted)}


def _order(wanted: Sequence[Timed]) -> list[int]:
    """Ends of every kind first, then what lies farthest from what was timed."""
    order: list[int] = []
    for kind in dict.fromkeys(one.kind for one in wanted):
        mine = sorted(
            (p for p, one in enumerate(wanted) if one.kind == kind), key=lambda p: wanted[p].size
        )
        spread = [mine[0], mine[-1]] if len(mine) > 1 else mine
        while len(spread) < len(mine):
            rest = [p for p in mine if p not in spread]
            logs = {p: np.log(wanted[p].size) for p in mine}
            spread.append(max(rest, key=lambda p: min(abs(logs[p] - logs[s]) for s in spread)))
        order += [p for p in spread if p not in order]
    rank = {p: i for kind_order in _by_kind(wanted, order) for i, p in enumerate(kind_order)}
    return sorted(order, key=lambda p: (rank[p], p))


def _by_kind(wanted: Sequence[Timed], order: Sequence[int]) -> list[list[int]]:
    kinds = dict.fromkeys(wanted[p].kind for p in order)
    return [[p for p in order if wanted[p].kind == kind] for kind in kinds]


def read_off(known: dict[int, Span], size: int) -> Span:
    """Seconds per column at a size: as measured, or between measured ones by the time per feature on a logarithmic scale.

    Parameters
    ----------
    known
        Features to seconds per column.
    size
        Features.
    """
    if size in known:
        return known[size]

    def between(points: dict[int, Span], at: int) -> float:
        sizes = sorted(points)
        rates = [np.log(points[s].value / s) for s in sizes]
        return float(np.exp(np.interp(np.log(at), np.log(sizes), rates)) * at)

    value = between(known, size)
    inner = sorted(known)[1:-1]
    misses = [
        abs(np.log(between({s: v for s, v in known.items() if s != at}, at) / known[at].value))
        for at in inner
    ]
    spread = max(max(np.log(s.high / s.value), np.log(s.value / s.low)) for s in known.values())
    off = max(misses) if misses else UNKNOWN
    return Span(value, value, value).widened(float(off + spread))


def trial_seconds(workspace: Workspace, one: Timed, budget: Budget) -> Span:
    """Seconds of a whole trial per column, measured on random features of the layer's size."""
    import torch

    from tuner import readouts
    from tuner.fitting.columns import Columns
    from tuner.fitting.trainer import Trainer

    experiment, device = workspace.experiment, workspace.device
    training, spec = experiment.training, one.members[0]
    readout = readouts.get(spec.key.readout)
    parameters = sum(
        int(np.prod(shape)) for shape in readout.parameter_shapes(spec.shape, 1).values()
    )
    most = max(8, int(_PARAMETER_BYTES / (4 * parameters)))
    units = np.concatenate([s.units for s in one.members])
    folds = workspace.cuts.n_folds
    units = np.resize(units, max(1, min(one.columns, most) // folds))
    middle = {
        name: float(np.sqrt(max(setting.low, 1e-9) * setting.high))
        if isinstance(setting, FloatRange | IntRange)
        else points(setting)[0]
        for name, setting in spec.space.items()
    }
    targets = workspace.targets
    few = slice(0, _VALIDATION)
    part = targets
    if targets.fold is None:  # with folds there are few images to begin with
        part = replace(
            targets,
            validation=targets.validation[few],
            validation_rows=targets.validation_rows[few],
            half=targets.half[few],
        )
    trainer = Trainer(
        readout.kernel(spec.shape, device, compiled=one.compiled),
        _Noise(spec.shape.size, device),
        part,
        loss=training.loss,
        batch_size=training.batch_size,
        seed=0,
        device=device,
        center=torch.zeros(spec.shape.size) if training.center else None,
    )
    state = trainer.start(Columns.of_trials([middle], [units], folds=folds))
    trainer.advance(state, 0, 1)

    def step(number: int) -> float:
        begin = time.perf_counter()
        trainer.advance(state, number + 1, number + 2)
        _wait(device)
        return time.perf_counter() - begin

    def check(number: int) -> float:
        begin = time.perf_counter()
        trainer.validate(state)
        _wait(device)
        return time.perf_counter() - begin

    steps = Span.of(budget.repeat(step, STEPS, 0.02)) * training.steps
    reports = len(ReportGrid.of(workspace.experiment).steps)
    images = len(targets.validation_rows) / max(1, len(part.validation_rows))
    checks = Span.of(budget.repeat(check, 2, 0.02)) * (reports * images)
    return (steps + checks) * (1 / len(state))


def image_seconds(workspace: Workspace, alias: str, layers: Sequence[str], budget: Budget) -> Span:
    """Seconds of one image through a backbone up to some layers, read and looked at."""
    import torch

    from tuner.features.layout import chunk_images
    from tuner.features.sweeps import as_images

    images = workspace.images
    backbone = workspace.networks.backbone(alias)

    def measure(chunk: int) -> float:
        begin = time.perf_counter()
        pixels = as_images(images.read(np.arange(chunk) % len(images)), workspace.device)
        with torch.no_grad():
            found = backbone.features(pixels, list(layers))
        # Moments and maps of what was returned cost about one more pass over it.
        for raw in found.values():
            float(torch.var_mean(raw.double(), dim=(0, 2, 3))[0].sum())
        return (time.perf_counter() - begin) / chunk

    alone = measure(1)  # the first image also loads code
    whole = min(chunk_images(images.size), len(images))
    # As many at a time as while extracting, if that takes no more than a twentieth of the time there is.
    chunk = max(1, min(whole, int(0.05 * budget.seconds / alone)))
    return Span.of(budget.repeat(lambda _: measure(chunk), 3, 0.05))


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Noise:
    """Random features, as many as a batch asks for, from a small table that costs no memory to speak of."""

    def __init__(self, features: int, device: Any) -> None:
        import torch

        table = torch.randn(16, features, generator=torch.Generator().manual_seed(0))
        self._rows = table.relu_().half().to(device)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Any) -> Any:
        return self._rows.index_select(0, (indices % len(self._rows)).to(self._rows.device)).float()
