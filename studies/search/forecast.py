"""What a search would take: studies, memory, disk, time; nothing is made.

Times come from a short calibration on this machine: a few steps of each cohort's own size on random features, so that the
prediction holds what really costs, and no image is read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.config.ranges import FloatRange, IntRange, points
from studies.grid import Spec, cohorts
from studies.search.closed_form import problem
from studies.search.create import plans
from studies.workspace import Workspace
from tuner.progress import counted

STEPS = 4
"""Timed steps per cohort, after one that is not."""

SURVIVING = 0.65
"""Share of a round's column-steps that the median rule leaves: half the trials stop, from 30 % of the reports on."""

OVERHEAD_SECONDS = 0.05
"""Sampler and database per study and round."""


@dataclass(frozen=True)
class CohortPlan:
    """What one cohort takes.

    Attributes
    ----------
    memory
        Bytes while it trains, features in memory included.
    round_seconds
        Of one round: what a kill costs at most.
    search_seconds
        Of all its rounds.
    """

    backbone: str
    layer: str
    readout: str
    studies: int
    features: int
    columns: int
    rounds_at_once: int
    compiled: bool
    tier: str
    memory: int
    cache: int
    kept: int
    round_seconds: float
    search_seconds: float


def plan(workspace: Workspace, specs: Sequence[Spec], n_trials: int) -> list[CohortPlan]:
    """Plan of every cohort of the selected studies."""
    how = plans(workspace, specs)
    parts = list(cohorts(specs).values())
    return [
        (_closed_form if members[0].closed_form else _cohort)(
            workspace, members, how[members[0].name], n_trials
        )
        for members in counted(parts, "calibrating", workspace.progress)
    ]


def extraction_seconds(workspace: Workspace, specs: Sequence[Spec]) -> float:
    """Time to extract what is not yet in the cache, from a few images through the backbone, both sweeps.

    Of a layer that the cache cannot hold, only the statistics are taken.
    """
    from tuner.features.extract import statistics_key
    from tuner.features.layout import feature_key

    total = 0.0
    recording = workspace.recording
    for alias in dict.fromkeys(spec.key.backbone for spec in specs):
        backbone = workspace.backbone(alias)
        grid = workspace.settings(alias).max_grid
        layers = {s.key.layer: s.shape for s in specs if s.key.backbone == alias}
        huge, fitting = [], []
        for layer, shape in layers.items():
            key = feature_key(backbone, layer, workspace.images, grid, workspace.test_images)
            if not workspace.cache.holds(workspace.cached_bytes(shape)):
                if workspace.cache.open(statistics_key(key)) is None:
                    huge.append(layer)
            elif workspace.cache.open(key) is None:
                fitting.append(layer)
        if fitting:
            images = 2 * recording.n_train + recording.n_test
            total += images * image_seconds(workspace, alias, fitting)
        for layer in huge:
            total += recording.n_train * image_seconds(workspace, alias, [layer])
    return total


def image_seconds(workspace: Workspace, alias: str, layers: Sequence[str]) -> float:
    """Seconds of one image through a backbone up to some layers, read and looked at."""
    import torch

    from tuner.features.layout import chunk_images
    from tuner.features.sweeps import as_images

    images = workspace.images
    chunk = min(chunk_images(images.size), len(images))
    seconds = []
    for attempt in range(3):
        begin = time.perf_counter()
        rows = np.arange(attempt, attempt + chunk) % len(images)
        pixels = as_images(images.read(rows), workspace.device)
        with torch.no_grad():
            found = workspace.backbone(alias).features(pixels, list(layers))
        # Moments and maps of what was returned cost about one more pass over it.
        for raw in found.values():
            float(torch.var_mean(raw.double(), dim=(0, 2, 3))[0].sum())
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / chunk


def _cohort(
    workspace: Workspace, members: Sequence[Spec], how: dict[str, Any], n_trials: int
) -> CohortPlan:
    from tuner import readouts
    from tuner.fitting.plan import column_bytes, fixed_bytes, grouping

    experiment = workspace.experiment
    size, training = experiment.search.parallel_trials, experiment.training
    spec = members[0]
    readout = readouts.get(spec.key.readout)
    held = workspace.held_features(spec.shape, how["memory"])
    groups = grouping(
        [s.units for s in members],
        size,
        readout=readout,
        shape=spec.shape,
        batch_size=training.batch_size,
        steps=training.steps,
        device=workspace.device,
        memory=how["memory"] - held,
        compiled=how["compiled"],
        folds=workspace.n_folds,
        judged=workspace.judged,
    )
    kernel = readout.kernel(spec.shape, workspace.device, compiled=how["compiled"])
    per_column = column_bytes(kernel, training.batch_size, workspace.judged)
    folds = workspace.n_folds
    most = max(sum(len(block.units) for block in turn) for group in groups for turn in group.turns)
    largest = most * size * folds
    target = max(s.target(n_trials) for s in members)
    rounds = -(-target // size)
    step, check = _time(workspace, members, how["compiled"], min(largest, 4096), size)
    share = SURVIVING if experiment.search.pruner == "median" else 1.0
    reports = -(-training.steps // training.report_every)
    columns = sum(len(s.units) for s in members) * size * folds
    whole = (step * training.steps + check * reports) * columns * share
    tier = workspace.tier(spec.shape, how["memory"])
    if tier == "recompute":
        seen = training.batch_size * training.steps + len(workspace.held_out) * reports
        whole += len(groups) * seen * image_seconds(workspace, spec.key.backbone, [spec.key.layer])
    trial_share = target / (rounds * size)
    return CohortPlan(
        backbone=spec.key.backbone,
        layer=spec.key.layer,
        readout=spec.key.readout,
        studies=len(members),
        features=spec.shape.size,
        columns=columns,
        rounds_at_once=len(groups),
        compiled=how["compiled"],
        tier=tier,
        memory=largest * per_column
        + fixed_bytes(spec.shape, training.batch_size, workspace.device)
        + held,
        cache=0 if tier == "recompute" else workspace.cached_bytes(spec.shape),
        kept=(experiment.search.keep + 1) * _weights_bytes(workspace, members),
        round_seconds=whole / len(groups) + OVERHEAD_SECONDS * len(members),
        search_seconds=(whole * trial_share + OVERHEAD_SECONDS * len(members)) * rounds,
    )


def _closed_form(
    workspace: Workspace, members: Sequence[Spec], how: dict[str, Any], n_trials: int
) -> CohortPlan:
    """One fit of all studies, under all settings."""
    from tuner.closed_form.cost import fit_bytes, fit_seconds

    spec, sizes = members[0], problem(workspace, members)
    arithmetic = sizes.plan(how["memory"])
    seconds = fit_seconds(sizes, arithmetic, workspace.algebra_device)
    tier = workspace.tier(spec.shape, how["memory"])
    if tier == "recompute":
        # Features are read a piece of channels at a time, so each piece computes every image anew.
        seen = (sizes.pieces(arithmetic) + 1) * (sizes.images + sizes.others)
        seconds += seen * image_seconds(workspace, spec.key.backbone, [spec.key.layer])
    seconds += OVERHEAD_SECONDS * len(members)
    return CohortPlan(
        backbone=spec.key.backbone,
        layer=spec.key.layer,
        readout=spec.key.readout,
        studies=len(members),
        features=spec.shape.size,
        columns=sizes.units * spec.target(n_trials),
        rounds_at_once=1,
        compiled=False,
        tier=tier,
        memory=fit_bytes(sizes, arithmetic),
        cache=0 if tier == "recompute" else workspace.cached_bytes(spec.shape),
        kept=_weights_bytes(workspace, members),
        round_seconds=seconds,
        search_seconds=seconds,
    )


def _weights_bytes(workspace: Workspace, members: Sequence[Spec]) -> int:
    """Of one weights file of each study, with folds the predictions of held-out images too."""
    from tuner import readouts

    folds = workspace.n_folds
    readout = readouts.get(members[0].key.readout)
    parameters = sum(
        int(np.prod(shape))
        for s in members
        for shape in readout.parameter_shapes(s.shape, len(s.units), folds).values()
    )
    answers = 0 if folds == 1 else len(workspace.held_out) * sum(len(s.units) for s in members)
    return 4 * (parameters + answers)


def _time(
    workspace: Workspace, members: Sequence[Spec], compiled: bool, limit: int, size: int
) -> tuple[float, float]:
    """Seconds per column of a step and of a validation, measured on random features of the cohort's size."""
    import torch

    from tuner import readouts
    from tuner.fitting.columns import Columns
    from tuner.fitting.trainer import Trainer

    experiment, device = workspace.experiment, workspace.device
    spec = members[0]
    units = np.concatenate([s.units for s in members])
    folds = workspace.n_folds
    units = np.tile(units, size)[: max(1, limit // folds)]
    middle = {
        name: float(np.sqrt(max(setting.low, 1e-9) * setting.high))
        if isinstance(setting, FloatRange | IntRange)
        else points(setting)[0]
        for name, setting in spec.space.items()
    }
    trainer = Trainer(
        readouts.get(spec.key.readout).kernel(spec.shape, device, compiled=compiled),
        _Noise(spec.shape.size, device),
        workspace.targets,
        loss=experiment.training.loss,
        batch_size=experiment.training.batch_size,
        seed=0,
        device=device,
        center=torch.zeros(spec.shape.size) if experiment.training.center else None,
    )
    state = trainer.start(Columns.of_trials([middle], [units], folds=folds))
    trainer.advance(state, 0, 1)
    seconds = []
    for step in range(1, STEPS + 1):
        begin = time.perf_counter()
        trainer.advance(state, step, step + 1)
        _wait(device)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    trainer.validate(state)
    check = time.perf_counter() - begin
    return float(np.median(seconds)) / len(state), check / len(state)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Noise:
    """Random features, as many as a batch asks for, from a small table that costs no memory to speak of."""

    def __init__(self, features: int, device: Any) -> None:
        import torch

        table = torch.randn(64, features, generator=torch.Generator().manual_seed(0))
        self._rows = table.relu_().half().to(device)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Any) -> Any:
        return self._rows.index_select(0, (indices % len(self._rows)).to(self._rows.device)).float()
